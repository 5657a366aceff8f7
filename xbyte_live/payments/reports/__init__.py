"""Earnings by item and period, balances of payees, and the export of the books."""

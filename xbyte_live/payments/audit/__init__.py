"""The ledger compared with itself and with the chain."""

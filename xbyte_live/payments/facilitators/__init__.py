"""Facilitators, which verify and settle payments: remote, or in this process."""

"""Money SQL: charges, channels, actions on chain, sessions, and the audit of all of them."""

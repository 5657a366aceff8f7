"""The SQL of money: charges, channels, actions on chain, sessions, and their sums."""

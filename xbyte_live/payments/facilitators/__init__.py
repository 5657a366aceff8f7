"""Who verifies and settles a payment: remote, or in this process."""

"""A whole item, bought into one file."""

"""What bytes cost: quotes by price, preview and time."""

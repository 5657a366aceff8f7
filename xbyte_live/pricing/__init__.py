"""What bytes cost: prices, quotes, rules."""

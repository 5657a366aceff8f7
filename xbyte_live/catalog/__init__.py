"""Items, their prices, streams and recordings."""

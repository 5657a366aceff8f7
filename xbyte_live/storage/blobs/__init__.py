"""The stores of segment bytes."""

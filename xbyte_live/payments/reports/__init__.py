"""What was earned, by item and period, and its export."""

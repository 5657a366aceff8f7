"""Keys, budgets, channels and signatures of a payer."""

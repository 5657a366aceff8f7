"""A local chain with test money, for demos and tests only."""

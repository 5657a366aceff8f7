"""The SQL of the catalog."""

"""Where segment bytes lie."""

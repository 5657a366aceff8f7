"""HTML pages and their scripts."""

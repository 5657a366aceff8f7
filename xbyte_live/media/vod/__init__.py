"""A file becomes a title."""

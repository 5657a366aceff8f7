"""A feed becomes segments, in a child process of its own."""

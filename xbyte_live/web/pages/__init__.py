"""HTML pages: home, watch, documentation, and their built scripts."""

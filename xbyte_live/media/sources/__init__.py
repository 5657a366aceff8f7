"""Where media comes from: files, URLs, and what of them may be opened."""

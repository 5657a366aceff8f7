"""The player library and the scripts of the pages, in TypeScript, and what builds them."""

"""The database engine, its tables and its migrations."""

"""The studio: login, reports and management."""

"""The studio: sign-in, reports, management."""

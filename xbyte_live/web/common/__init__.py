"""Middleware, responses, metrics and look-ups that every endpoint uses."""

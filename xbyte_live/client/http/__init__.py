"""Requests that pay."""

"""Playlists and segments."""

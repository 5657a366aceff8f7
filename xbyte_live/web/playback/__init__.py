"""Playlists, segments and objects."""

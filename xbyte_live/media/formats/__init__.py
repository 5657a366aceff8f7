"""Formats of media: codecs, containers, playlists."""

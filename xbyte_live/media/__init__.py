"""FFmpeg through PyAV, and the playlists around what it makes."""

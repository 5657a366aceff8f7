"""The HTTP side: playback, the JSON API, pages, sessions and the studio."""

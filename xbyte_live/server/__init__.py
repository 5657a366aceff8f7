"""The composition root: builds, starts and stops a server."""

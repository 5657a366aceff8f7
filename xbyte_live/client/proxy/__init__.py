"""A local proxy that pays for players that cannot."""

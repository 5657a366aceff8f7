"""Prepaid sessions for players that cannot pay."""

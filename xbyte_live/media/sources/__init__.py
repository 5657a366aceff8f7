"""Pulled sources: their URLs, the addresses they may have, and how they are opened."""

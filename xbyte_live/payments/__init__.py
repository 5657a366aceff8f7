"""Payments over x402: offers, charges, settlement on chain, and the books."""

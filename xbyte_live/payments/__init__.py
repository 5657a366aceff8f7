"""x402: what is asked, what is checked, what is charged."""

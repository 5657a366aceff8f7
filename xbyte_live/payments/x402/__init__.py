"""The x402 protocol as it is written: headers, requirements, schemes."""

"""xByte Live: live feeds and files as HLS, sold by the byte over x402."""

__version__ = "0.1.0"

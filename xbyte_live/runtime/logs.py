"""Adapter: where log lines go."""

import logging

_NOISY = ("httpx2", "httpcore", "x402", "web3", "alembic", "urllib3", "asyncio")


def log_to_stderr(level: str) -> None:
    """Log to stderr from this level on, libraries from warnings on."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))

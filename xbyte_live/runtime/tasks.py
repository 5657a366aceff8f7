"""Adapter: work that runs beside something else and ends with it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]

log = logging.getLogger(__name__)


@asynccontextmanager
async def background(*work: Work) -> AsyncIterator[None]:
    """Run ``work`` while the body runs, then cancel it and wait until it has stopped."""
    tasks = [asyncio.create_task(_logged(job)) for job in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _logged(job: Work) -> None:
    try:
        await job
    except Exception:
        log.exception("work beside the server ended in an error")

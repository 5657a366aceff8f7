"""Part: the leader: of all processes on one database, the one that holds a lease works."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from xbyte_live.errors import XByteError
from xbyte_live.storage.coordination import LeaseLedger

LEASE = 15.0  # seconds after which another process takes over from one that was killed
RENEWALS = 3  # tries within a lease

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class Leader:
    """Runs work while this process holds the lease ``name``, and stops it when it does not."""

    def __init__(
        self, ledger: LeaseLedger, *, name: str = "settlement", seconds: float = LEASE
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._seconds = seconds
        self._holder = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.leads = False

    async def run(self, *work: Work) -> None:
        """Wait for the lease, work while it is ours, and so on, for ever."""
        try:
            while True:
                asked_at = time.monotonic()
                if await self._take(asked_at + self._seconds):
                    await self._lead(work, asked_at + self._seconds)
                await asyncio.sleep(self._seconds / RENEWALS)
        finally:
            await self._release()

    async def _lead(self, work: Sequence[Work], until: float) -> None:
        log.info("this process leads: it claims, pays out and watches")
        self.leads = True
        tasks = [asyncio.create_task(one()) for one in work]
        renewing = asyncio.create_task(self._renew(until))
        try:
            await asyncio.wait((*tasks, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leads = False
            for task in (*tasks, renewing):
                task.cancel()
            ends = await asyncio.gather(*tasks, renewing, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                log.error("settlement ended in an error; it begins again", exc_info=end)

    async def _renew(self, until: float) -> None:
        """Return when the lease is not ours any more, or may not be."""
        while True:
            await asyncio.sleep(self._seconds / RENEWALS)
            asked_at = time.monotonic()
            ours = await self._take(until)
            if ours:
                until = asked_at + self._seconds
            elif ours is False or time.monotonic() + self._seconds / RENEWALS >= until:
                log.warning("this process does not lead any more")
                return

    async def _take(self, deadline: float) -> bool | None:
        """Whether the lease is ours; ``None`` if the database does not say so in time."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self._ledger.take(self._name, self._holder, seconds=self._seconds)
        except TimeoutError:
            log.warning("the lease of the leader cannot be renewed: no answer")
        except XByteError as error:
            log.warning("the lease of the leader cannot be renewed: %s", error)
        return None

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(self._seconds / RENEWALS):
                await self._ledger.release(self._name, self._holder)
        except (XByteError, TimeoutError):
            log.info("the lease of the leader is left to run out")

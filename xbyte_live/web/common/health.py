"""Adapter: the readiness of this process: checks of its parts, each with a deadline."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

from xbyte_live.errors import XByteError
from xbyte_live.storage.blobs.store import Store

Check = Callable[[], Awaitable[str | None]]

_log = logging.getLogger(__name__)


class Readiness:
    """Runs named checks, each of which returns ``None`` or one sentence that says why it fails.

    A result is kept for ``keep`` seconds, so that frequent requests cost nothing; a check that
    takes longer than ``timeout`` seconds fails.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        keep: float = 1.0,
        timeout: float = 3.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = dict(checks)
        self._keep = keep
        self._timeout = timeout
        self._monotonic = monotonic
        self._verdict: dict[str, str] = {}
        self._good_until = -1.0
        self._asking = asyncio.Lock()

    async def problems(self) -> dict[str, str]:
        """Failures by the name of the check; empty when this process is ready."""
        async with self._asking:
            if self._monotonic() >= self._good_until:
                answers = await asyncio.gather(*map(self._ask, self._checks))
                self._verdict = {
                    name: reason
                    for name, reason in zip(self._checks, answers, strict=True)
                    if reason is not None
                }
                self._good_until = self._monotonic() + self._keep
        return self._verdict

    async def _ask(self, name: str) -> str | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._checks[name]()
        except TimeoutError:
            return f"no answer within {self._timeout:g} seconds"
        except XByteError as error:
            return str(error)
        except Exception:
            _log.exception("the readiness check %r raised", name)
            return "the check itself failed; see the log"


def store_check(store: Store) -> Check:
    """A check that writes, reads and deletes a few bytes in the store."""

    async def check() -> str | None:
        key = f"readyz/{secrets.token_hex(8)}"
        await store.put(key, b"ready")
        try:
            found = await store.read(key)
        finally:
            await store.delete(key)
        return None if found == b"ready" else "the store gives other bytes than it was given"

    return check

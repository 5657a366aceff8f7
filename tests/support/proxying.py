"""A local paying proxy in this process, and what its player was told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn

from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.proxy.app import Proxy, ProxyOptions, open_proxy
from xbyte_live.client.proxy.http import listen_on_loopback


@dataclass(slots=True)
class Told:
    """Every reason the one who pays was told."""

    reasons: list[str] = field(default_factory=list)

    def stopped(self, reason: str) -> None:
        self.reasons.append(reason)


@dataclass(slots=True)
class Played:
    """A running proxy; ``http`` asks it as a player would."""

    proxy: Proxy
    origin: str
    told: Told
    http: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return self.origin + self.proxy.path

    async def media(self, url: str = "") -> str:
        """The media playlist behind the multivariant one, or at a local path."""
        if not url:
            entry = (await self.http.get(self.url)).text
            url = next(line for line in entry.splitlines() if not line.startswith("#"))
        answer = await self.http.get(self.origin + url)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def segments(self) -> list[str]:
        """The URLs of what the media playlist lists."""
        return [self.origin + line for line in uris(await self.media())]


def uris(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@asynccontextmanager
async def a_proxy(
    url: str, payer: Payer, *, options: ProxyOptions | None = None, **how: Any
) -> AsyncIterator[Played]:
    listener, authority = listen_on_loopback(0)
    told = Told()
    with listener:
        async with open_proxy(
            url, payer, frozenset({authority}), told, options=options, **how
        ) as proxy:
            server = uvicorn.Server(
                uvicorn.Config(
                    proxy,
                    log_level="critical",
                    lifespan="off",
                    ws="none",
                    timeout_graceful_shutdown=1,
                )
            )
            serving = asyncio.create_task(server.serve([listener]))
            try:
                async with httpx2.AsyncClient(timeout=30) as http:
                    yield Played(proxy, f"http://{authority}", told, http)
            finally:
                server.should_exit = True
                await serving

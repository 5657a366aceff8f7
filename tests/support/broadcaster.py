"""The real server with its RTMP port open and streams for sale, to be published to and watched."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.support.items import PAYEE
from tests.support.players import Viewer
from tests.support.server import Server, free_port
from xbyte_live.catalog.streams import Streams
from xbyte_live.models import NewStream, Offer
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

PRICE = 1_000_000  # a dollar per MB
ALWAYS_US = 86_400_000_000


@dataclass(slots=True)
class Broadcaster:
    """A running server, what to push to it, and what it shows."""

    server: Server
    rtmp_port: int
    http: httpx2.AsyncClient = field(default_factory=lambda: httpx2.AsyncClient(timeout=30))

    @property
    def log(self) -> str:
        assert self.server.log is not None
        return self.server.log.read_text()

    def rtmp(self, key: str, port: int | None = None) -> str:
        """The URL a publisher with that key pushes to."""
        return f"rtmp://127.0.0.1:{port or self.rtmp_port}/live/{key}"

    def viewer(self, slug: str = "live") -> Viewer:
        return Viewer(self.http, f"{self.server.url}/hls/{slug}/source/index.m3u8")

    async def stream(
        self, slug: str = "live", *, free: bool = True, price: int = PRICE, **terms: Any
    ) -> str:
        """Put a stream of one-second segments on sale; its key."""
        values: dict[str, Any] = {"slug": slug, "name": "Live", "segment_target_us": 1_000_000}
        offer = Offer(Price(price), None, time.time(), ALWAYS_US if free else 0)
        async with open_catalog(self.server.settings) as shelf:
            streams = Streams(shelf.database, shelf.catalog)
            return await streams.create(NewStream(**values | terms), offer)

    async def set_price(self, price: int, slug: str = "live") -> None:
        async with open_catalog(self.server.settings) as shelf:
            await shelf.catalog.set_terms(slug, price=Price(price), pay_to=None)

    async def rotate(self, slug: str = "live") -> str:
        """Another key, in place of those there were."""
        async with open_catalog(self.server.settings) as shelf:
            return await Streams(shelf.database, shelf.catalog).rotate(slug)

    async def remove(self, slug: str = "live") -> None:
        async with open_catalog(self.server.settings) as shelf:
            await shelf.catalog.remove(slug)

    async def status(self, slug: str = "live") -> dict[str, Any]:
        """What the server tells of a stream."""
        answer = await self.http.get(f"{self.server.url}/api/v1/streams/{slug}")
        assert answer.status_code == 200
        return dict(answer.json())

    async def until(
        self, says: Callable[[dict[str, Any]], bool], slug: str = "live", *, within: float = 20
    ) -> dict[str, Any]:
        """Return once the state of a stream is like that."""
        async with asyncio.timeout(within):
            while not says(status := await self.status(slug)):
                await asyncio.sleep(0.05)  # the state of a stream can only be asked for
        return status

    def feeds(self) -> list[int]:
        """The processes that package feeds now."""
        assert self.server.process is not None
        forkers = children_of(self.server.process.pid)
        return [pid for forker in forkers for pid in children_of(forker)]


def children_of(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


@asynccontextmanager
async def a_broadcaster(
    tmp_path: Path, environment: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[Broadcaster]:
    """A running server that takes publishers and has no chain; its log is kept."""
    data_dir, rtmp_port = tmp_path / "server", free_port()
    data_dir.mkdir(exist_ok=True)
    env = {
        "XBYTE_PAY_TO": PAYEE,
        "XBYTE_NETWORKS": "eip155:84532",
        "XBYTE_FACILITATORS": "http://127.0.0.1:9",
        "XBYTE_REPUBLISH_WINDOW": "8",
    } | {f"XBYTE_{name.upper()}": value for name, value in settings.items()}
    env |= {"XBYTE_RTMP_PORT": str(rtmp_port), **(environment or {})}
    server = Server(data_dir, env, log=tmp_path / "log.txt")
    await server.start()
    broadcaster = Broadcaster(server, rtmp_port)
    try:
        async with broadcaster.http:
            yield broadcaster
    finally:
        await server.stop()

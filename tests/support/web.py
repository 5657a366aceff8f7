"""A small site over memory, and ways to reach an application."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from tests.fakes import FakeGate, MemoryCatalog, MemoryStore
from xbyte_live.config import Settings
from xbyte_live.models import Object, Offer, Rendition, Segment, Stream, Title, segment_key
from xbyte_live.money import Price
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.app import create_app
from xbyte_live.web.common.health import Readiness
from xbyte_live.web.common.metrics import Levels, Metrics

PAYEE = "0x00000000000000000000000000000000000000aa"
NOW = 1_760_000_000.0
PAID = {"PAYMENT-SIGNATURE": "a payment"}


def segment_bytes(msn: int, size: int = 4000) -> bytes:
    """Bytes that tell which segment they are."""
    return (b"<%d>" % msn * size)[:size]


def a_title(
    slug: str = "plasma",
    *,
    price: int = 1_000_000,
    count: int = 5,
    first: int = 0,
    size: int = 4000,
    preview_us: int = 0,
    **changes: Any,
) -> Title:
    """A title of six-second segments, each ``size`` bytes, at a dollar per MB."""
    segments = tuple(
        Segment(
            msn=first + index,
            size=size,
            start_us=index * 6_000_000,
            duration_us=6_000_000,
            sha256=hashlib.sha256(segment_bytes(first + index, size)).hexdigest(),
        )
        for index in range(count)
    )
    rendition = Rendition(
        name="source",
        codecs="avc1.64001f,mp4a.40.2",
        bandwidth=900_000,
        average_bandwidth=800_000,
        target_duration_s=6,
        independent_segments=True,
        segments=segments,
        width=1280,
        height=720,
        frame_rate=Fraction(30),
    )
    title = Title(
        slug=slug,
        name="Plasma",
        created_at=NOW - 3600,
        duration_us=count * 6_000_000,
        renditions=(rendition,),
        offers=(Offer(Price(price), PAYEE, NOW - 3600, preview_us),),
    )
    return replace(title, **changes)


def a_stream(slug: str = "concert", **changes: Any) -> Stream:
    """A stream on air at 1 Mb/s, a thousandth of a dollar per MB, its first 30 s free."""
    rendition = Rendition("source", "avc1.64001f", 1_200_000, 1_000_000, 2, True, (), 640, 360)
    stream = Stream(
        slug=slug,
        name="Concert",
        created_at=NOW,
        renditions=(rendition,),
        offers=(Offer(Price(1000), PAYEE, NOW - 60, 30_000_000),),
        state="on_air",
        playlist="window",
        window_us=60_000_000,
        segment_target_us=2_000_000,
        recording=False,
    )
    return replace(stream, **changes)


def an_object(
    data: bytes, slug: str = "paper", *, price: int = 1_000_000, **changes: Any
) -> Object:
    """An object of those bytes at a dollar per MB."""
    item = Object(
        slug=slug,
        name="paper.pdf",
        created_at=NOW - 3600,
        size=len(data),
        content_type="application/pdf",
        sha256=hashlib.sha256(data).hexdigest(),
        key=f"{slug}/object/0",
        offers=(Offer(Price(price), PAYEE, NOW - 3600),),
    )
    return replace(item, **changes)


@dataclass
class Site:
    """An application with every collaborator at hand, over memory unless told otherwise."""

    settings: Settings = field(default_factory=lambda: Settings(pay_to=PAYEE))
    now: float = NOW
    problems: dict[str, str] = field(default_factory=dict)
    levels: Levels = field(default_factory=Levels)
    catalog: Any = field(default_factory=MemoryCatalog)
    store: Any = field(default_factory=MemoryStore)
    gate: Any = field(default_factory=FakeGate)

    def __post_init__(self) -> None:
        self.cache = SegmentCache(self.store, self.settings.cache_bytes)
        self.metrics = Metrics(levels=self._read_levels)
        self.app: Starlette = create_app(
            settings=self.settings,
            catalog=self.catalog,
            store=self.store,
            cache=self.cache,
            gate=self.gate,
            ledger=ChargeLedger(Database("sqlite:///unopened.db")),
            metrics=self.metrics,
            readiness=Readiness({"part": self._problem}, keep=0),
            clock=lambda: self.now,
        )

    def add_title(self, title: Title) -> Title:
        """Put a title and its bytes up for sale."""
        self.catalog.by_slug[title.slug] = title
        for rendition in title.renditions:
            for segment in rendition.segments:
                self.add_segment(title.slug, rendition.name, segment)
        return title

    def add_segment(self, slug: str, rendition: str, segment: Segment) -> None:
        """Store the bytes of a segment."""
        key = segment_key(slug, rendition, segment.msn)
        self.store.files[key] = segment_bytes(segment.msn, segment.size)

    def add_object(self, data: bytes, **changes: Any) -> Object:
        """Put a file up for sale."""
        item = an_object(data, **changes)
        self.catalog.by_slug[item.slug] = item
        self.store.files[item.key] = data
        return item

    def client(self) -> httpx2.AsyncClient:
        """A client that calls the application without a socket."""
        transport = httpx2.ASGITransport(self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://site.test")

    async def _problem(self) -> str | None:
        return self.problems.get("part")

    async def _read_levels(self) -> Levels:
        return self.levels


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: Sequence[Any] | None = None) -> None:
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        self.listening.set()


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """Serve an application on an ephemeral loopback port; yields host and port."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http="httptools", lifespan="off", log_config=None
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await server.listening.wait()
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        await running

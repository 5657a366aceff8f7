"""Wiring: builds every part from ``Settings``, starts them in order and stops them in reverse."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType

import uvicorn
import uvloop
from starlette.applications import Starlette

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import sweep
from xbyte_live.cli.output import log_to_stderr
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.keys import is_address
from xbyte_live.live.build import OnAir, open_live
from xbyte_live.payments.build import Till, open_till
from xbyte_live.payments.ledger.retention import Retention
from xbyte_live.payments.ledger.rollup import Summing
from xbyte_live.runtime.helping import helpers, when_the_leader_goes
from xbyte_live.runtime.sealing import seal
from xbyte_live.runtime.tasks import background
from xbyte_live.server.admin import build_studio
from xbyte_live.server.workers import Board, boards
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.blobs.store import Store
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.logins import Logins
from xbyte_live.web.app import create_app
from xbyte_live.web.common.health import Readiness, store_check
from xbyte_live.web.common.http_protocol import BoundedHttp
from xbyte_live.web.common.metrics import Levels, Metrics, MetricValues, load

SWEEP_EVERY = 60.0  # seconds
TELL_EVERY = 1.0  # seconds between two words of a process to the others about its figures
FORGET_AFTER = 86_400.0  # seconds a payment that came to nothing is remembered
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICKS_A_SECOND = 10  # as uvicorn counts them
_YOUNG = 20_000  # objects made before the collector looks at them; few here are in a circle
HEAD_ROOM = 65_536  # bytes a request may have before its body, beside the payment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a command needs that only looks at or changes the catalog."""

    database: Database
    catalog: Catalog
    store: Store


@asynccontextmanager
async def open_shelf(settings: Settings) -> AsyncIterator[Shelf]:
    """Open the database, catalog and store; no chain is touched."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {settings.data_dir} cannot be used ({error.strerror}); set data_dir"
        ) from None
    database = Database(settings.resolved_database_url, write_queue=settings.write_queue)
    await database.start()
    try:
        catalog = Catalog(
            database,
            item_cache=settings.item_cache,
            grace=settings.retry_window + settings.quote_ttl,
        )
        yield Shelf(database, catalog, DiskStore(settings.data_dir / "store"))
    finally:
        await database.stop()


@asynccontextmanager
async def open_service(
    settings: Settings, *, helping: bool = False, board: Board | None = None
) -> AsyncIterator[Starlette]:
    """Everything behind the HTTP server, running; stopped in reverse order on leaving.

    One that is ``helping`` only answers HTTP: publishers, settlement and clearing up are left
    to another process. On the ``board`` they tell each other their figures. Raises
    ``ConfigError`` when settings that only serving needs are missing.
    """
    if not is_address(settings.pay_to):
        raise ConfigError("pay_to must be the payee's address; set XBYTE_PAY_TO=0x…")
    async with AsyncExitStack() as stack:
        shelf = await stack.enter_async_context(open_shelf(settings))
        till = await stack.enter_async_context(open_till(settings, shelf.database))
        cache = SegmentCache(shelf.store, settings.cache_bytes)
        on_air = None
        if not helping:
            on_air = await stack.enter_async_context(
                open_live(settings, shelf.database, shelf.catalog, shelf.store)
            )
        metrics = _metrics(
            board,
            lambda: _held(cache, shelf.database, till, on_air),
            lambda held: _levels(held, till),
        )
        app = create_app(
            settings=settings,
            catalog=shelf.catalog,
            store=shelf.store,
            cache=cache,
            gate=till.gate,
            sessions=till.sessions,
            studio=build_studio(settings, shelf.database, shelf.catalog),
            ledger=till.charges,
            channels=till.channels,
            metrics=metrics,
            readiness=_readiness(shelf, till),
        )
        work = (*till.work(), _sweeping(settings, shelf, till, on_air)) if on_air else ()
        telling = (_telling(metrics, board),) if board else ()
        async with background(till.cashier.run(), *work, *telling):
            yield app


async def serve(settings: Settings) -> None:
    """Serve until a signal ends it, with helpers where ``workers`` asks for them."""
    seal()
    with (
        listening(settings, shared=settings.workers > 1) as listener,
        boards(settings.workers - 1) as (own, *others),
    ):
        async with (
            open_service(settings, board=own) as app,
            helpers(run_helper, [(settings, board) for board in others]),
        ):
            log.info("serving on %s", public_url(settings))
            await HttpServer(app, settings).run(listener)


def run_helper(settings: Settings, board: Board) -> None:
    """Answer HTTP beside the process that leads, until it goes."""
    seal()
    os.setsid()  # Ctrl-C is for the leader, which ends us
    log_to_stderr(settings.log_level)

    async def help_out() -> None:
        with listening(settings, shared=True) as listener:
            async with open_service(settings, helping=True, board=board) as app:
                server = HttpServer(app, settings)
                with when_the_leader_goes(server.leave):
                    await server.run(listener)

    uvloop.run(help_out())


def listening(settings: Settings, *, shared: bool = False) -> socket.socket:
    """The socket to serve on; ``shared`` with the other processes of this server.

    Raises ``ConfigError`` if the port is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise ConfigError(
            f"port {settings.port} on {settings.host} cannot be used ({error.strerror}); "
            "choose another with --port"
        ) from None


def public_url(settings: Settings) -> str:
    """The URL viewers use."""
    return settings.public_url or f"http://{settings.host}:{settings.port}"


class HttpServer(uvicorn.Server):
    """uvicorn on a socket of ours; ``ready`` is set once it answers."""

    def __init__(self, app: Starlette, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=settings.settle_wait,
                http=BoundedHttp,
                h11_max_incomplete_event_size=HEAD_ROOM + settings.max_payment_header,
            )
        )
        self.ready = asyncio.Event()
        self._leaving: asyncio.Event = app.state.leaving  # long answers end by it too

    async def run(self, listener: socket.socket) -> None:  # type: ignore[override]
        """Answer requests until told to stop."""
        gc.collect()
        gc.freeze()  # what the server is made of stays until its end: no collection looks at it
        gc.set_threshold(_YOUNG)
        await self.serve([listener])

    async def main_loop(self) -> None:
        """Keep the date header right once a second; uvicorn's own loop wakes ten times for it."""
        seconds = 0
        while not await self.on_tick(seconds * _TICKS_A_SECOND):
            seconds += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    def leave(self) -> None:
        """Stop answering, once the requests under way are answered."""
        self.should_exit = True
        self._leaving.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: leave, at once if it is the second."""
        super().handle_exit(sig, frame)
        self._leaving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at a signal, and do not raise it again: what is behind the server ends after it."""
        loop = asyncio.get_running_loop()
        for number in _ENDING_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _ENDING_SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start answering, then say so."""
        await super().startup(sockets)
        self.ready.set()


def _readiness(shelf: Shelf, till: Till) -> Readiness:
    async def database() -> str | None:
        await till.charges.find("", "", "", "")  # one look at an index, whatever there is in it
        return None

    async def settling() -> str | None:
        await till.facilitator.check()
        return None

    return Readiness(
        {"database": database, "store": store_check(shelf.store), "facilitator": settling}
    )


def _metrics(
    board: Board | None, held: Callable[[], Levels], levels: Callable[[Levels], Awaitable[Levels]]
) -> Metrics:
    """What is counted here, with what the others on the board have counted."""

    def others() -> list[MetricValues]:
        return [load(posted) for posted in board.others()] if board else []

    earlier = board.own() if board else None
    return Metrics(
        levels=lambda: levels(held()),
        held=held,
        others=others,
        before=load(earlier).counted() if earlier else None,
    )


async def _telling(metrics: Metrics, board: Board) -> None:
    """Tell the others our figures for ever, and once more in the end."""
    last = b""
    try:
        while True:
            posted = metrics.tally().dump()
            if posted != last:
                await asyncio.to_thread(board.post, posted)
                last = posted
            await asyncio.sleep(TELL_EVERY)
    finally:
        board.post(metrics.tally().dump())


def _held(cache: SegmentCache, database: Database, till: Till, on_air: OnAir | None) -> Levels:
    """What the parts in this process hold."""
    return Levels(
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        cache_bytes=cache.bytes,
        database_queue=database.waiting,
        unclaimable=len(till.actions.unclaimable),
        settles=till.clearing.leader.leads,
        gas=till.clearing.gas.levels if till.clearing.gas else {},
        feeds=on_air.live.vitals() if on_air else {},
        publishers=on_air.rtmp.connections if on_air else 0,
        publishers_turned_away=on_air.rtmp.counters.turned_away if on_air else 0,
    )


async def _levels(held: Levels, till: Till) -> Levels:
    """The same with what the database says, which is of all processes."""
    sessions = await till.sessions.totals()
    return replace(
        held,
        charges={total.state: total.count for total in await till.charges.open_totals()},
        actions=await till.rows.under_way(),
        sessions_open=sessions.count,
        sessions_left=sessions.left,
    )


async def _sweeping(settings: Settings, shelf: Shelf, till: Till, on_air: OnAir) -> None:
    retention = Retention(
        shelf.database, days=settings.delivery_retention, retry_window=settings.retry_window
    )
    summing, logins = Summing(shelf.database), Logins(shelf.database)
    while True:
        try:
            await on_air.recordings.retain()
            await sweep(shelf.catalog, shelf.store)
            await till.charges.forget_refused(age=FORGET_AFTER)
            await logins.forget()
            await summing.advance()
            await retention.roll_up()
        except Exception:
            log.exception("clearing up failed; it is tried again")
        await asyncio.sleep(SWEEP_EVERY)

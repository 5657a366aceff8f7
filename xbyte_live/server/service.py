"""Wiring: a server: every part built from ``Settings``, started in order, stopped in reverse."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from types import FrameType

import uvicorn
import uvloop
from starlette.applications import Starlette

from xbyte_live.catalog.cleanup import clean_up
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.live.build import LiveSide, open_live
from xbyte_live.live.urls import public_url
from xbyte_live.money import is_address
from xbyte_live.payments.build import PaymentParts, open_payments
from xbyte_live.payments.ledger.retention import Retention
from xbyte_live.payments.ledger.rollup import Rollup
from xbyte_live.runtime.aio import background
from xbyte_live.runtime.logs import log_to_stderr
from xbyte_live.runtime.processes import seal, when_parent_ends, worker_processes
from xbyte_live.server.admin import build_studio
from xbyte_live.server.catalog_access import CatalogAccess, open_catalog
from xbyte_live.server.workers import SharedMetrics, shared_metrics
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.coordination import Logins
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.app import create_app
from xbyte_live.web.common.health import Readiness, store_check
from xbyte_live.web.common.http_protocol import BoundedHttp
from xbyte_live.web.common.metrics import Levels, Metrics, MetricValues, load

CLEAR_UP_EVERY = 60.0  # seconds
POST_EVERY = 1.0  # seconds between two posts of a process's metrics
FORGET_AFTER = 86_400.0  # seconds a payment that came to nothing is remembered
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICKS_A_SECOND = 10  # as uvicorn counts them
_YOUNG = 20_000  # objects made before the collector looks at them; few here are in a circle
HEAD_ROOM = 65_536  # bytes a request may have before its body, beside the payment

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_service(
    settings: Settings, *, http_only: bool = False, shared: SharedMetrics | None = None
) -> AsyncIterator[Starlette]:
    """Everything behind the HTTP server, running; stopped in reverse order on leaving.

    With ``http_only`` publishers, settlement and clearing up are left to the main process.
    ``shared`` are the metrics that several processes add up. Raises ``ConfigError`` when settings
    that only serving needs are missing.
    """
    if not is_address(settings.pay_to):
        raise ConfigError("pay_to must be the payee's address; set XBYTE_PAY_TO=0x…")
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(open_catalog(settings))
        payments = await stack.enter_async_context(open_payments(settings, access.database))
        cache = SegmentCache(access.store, settings.cache_bytes)
        on_air = None
        if not http_only:
            on_air = await stack.enter_async_context(
                open_live(settings, access.database, access.catalog, access.store)
            )
        metrics = _metrics(
            shared,
            lambda: _held(cache, access.database, payments, on_air),
            lambda held: _levels(held, payments),
        )
        app = create_app(
            settings=settings,
            catalog=access.catalog,
            store=access.store,
            cache=cache,
            gate=payments.gate,
            sessions=payments.sessions,
            studio=build_studio(settings, access.database, access.catalog),
            ledger=payments.charges,
            channels=payments.channels,
            metrics=metrics,
            readiness=_readiness(access, payments),
        )
        work = (*payments.work(), _clear_up(settings, access, payments, on_air)) if on_air else ()
        posting = (_post_metrics(metrics, shared),) if shared else ()
        async with background(payments.charge_worker.run(), *work, *posting):
            yield app


async def serve(settings: Settings) -> None:
    """Serve until a signal ends it, with worker processes where ``workers`` asks for them."""
    seal()
    with (
        listening(settings, shared=settings.workers > 1) as listener,
        shared_metrics(settings.workers - 1) as (own, *others),
    ):
        async with (
            open_service(settings, shared=own) as app,
            worker_processes(run_worker, [(settings, shared) for shared in others]),
        ):
            log.info("serving on %s", public_url(settings))
            await HttpServer(app, settings).run(listener)


def run_worker(settings: Settings, shared: SharedMetrics) -> None:
    """Answer HTTP beside the main process, until that ends."""
    seal()
    os.setsid()  # Ctrl-C is for the main process, which ends this one
    log_to_stderr(settings.log_level)

    async def answer() -> None:
        with listening(settings, shared=True) as listener:
            async with open_service(settings, http_only=True, shared=shared) as app:
                server = HttpServer(app, settings)
                with when_parent_ends(server.leave):
                    await server.run(listener)

    uvloop.run(answer())


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
        """Answer requests until ``leave`` or a signal."""
        gc.collect()
        gc.freeze()  # what the server is made of stays until its end: no collection visits it
        gc.set_threshold(_YOUNG)
        await self.serve([listener])

    async def main_loop(self) -> None:
        """Renew the date header once a second; uvicorn's own loop wakes ten times for it."""
        seconds = 0
        while not await self.on_tick(seconds * _TICKS_A_SECOND):
            seconds += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    def leave(self) -> None:
        """Stop once the requests under way are answered."""
        self.should_exit = True
        self._leaving.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at a signal; at the second one at once."""
        super().handle_exit(sig, frame)
        self._leaving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals here and raise none again: the parts behind the server end after it."""
        loop = asyncio.get_running_loop()
        for number in _ENDING_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _ENDING_SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start answering, then set ``ready``."""
        await super().startup(sockets)
        self.ready.set()


def _readiness(access: CatalogAccess, payments: PaymentParts) -> Readiness:
    async def database() -> str | None:
        await payments.charges.find("", "", "", "")  # one read of an index
        return None

    async def facilitator() -> str | None:
        await payments.facilitator.check()
        return None

    return Readiness(
        {"database": database, "store": store_check(access.store), "facilitator": facilitator}
    )


def _metrics(
    shared: SharedMetrics | None,
    held: Callable[[], Levels],
    levels: Callable[[Levels], Awaitable[Levels]],
) -> Metrics:
    """The metrics of this process, added to those the other processes share."""

    def others() -> list[MetricValues]:
        return [load(posted) for posted in shared.others()] if shared else []

    earlier = shared.own() if shared else None
    return Metrics(
        levels=lambda: levels(held()),
        held=held,
        others=others,
        before=load(earlier).counted() if earlier else None,
    )


async def _post_metrics(metrics: Metrics, shared: SharedMetrics) -> None:
    """Share the metrics of this process for ever, and once more in the end."""
    last = b""
    try:
        while True:
            posted = metrics.tally().dump()
            if posted != last:
                await asyncio.to_thread(shared.post, posted)
                last = posted
            await asyncio.sleep(POST_EVERY)
    finally:
        shared.post(metrics.tally().dump())


def _held(
    cache: SegmentCache, database: Database, payments: PaymentParts, on_air: LiveSide | None
) -> Levels:
    """The levels that the parts of this process know."""
    return Levels(
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        cache_bytes=cache.bytes,
        database_queue=database.waiting,
        unclaimable=len(payments.actions.unclaimable),
        settles=payments.settlement.leader.leads,
        gas=payments.settlement.gas.levels if payments.settlement.gas else {},
        feeds=on_air.publishers.stats() if on_air else {},
        publishers=on_air.rtmp.connections if on_air else 0,
        publishers_turned_away=on_air.rtmp.counters.turned_away if on_air else 0,
    )


async def _levels(held: Levels, payments: PaymentParts) -> Levels:
    """The same with the levels in the database, which are of all processes."""
    sessions = await payments.sessions.totals()
    return replace(
        held,
        charges={total.state: total.count for total in await payments.charges.open_totals()},
        actions=await payments.rows.under_way(),
        sessions_open=sessions.count,
        sessions_left=sessions.left,
    )


async def _clear_up(
    settings: Settings, access: CatalogAccess, payments: PaymentParts, on_air: LiveSide
) -> None:
    retention = Retention(
        access.database, days=settings.delivery_retention, retry_window=settings.retry_window
    )
    summing, logins = Rollup(access.database), Logins(access.database)
    while True:
        try:
            await on_air.recordings.retain()
            await clean_up(access.catalog, access.store)
            await payments.charges.forget_refused(age=FORGET_AFTER)
            await logins.forget()
            await summing.advance()
            await retention.roll_up()
        except Exception:
            log.exception("clearing up failed; it is tried again")
        await asyncio.sleep(CLEAR_UP_EVERY)

"""Adapter: many paying viewers of one item, each through a channel of its own, to measure a server.

They share one budget: all of them together never sign for, nor deposit, more than it allows.
"""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import httpx2

from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import PAYMENT, QUOTED, PayingTransport
from xbyte_live.client.load_figures import LoadFigures, LoadTally, figures_of
from xbyte_live.client.payer.budget import Budget, dollars
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.client.payer.channel_lock import ChannelLock, ChannelStore, ReadChannel
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import item_of
from xbyte_live.client.payer.withdrawals import Withdrawals
from xbyte_live.client.pieces import OfferedPiece
from xbyte_live.client.playlists import Offered, PlaylistReader, Selection
from xbyte_live.errors import (
    BudgetExceeded,
    ConfigError,
    DeliveryFailed,
    MediaError,
    PaymentRefused,
    TermsRefused,
    XByteError,
)
from xbyte_live.media.formats.playlist import read_media_playlist

Rate = Literal["max", "realtime"]

_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_OPENING = 8  # channels opened or closed at the same time
_PATIENCE = Patience(tries=3, pending=30.0)
_BACK_OFF = 0.1  # seconds a viewer rests after it was refused
_ENOUGH = 20  # refusals in a row after which a viewer goes


class Stages(Protocol):
    """Shows how far a measurement is."""

    def stage(self, name: str, total: float) -> None:
        """Another stage begins, of so many steps."""

    def step(self, steps: float = 1) -> None:
        """So many steps of it are done."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to measure: ``viewers`` for ``seconds``, as fast as they can or as they would watch."""

    viewers: int
    seconds: float
    rate: Rate = "max"
    wanted: Selection = field(default_factory=Selection)
    refund: bool = True
    allow_plain_http: bool = False


@dataclass(slots=True)
class _Viewer:
    payer: Payer
    store: "SparingChannelStore"
    client: httpx2.AsyncClient
    at: int


class SparingChannelStore:
    """A channel store in memory, written to ``disk`` when money moves and at the end.

    What a crash loses, the server proves when it is asked again.
    """

    def __init__(self, disk: ChannelStore) -> None:
        self._disk = disk
        self._known: dict[str, PayerChannel] = {}

    def load(self) -> dict[str, PayerChannel]:
        """None at first; each is read when it is taken."""
        return {}

    async def take(self, channel_id: str) -> PayerChannel | None:
        """The channel as it stands."""
        if channel_id not in self._known:
            found = await self._disk.take(channel_id)
            self._disk.give(channel_id)
            if found is None:
                return None
            self._known[channel_id] = found
        return self._known[channel_id]

    async def keep(self, channel: PayerChannel, *, sync: bool) -> None:
        """Note it; on disk if another deposit, withdrawal or fault belongs to it."""
        before = self._known.get(channel.channel_id)
        self._known[channel.channel_id] = channel
        if before is None or _moved(before) != _moved(channel):
            await self._write(channel)

    def give(self, channel_id: str) -> None:
        """There is nobody to let in."""

    async def rest(self) -> None:
        """Write all of them."""
        for channel in self._known.values():
            await self._write(channel)

    async def _write(self, channel: PayerChannel) -> None:
        await self._disk.take(channel.channel_id)
        try:
            await self._disk.keep(channel, sync=True)
        finally:
            self._disk.give(channel.channel_id)


class Load:
    """A crowd of viewers at one URL; ``new_payer`` makes a payer with a given salt."""

    def __init__(
        self,
        url: str,
        options: LoadOptions,
        budget: Budget,
        new_payer: Callable[[str], Payer],
        store: ChannelStore,
        *,
        read_channel: ReadChannel | None = None,
        stages: Stages,
        inner: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._options = options
        self._budget = budget
        self._new_payer = new_payer
        self._disk = store
        self._read_channel = read_channel
        self._stages = stages
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=options.viewers)
        self._inner = inner or httpx2.AsyncHTTPTransport(limits=limits)
        self._clock = clock
        self._cpu = cpu
        self._sleep = sleep
        self._pieces: Sequence[OfferedPiece] = ()
        self._duration = 0.0

    async def run(self) -> LoadFigures:
        """Open the channels, measure, give back what is left.

        Raises ``ConfigError`` when the URL is of nothing to measure, ``BudgetExceeded`` when the
        budget does not open so many channels, and what the very first purchase raises.
        """
        options = self._options
        async with self._inner:
            plain = httpx2.AsyncClient(transport=self._inner, timeout=_TIMEOUT)
            reader = PlaylistReader(plain, sleep=self._sleep)
            offered = await reader.survey(self._url, options.wanted)
            if not offered.pieces:
                raise ConfigError("there is nothing to fetch there yet")
            self._pieces = offered.pieces
            if options.rate == "realtime":
                self._duration = await _duration(plain, offered.source)
            viewers = [self._viewer(number, offered) for number in range(options.viewers)]
            self._check(viewers, offered)
            tally, refunded, not_refunded = LoadTally(), 0, Counter[str]()
            seconds = cpu = 0.0
            try:
                self._stages.stage("opening channels", len(viewers))
                await _each(viewers, self._open)
                began, used = self._clock(), self._cpu()
                self._stages.stage("measuring", options.seconds)
                await self._measure(viewers, tally, offered, reader)
                seconds, cpu = self._clock() - began, self._cpu() - used
            finally:
                if options.refund:
                    self._stages.stage("giving back", len(viewers))
                    refunded = await self._close(viewers, plain, not_refunded)
                for viewer in viewers:
                    await viewer.store.rest()
        return figures_of(
            tally,
            viewers=len(viewers),
            seconds=seconds,
            cpu=cpu,
            cost=self._budget.signed,
            deposited=self._budget.deposited,
            refunded=refunded,
            not_refunded=not_refunded,
        )

    def _viewer(self, number: int, offered: Offered) -> _Viewer:
        payer = self._new_payer(salt_of(number))
        if offered.terms is not None:
            payer.learn(offered.item, offered.terms)
        store = SparingChannelStore(self._disk)
        transport = PayingTransport(
            payer,
            self._inner,
            store=store,
            read_channel=self._read_channel,
            patience=_PATIENCE,
            allow_plain_http=self._options.allow_plain_http,
            sleep=self._sleep,
        )
        client = httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT)
        return _Viewer(payer, store, client, random.randrange(len(offered.pieces)))  # noqa: S311

    def _check(self, viewers: Sequence[_Viewer], offered: Offered) -> None:
        """Raise ``BudgetExceeded`` before anything is signed, if it cannot open the channels."""
        dearest = max((piece.amount or 0 for piece in offered.pieces), default=0)
        if offered.terms is None or not dearest:
            return
        kept, missing, least = self._disk.load(), 0, dearest
        for viewer in viewers:
            try:
                way = viewer.payer.channel_way(offered.terms, dearest)
            except TermsRefused:
                return  # paid one by one, without deposits
            channel = viewer.payer.holdings.channel_of(way)
            least = max(way.channel.least_deposit, dearest)
            known = kept.get(channel.channel_id)
            missing += known is None or known.balance - known.signed < dearest
        if self._budget.left_to_deposit < least * missing:
            raise BudgetExceeded(
                f"the server wants {dollars(least)} in a channel, which is "
                f"{dollars(least * missing)} for {missing} viewers, and the budget is "
                f"{dollars(self._budget.total)}; what is not spent is given back at the end"
            )

    async def _open(self, viewer: _Viewer) -> None:
        """The first purchase opens the channel; it is not measured."""
        await self._fetch(viewer, LoadTally())
        self._stages.step()

    async def _measure(
        self, viewers: Sequence[_Viewer], tally: LoadTally, offered: Offered, reader: PlaylistReader
    ) -> None:
        seconds = self._options.seconds
        began = self._clock()
        work = [asyncio.create_task(self._watch(viewer, tally, began)) for viewer in viewers]
        if offered.reload_after is not None:
            work.append(asyncio.create_task(self._follow(offered, reader, began)))
        done, told = 0.0, 0.0
        try:
            while not all(task.done() for task in work) and done < seconds:
                await self._sleep(min(0.2, seconds - done))
                done = min(seconds, self._clock() - began)
                self._stages.step(done - told)
                told = done
            await asyncio.gather(*work)  # what is under way is finished, as it is paid for
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _watch(self, viewer: _Viewer, tally: LoadTally, began: float) -> None:
        refused, end = 0, began + self._options.seconds
        while self._clock() < end and refused < _ENOUGH:
            asked = self._clock()
            try:
                duration = await self._fetch(viewer, tally)
                refused = 0
            except BudgetExceeded:
                tally.refusals["budget"] += 1
                return
            except XByteError as error:
                tally.refusals[_code(error)] += 1
                refused, duration = refused + 1, _BACK_OFF
                await self._sleep(_BACK_OFF)
            if self._options.rate == "realtime":
                played = asked + duration
                await self._sleep(max(0.0, min(played, end) - self._clock()))
                if played >= end:  # a sleep may be over a moment too soon
                    return

    async def _fetch(self, viewer: _Viewer, tally: LoadTally) -> float:
        """Buy the next segment; how many seconds it plays for."""
        pieces = self._pieces
        piece = pieces[viewer.at % len(pieces)]
        viewer.at += 1
        asked = self._clock()
        try:
            async with viewer.client.stream(
                "GET",
                piece.url,
                headers={} if piece.byte_range is None else {"range": piece.byte_range},
                extensions={QUOTED: piece.quoted(item_of(piece.url))},
            ) as response:
                latency = self._clock() - asked
                if response.status_code not in (200, 206):
                    raise DeliveryFailed(f"the server answered {response.status_code}")
                size = 0
                async for chunk in response.aiter_raw():
                    size += len(chunk)
        except httpx2.TransportError:
            raise DeliveryFailed("the server does not answer") from None
        payment = response.extensions.get(PAYMENT)
        tally.latencies.append(latency)
        tally.bytes += size
        tally.paid += payment is not None
        tally.amount += payment.amount if payment else 0
        return self._duration

    async def _follow(self, offered: Offered, reader: PlaylistReader, began: float) -> None:
        while self._clock() < began + self._options.seconds:
            left = began + self._options.seconds - self._clock()
            await self._sleep(max(0.0, min(offered.reload_after or 1.0, left)))
            try:
                offered = await reader.reload(offered.source)
            except DeliveryFailed:
                continue
            self._pieces = offered.pieces or self._pieces

    async def _close(
        self, viewers: Iterable[_Viewer], plain: httpx2.AsyncClient, failed: Counter[str]
    ) -> int:
        """Ask the server for what is left in each channel; what came back."""
        back = 0
        priced = max(self._pieces, key=lambda piece: piece.amount or 0).url

        async def close(viewer: _Viewer) -> None:
            nonlocal back
            if any(channel.refundable for channel in viewer.payer.channels.values()):
                turns = ChannelLock(viewer.payer.channels, viewer.store, self._read_channel)
                closing = Withdrawals(viewer.payer, turns, plain, sleep=self._sleep)
                try:
                    _, refund = await closing.refund(priced)
                    back += refund.amount
                except XByteError as error:
                    failed[_code(error)] += 1
            self._stages.step()

        await _each(viewers, close)
        return back


async def _each(viewers: Iterable[_Viewer], work: Callable[[_Viewer], Awaitable[None]]) -> None:
    waiting = iter(viewers)

    async def some() -> None:
        for viewer in waiting:
            await work(viewer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_OPENING):
                group.create_task(some())
    except* XByteError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _duration(client: httpx2.AsyncClient, source: str) -> float:
    """Seconds a segment of a media playlist plays for, on average."""
    try:
        playlist = read_media_playlist((await client.get(source, follow_redirects=True)).text)
    except (httpx2.TransportError, MediaError):
        raise ConfigError("--rate realtime is for playlists; this URL is of none") from None
    micros = [segment.duration_us for segment in playlist.segments]
    return sum(micros) / max(1, len(micros)) / 1_000_000


def _code(error: XByteError) -> str:
    return error.code if isinstance(error, PaymentRefused) else str(error)


def salt_of(number: int) -> str:
    """The salt of a viewer's channel: the same at each run, so that what was left is used."""
    return "0x" + hashlib.sha256(f"xbyte-live bench {number}".encode()).hexdigest()


def _moved(channel: PayerChannel) -> tuple[object, ...]:
    return (channel.balance, channel.deposit, channel.withdrawn_at, channel.fault, channel.known)

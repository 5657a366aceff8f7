"""Adapter: buys the pieces of an item into one file, within the payer's limits."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import httpx2

from xbyte_live.client.download.partial_file import PartialFile
from xbyte_live.client.download.progress import DownloadPlan, Progress
from xbyte_live.client.http.journal import FileJournal, Layout, PieceRecord
from xbyte_live.client.http.transport import PAYMENT, QUOTED, RECEIPT
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import IssuedPayment
from xbyte_live.client.payer.terms import Receipt
from xbyte_live.client.pieces import OfferedPiece, cost_of, size_of
from xbyte_live.client.playlists import Missing, Offered, PlaylistReader
from xbyte_live.errors import BudgetExceeded, ConfigError, DeliveryFailed

_TRIES = 4  # of what is not paid for; the transport sees to what is
_FIRST_WAIT = 0.25  # seconds
_LOST_PLAYLIST = 5  # reloads of a live playlist that may fail in a row

Ending = Literal["complete", "budget", "time"]


class Fetcher:
    """Fetches pieces of one item over a paying ``client``, and records them once they are whole."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        journal: FileJournal,
        file: PartialFile,
        progress: Progress,
        *,
        item: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.receipts: list[Receipt] = []
        self._client = client
        self._journal = journal
        self._file = file
        self._progress = progress
        self._item = item
        self._sleep = sleep
        self._etag = next((p.etag for p in journal.pieces.values() if p.etag), None)

    async def fetch(self, piece: OfferedPiece, offset: int) -> PieceRecord:
        """Buy a piece and put it at ``offset``; raises as the paying transport, and ``Missing``."""
        for tried in range(1, _TRIES + 1):
            try:
                record = await self._fetch(piece, offset)
            except httpx2.TransportError:
                if tried == _TRIES:
                    raise DeliveryFailed("the server does not answer, or breaks off") from None
                await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
            else:
                self._journal.record(record)
                return record
        raise AssertionError("unreachable")

    async def _fetch(self, piece: OfferedPiece, offset: int) -> PieceRecord:
        async with self._client.stream(
            "GET",
            piece.url,
            headers=self._headers(piece),
            extensions={QUOTED: piece.quoted(self._item)},
        ) as response:
            self._check(piece, response)
            payment = response.extensions.get(PAYMENT)
            if payment is not None:
                self._note(payment, response.extensions.get(RECEIPT))
            size, sha256 = await self._store(response, offset)
        return PieceRecord(
            resource=piece.resource,
            offset=offset,
            size=size,
            sha256=sha256,
            amount=payment.amount if payment else 0,
            etag=self._etag if piece.byte_range else None,
        )

    async def _store(self, response: httpx2.Response, offset: int) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        try:
            async for chunk in response.aiter_raw():
                self._file.write(chunk, offset + size)
                digest.update(chunk)
                size += len(chunk)
                self._progress.received(len(chunk))
        except httpx2.TransportError:
            self._progress.received(-size)
            raise
        return size, digest.hexdigest()

    def _headers(self, piece: OfferedPiece) -> dict[str, str]:
        if piece.byte_range is None:
            return {}
        if self._etag is None or self._etag.startswith("W/"):
            return {"range": piece.byte_range}
        return {"range": piece.byte_range, "if-range": self._etag}

    def _note(self, payment: IssuedPayment, receipt: Receipt | None) -> None:
        if receipt is not None:
            self.receipts.append(receipt)
        self._progress.paid(payment, receipt)

    def _check(self, piece: OfferedPiece, response: httpx2.Response) -> None:
        """Refuse what is not the piece that was asked for, or not of the same object."""
        if response.status_code in (404, 410):
            raise Missing(response.status_code)
        if response.status_code != (206 if piece.byte_range else 200):
            raise DeliveryFailed(f"the server answered {response.status_code} for a piece")
        if piece.byte_range is None:
            return
        wanted = piece.byte_range.replace("=", " ") + "/"
        if not response.headers.get("content-range", "").startswith(wanted):
            raise DeliveryFailed("the server handed over another range than was asked for")
        etag = response.headers.get("etag")
        if self._etag is not None and etag != self._etag:
            raise DeliveryFailed("the file has changed on the server while it was being bought")
        self._etag = etag


class Assembly:
    """One run of a download. ``end`` is where the file ends so far, in bytes."""

    def __init__(
        self,
        payer: Payer,
        state: FileJournal,
        file: PartialFile,
        fetcher: Fetcher,
        progress: Progress,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.end = 0
        self._seen: set[str] = set()
        self._payer = payer
        self._state = state
        self._file = file
        self._fetcher = fetcher
        self._progress = progress
        self._clock = clock
        self._sleep = sleep

    async def run(
        self, offered: Offered, reader: PlaylistReader, parallel: int, time_limit: float | None
    ) -> Ending:
        """Do what is left to do; ``reader`` reloads the playlist, if it is a live one."""
        await self._take_over()
        if self._state.layout == "placed":
            await self._fill(offered, parallel)
            return "complete"
        return await self._follow(offered, reader, time_limit)

    async def _take_over(self) -> None:
        """Go on from an earlier run: count what it signed, and keep what of its file is whole."""
        for payment in self._state.earlier:
            self._payer.adopt(payment)
        records = list(self._state.pieces.values())
        bad = await self._file.damaged(records)
        if bad and self._state.layout != "placed":
            bad = records[records.index(bad[0]) :]  # what follows a gap has no place any more
        for record in bad:
            self._state.forget(record)
        self._state.reopen()

    async def _fill(self, offered: Offered, parallel: int) -> None:
        """Buy every piece that is missing into its place, several at once.

        After an error the pieces under way are finished, as they are paid for; then it is raised.
        """
        if layout_of(offered) != "placed":
            raise _changed()
        places: dict[str, tuple[int, int]] = {}
        for piece in offered.pieces:
            places[piece.resource] = (self.end, piece.size or 0)
            self.end += piece.size or 0
        for record in self._state.pieces.values():
            if places.get(record.resource) != (record.offset, record.size):
                raise _changed()
        missing = [p for p in offered.pieces if p.resource not in self._state.pieces]
        self._check_limits(offered.item, missing)
        self._file.require_room(size_of(missing) or 0)
        self._announce(offered.pieces, missing, live=False)
        await self._fetch_all(missing, places, parallel)

    async def _follow(
        self, offered: Offered, reader: PlaylistReader, time_limit: float | None
    ) -> Ending:
        """Buy pieces one after the other in the order they are listed, while more come.

        What is gone before it could be bought is left out of a live playlist, and the end of
        the budget or of ``time_limit`` (seconds) is the end of the file.
        """
        deadline = self._clock() + time_limit if time_limit is not None else float("inf")
        live = self._state.layout == "live"
        self._resume_order(offered, live=live)
        try:
            while True:
                fresh = self._fresh(offered, live=live)
                for piece in fresh:
                    if self._clock() >= deadline:
                        return "time"
                    await self._append(piece, live=live)
                if offered.reload_after is None:
                    return "complete"
                wait = offered.reload_after if fresh else offered.reload_after / 2
                await self._sleep(min(wait, max(0.0, deadline - self._clock())))
                if self._clock() >= deadline:
                    return "time"
                offered = await self._reloaded(offered, reader)
        except BudgetExceeded:
            if not live or not self._state.pieces:
                raise
            return "budget"

    async def _fetch_all(
        self, pieces: Sequence[OfferedPiece], places: dict[str, tuple[int, int]], parallel: int
    ) -> None:
        waiting = iter(pieces)
        errors: list[Exception] = []

        async def work() -> None:
            for piece in waiting:
                if errors:
                    return
                try:
                    await self._fetcher.fetch(piece, places[piece.resource][0])
                except Exception as error:
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, min(parallel, len(pieces)))):
                group.create_task(work())
        if errors:
            raise errors[0]

    async def _append(self, piece: OfferedPiece, *, live: bool) -> None:
        self._seen.add(piece.resource)
        try:
            record = await self._fetcher.fetch(piece, self.end)
        except Missing:
            if not live:
                raise
        else:
            self.end += record.size

    def _resume_order(self, offered: Offered, *, live: bool) -> None:
        have = list(self._state.pieces)
        if not live and have != [piece.resource for piece in offered.pieces[: len(have)]]:
            raise _changed()
        self._seen = set(have)
        self.end = sum(record.size for record in self._state.pieces.values())

    def _fresh(self, offered: Offered, *, live: bool) -> list[OfferedPiece]:
        """What is listed and was not asked for yet, and if it is all there will be, affordable."""
        fresh = [piece for piece in offered.pieces if piece.resource not in self._seen]
        if not live:
            self._check_limits(offered.item, fresh)
        self._seen &= {piece.resource for piece in offered.pieces}
        self._announce(offered.pieces, fresh, live=live)
        return fresh

    async def _reloaded(self, offered: Offered, reader: PlaylistReader) -> Offered:
        for tried in range(1, _LOST_PLAYLIST + 1):
            try:
                return await reader.reload(offered.source)
            except DeliveryFailed:
                if tried == _LOST_PLAYLIST:
                    raise
                await self._sleep(offered.reload_after or 1.0)
        raise AssertionError("unreachable")

    def _check_limits(self, item: str, pieces: Sequence[OfferedPiece]) -> None:
        """Raise ``BudgetExceeded`` before anything is signed, if not all of it can be bought."""
        cost = 0
        for piece in pieces:
            if piece.amount and not self._state.find(piece.resource):
                self._payer.budget.check_delivery(piece.amount, size=piece.size)
                cost += piece.amount
        self._payer.budget.require(cost, item)
        self._payer.budget.expect(item, cost)

    def _announce(
        self, listed: Sequence[OfferedPiece], missing: Sequence[OfferedPiece], *, live: bool
    ) -> None:
        self._progress.planned(
            DownloadPlan(
                pieces=len(listed),
                size=size_of(listed),
                cost=cost_of(missing),
                have=sum(record.size for record in self._state.pieces.values()),
                live=live,
            )
        )


def layout_of(offered: Offered) -> Layout:
    """How the pieces of what a URL offers are put into a file."""
    if offered.reload_after is not None:
        return "live"
    return "listed" if size_of(offered.pieces) is None else "placed"


def _changed() -> ConfigError:
    return ConfigError(
        "it has changed on the server since this download began; remove its .part and "
        ".part.state files to begin anew"
    )

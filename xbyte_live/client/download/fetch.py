"""Adapter: one piece from the server into the file."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import httpx

from xbyte_live.client.download.partial_file import PartialFile
from xbyte_live.client.download.progress import Progress
from xbyte_live.client.http.journal import FileJournal, PieceRecord
from xbyte_live.client.http.transport import PAYMENT, QUOTED, RECEIPT
from xbyte_live.client.payer.signing import SignedPayment
from xbyte_live.client.payer.terms import Receipt
from xbyte_live.client.playlists import Piece
from xbyte_live.errors import DeliveryFailed

_TRIES = 4  # of what is not paid for; the transport sees to what is
_FIRST_WAIT = 0.25  # seconds


class Gone(DeliveryFailed):
    """The server has these bytes no longer, or never had them."""


class Fetcher:
    """Fetches pieces of one item over a paying ``client``, and records them once they are whole."""

    def __init__(
        self,
        client: httpx.AsyncClient,
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

    async def fetch(self, piece: Piece, offset: int) -> PieceRecord:
        """Buy a piece and put it at ``offset``; raises as the paying transport, and ``Gone``."""
        for tried in range(1, _TRIES + 1):
            try:
                record = await self._fetch(piece, offset)
            except httpx.TransportError:
                if tried == _TRIES:
                    raise DeliveryFailed("the server does not answer, or breaks off") from None
                await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
            else:
                self._journal.record(record)
                return record
        raise AssertionError("unreachable")

    async def _fetch(self, piece: Piece, offset: int) -> PieceRecord:
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

    async def _store(self, response: httpx.Response, offset: int) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        try:
            async for chunk in response.aiter_raw():
                self._file.write(chunk, offset + size)
                digest.update(chunk)
                size += len(chunk)
                self._progress.received(len(chunk))
        except httpx.TransportError:
            self._progress.received(-size)
            raise
        return size, digest.hexdigest()

    def _headers(self, piece: Piece) -> dict[str, str]:
        if piece.byte_range is None:
            return {}
        if self._etag is None or self._etag.startswith("W/"):
            return {"range": piece.byte_range}
        return {"range": piece.byte_range, "if-range": self._etag}

    def _note(self, payment: SignedPayment, receipt: Receipt | None) -> None:
        if receipt is not None:
            self.receipts.append(receipt)
        self._progress.paid(payment, receipt)

    def _check(self, piece: Piece, response: httpx.Response) -> None:
        """Refuse what is not the piece that was asked for, or not of the same object."""
        if response.status_code in (404, 410):
            raise Gone("the server no longer has a piece that it listed")
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

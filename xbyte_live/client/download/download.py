"""Adapter: buys what a URL offers, piece by piece, into one file."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2

from xbyte_live.client.download.assembly import Assembly, Ending, Fetcher, layout_of
from xbyte_live.client.download.partial_file import PartialFile
from xbyte_live.client.download.progress import Progress, Silence
from xbyte_live.client.http.journal import FileJournal
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import PayingTransport
from xbyte_live.client.payer.channel_lock import ChannelStore, ReadChannel
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import Receipt
from xbyte_live.client.playlists import Offered, PlaylistReader, Selection
from xbyte_live.errors import ConfigError

_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)  # a server may wait for the chain before it answers


@dataclass(frozen=True, slots=True)
class Options:
    """How to download; ``time_limit`` (seconds) ends the following of a live playlist."""

    wanted: Selection = field(default_factory=Selection)
    parallel: int = 4
    time_limit: float | None = None
    patience: Patience = field(default_factory=Patience)
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a download came to; money in atomic units, over all runs it took.

    ``cost`` is what the pieces in the file were paid with, ``signed`` all that was signed:
    payments for bytes that never came are in the second only. ``receipts`` are of this run.
    """

    path: Path
    size: int
    pieces: int
    cost: int
    signed: int
    seconds: float
    ending: Ending
    receipts: tuple[Receipt, ...]


async def download(
    url: str,
    out: Path,
    payer: Payer,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
    store: ChannelStore | None = None,
    read_channel: ReadChannel | None = None,
    inner: httpx2.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Buy what ``url`` offers into ``out``, going on where an earlier run of it stopped.

    Takes playlists (the best rendition unless told otherwise), watch pages, segments and any
    other file. What it will cost is checked against ``payer``'s limits before the first cent.
    A live playlist is followed until it ends, the budget does, or the time. What was paid for
    is not bought again: it lies in ``out.part``, or its payment in ``out.part.state``. All
    requests go over ``inner``, which is closed in the end; ``store`` and ``read_channel`` are the
    paying transport's.

    Raises what the paying transport does, ``ConfigError`` for a bad URL or file, ``MediaError``
    for a bad playlist, ``StoreError`` for the disk.
    """
    options = options or Options()
    began = clock()
    async with inner or httpx2.AsyncHTTPTransport() as inner:
        reader = PlaylistReader(httpx2.AsyncClient(transport=inner, timeout=_TIMEOUT), sleep=sleep)
        offered = _with_price(payer, await reader.survey(url, options.wanted))
        with _files(out, offered) as (file, state):
            paying = PayingTransport(
                payer,
                inner,
                journal=state,
                store=store,
                read_channel=read_channel,
                patience=options.patience,
                allow_plain_http=options.allow_plain_http,
                clock=clock,
                sleep=sleep,
            )
            client = httpx2.AsyncClient(transport=paying, timeout=_TIMEOUT)
            told = progress or Silence()
            fetcher = Fetcher(client, state, file, told, item=offered.item, sleep=sleep)
            assembly = Assembly(payer, state, file, fetcher, told, clock=clock, sleep=sleep)
            ending = await assembly.run(offered, reader, options.parallel, options.time_limit)
            file.finish(assembly.end)
            state.remove()
            return Result(
                path=out,
                size=assembly.end,
                pieces=len(state.pieces),
                cost=state.cost,
                signed=state.signed,
                seconds=clock() - began,
                ending=ending,
                receipts=tuple(fetcher.receipts),
            )


@contextmanager
def _files(out: Path, offered: Offered) -> Iterator[tuple[PartialFile, FileJournal]]:
    """The partial file and the state beside ``out``; both go again if nothing came of them."""
    part, state_file = (out.with_name(out.name + suffix) for suffix in (".part", ".part.state"))
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another file or remove it")
    if part.exists() and part.stat().st_size and not state_file.exists():
        raise ConfigError(f"{part} is of something else; choose another file or remove it")
    with (
        closing(PartialFile(out, part)) as file,
        closing(FileJournal(state_file, offered.source, layout_of(offered))) as state,
    ):
        try:
            yield file, state
        except BaseException:
            if not state.signed and not state.pieces:
                file.remove()
                state.remove()
            raise


def _with_price(payer: Payer, offered: Offered) -> Offered:
    """Have the payer know an item's terms, and a single piece the price its 402 asks."""
    if offered.terms is not None:
        payer.learn(offered.item, offered.terms)
    if offered.asked is None:
        return offered
    payer.learn(offered.item, offered.asked)
    (piece,) = offered.pieces
    amount = payer.choose(offered.asked, piece.quoted(offered.item)).amount
    return replace(offered, pieces=(replace(piece, amount=amount),))

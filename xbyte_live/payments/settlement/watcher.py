"""Part: watches the events of channels on each chain, so that no withdrawal goes unseen.

It reads from the last block it knows, and some blocks before that again: a chain that goes back
takes events away and brings others. What it finds is only where to look: the state decides.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from xbyte_live.errors import XByteError
from xbyte_live.evm.channel_contract import IDS_IN_FILTER, ChannelChain, ChannelEvent
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.claims import ClaimLedger
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.claims import Claims
from xbyte_live.storage.coordination import LeaseLedger

OVERLAP = 64  # blocks that are looked at again
LONGEST_GAP = 100_000  # blocks; beyond that each channel is read instead of every event
PAGE = 500  # channels
IN_USE = 600.0  # seconds since the last charge of a channel that is kept fresh
FRESH = 150.0  # seconds after which it is read again: half of what the hot path takes
BACK = 86_400.0  # seconds for which a deposit that a chain took back is brought again

log = logging.getLogger(__name__)


class Watcher:
    """Looks at each network every ``interval`` seconds; ``chains`` maps CAIP-2 to readers."""

    def __init__(
        self,
        ledger: ClaimLedger,
        marks: LeaseLedger,
        rows: ActionLedger,
        chains: Mapping[str, ChannelChain],
        channel_sync: ChannelSync,
        claims: Claims,
        *,
        interval: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._marks = marks
        self._rows = rows
        self._chains = dict(chains)
        self._channel_sync = channel_sync
        self._claims = claims
        self._interval = interval
        self._clock = clock
        self._seen: dict[str, set[ChannelEvent]] = {network: set() for network in chains}

    async def run(self) -> None:
        """Look for ever; what fails is logged and looked at again."""
        await asyncio.gather(*(self._follow(network) for network in self._chains))

    async def look(self, network: str) -> None:
        """Look at what happened since the last time, and at the channels in use.

        Raises ``ChainUnavailable`` and ``DatabaseUnavailable``.
        """
        safe = await self._chains[network].safe_block()
        mark = await self._marks.watermark(network)
        if mark is None or safe - mark > LONGEST_GAP or mark - safe > OVERLAP:
            if mark is not None:
                log.warning("%s is %d blocks from where it was; all is read", network, safe - mark)
            await self._read_all(network)
            self._seen[network].clear()
            await self._marks.set_watermark(network, safe)
            mark = safe
        await self._read_events(network, mark, safe)
        now = self._clock()
        await self._refresh(
            await self._ledger.stale(
                network, charged_since=now - IN_USE, read_before=now - FRESH, limit=PAGE
            )
        )

    async def _follow(self, network: str) -> None:
        while True:
            try:
                await self.look(network)
            except XByteError as error:
                log.warning("%s is not watched: %s", network, error)
            except Exception:
                log.exception("%s is not watched", network)
            await asyncio.sleep(self._interval)

    async def _read_events(self, network: str, mark: int, safe: int) -> None:
        first, seen = max(0, min(mark, safe) - OVERLAP + 1), self._seen[network]
        watched = await self._ledger.in_use(network, after=0, limit=IDS_IN_FILTER + 1)
        ids = {c.channel_id for c in watched} | {event.channel_id for event in seen}
        found: set[ChannelEvent] = set()
        chain = self._chains[network]
        async for end, events in chain.events(first, safe, ids if ids else None):
            found.update(events)
            await self._changed({e.channel_id for e in events if e not in seen})
            if end > mark:
                await self._marks.set_watermark(network, end)
        gone = {event for event in seen - found if first <= event.block <= safe}
        if gone:
            log.warning("%s went back: %d events of channels are gone", network, len(gone))
            await self._changed({event.channel_id for event in gone})
        self._seen[network] = {event for event in found if event.block > safe - OVERLAP}

    async def _changed(self, channel_ids: Collection[str]) -> None:
        if channel_ids:
            await self._refresh(await self._ledger.known(channel_ids))

    async def _read_all(self, network: str) -> None:
        page, after = await self._ledger.in_use(network, after=0, limit=PAGE), 0
        while page:
            await self._refresh(page)
            after = page[-1].id
            page = await self._ledger.in_use(network, after=after, limit=PAGE)

    async def _refresh(self, channels: Sequence[Channel]) -> None:
        """Read channels again; act on those that are being emptied or have lost a deposit."""
        if not channels:
            return
        fresh = await self._channel_sync.refresh_many(channels)
        if any(c.chain.withdraw_requested_at and c.claimable > c.chain.claimed for c in fresh):
            self._claims.wake()
        for channel in fresh:
            if channel.charged > channel.chain.balance:
                log.error(
                    "channel %s was charged %d and holds %d; its deposits are looked at again",
                    channel.channel_id,
                    channel.charged,
                    channel.chain.balance,
                )
                await self._rows.reopen(channel.channel_id, since=self._clock() - BACK)

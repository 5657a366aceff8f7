"""Adapter: one voucher of a channel at a time, here and in every process of this wallet."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from xbyte_live.client.payer.channel import ChannelOnChain, PayerChannel, synced
from xbyte_live.errors import ChainUnavailable, ConfigError

ReadChannel = Callable[[str, str], Awaitable[ChannelOnChain]]  # network, channel id


class ChannelStore(Protocol):
    """A durable store of channels, so that nothing that was signed is forgotten."""

    def load(self) -> dict[str, PayerChannel]:
        """Every channel that is kept, by its id."""

    async def take(self, channel_id: str) -> PayerChannel | None:
        """Lock a channel against other processes; its stored state, if there is one."""

    async def keep(self, channel: PayerChannel, *, sync: bool) -> None:
        """Store the state of a channel; with ``sync`` it is on disk on return."""

    def give(self, channel_id: str) -> None:
        """Unlock a channel for other processes."""


class MemoryChannelStore:
    """A channel store of this process alone; the payer remembers the channels."""

    def load(self) -> dict[str, PayerChannel]:
        """None are kept here."""
        return {}

    async def take(self, channel_id: str) -> PayerChannel | None:
        """Lock nothing: no other process shares it."""
        return None

    async def keep(self, channel: PayerChannel, *, sync: bool) -> None:
        """Store nothing: the payer holds the state."""

    def give(self, channel_id: str) -> None:
        """Unlock nothing."""


class ChannelLock:
    """Gives out the turns of the channels in ``known``, and keeps their state there.

    ``read`` asks the chain, where one is known.
    """

    def __init__(
        self,
        known: dict[str, PayerChannel],
        store: ChannelStore | None = None,
        read: ReadChannel | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._known = known
        self._store = store or MemoryChannelStore()
        self._read = read
        self.clock = clock
        self._locks: dict[str, asyncio.Lock] = {}
        known.update(self._store.load())

    async def take(self, channel: PayerChannel) -> "Turn":
        """Wait until no other voucher of the channel is being presented, and look it up."""
        channel_id = channel.channel_id
        lock = self._locks.setdefault(channel_id, asyncio.Lock())
        await lock.acquire()
        try:
            found = await self._store.take(channel_id) or self._known.get(channel_id)
            turn = Turn(channel_id, self._known, self._store, self._read, lock)
        except BaseException:
            lock.release()
            raise
        try:
            self._known[channel_id] = found or channel
            if not turn.channel.known or turn.channel.deposit is not None:
                await turn.look(self.clock())
        except BaseException:
            turn.release()
            raise
        return turn


class Turn:
    """The right to sign for one channel, until it is released."""

    def __init__(
        self,
        channel_id: str,
        known: dict[str, PayerChannel],
        store: ChannelStore,
        read: ReadChannel | None,
        lock: asyncio.Lock,
    ) -> None:
        self.channel_id = channel_id
        self._known = known
        self._store = store
        self._read = read
        self._lock = lock

    @property
    def channel(self) -> PayerChannel:
        """The channel as it stands."""
        return self._known[self.channel_id]

    async def keep(self, channel: PayerChannel, *, sync: bool = False) -> None:
        """Set the state of the channel; with ``sync`` it is on disk on return."""
        self._known[self.channel_id] = channel
        await self._store.keep(channel, sync=sync)

    async def on_chain(self) -> ChannelOnChain | None:
        """The state of the channel on chain, or ``None`` where the chain cannot be asked."""
        if self._read is None:
            return None
        try:
            return await self._read(self.channel.network, self.channel_id)
        except (ChainUnavailable, ConfigError):
            return None

    async def look(self, now: float) -> None:
        """Read the state of the channel from the chain, where it can be asked.

        What was never known here is not known by that: its server may have charged since.
        """
        found = await self.on_chain()
        if found is not None:
            channel = synced(self.channel, found, now=now)
            await self.keep(replace(channel, known=self.channel.known))

    def release(self) -> None:
        """Give up the right to sign; the next turn begins."""
        self._store.give(self.channel_id)
        self._lock.release()

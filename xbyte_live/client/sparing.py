"""Adapter: many payers of one wallet in one process, none waiting for disk or chain."""

import hashlib
from dataclasses import replace

import httpx

from xbyte_live.client.payer.channel import Channel
from xbyte_live.client.payer.channel_lock import Store
from xbyte_live.client.payer.payer import Payer, Quoted
from xbyte_live.client.payer.terms import Requirement, Terms


class SparingStore:
    """Channels that live in memory, and are written to ``disk`` when money moves or they rest.

    What a crash makes it forget, the server proves when it is asked again.
    """

    def __init__(self, disk: Store) -> None:
        self._disk = disk
        self._known: dict[str, Channel] = {}

    def load(self) -> dict[str, Channel]:
        """None at first; each is read when it is taken."""
        return {}

    async def take(self, channel_id: str) -> Channel | None:
        """The channel as it stands."""
        if channel_id not in self._known:
            found = await self._disk.take(channel_id)
            self._disk.give(channel_id)
            if found is None:
                return None
            self._known[channel_id] = found
        return self._known[channel_id]

    async def keep(self, channel: Channel, *, sync: bool) -> None:
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

    async def _write(self, channel: Channel) -> None:
        await self._disk.take(channel.channel_id)
        try:
            await self._disk.keep(channel, sync=True)
        finally:
            self._disk.give(channel.channel_id)


class EagerPayer(Payer):
    """Deposits ``share`` at once, so that nothing waits for the chain while it is measured."""

    share = 0

    def choose(self, terms: Terms, quoted: Quoted, now: float = 0.0) -> Requirement:
        """The best of the offered ways to pay that is within every limit."""
        return self._eager(super().choose(terms, quoted, now))

    def choose_ahead(self, quoted: Quoted, now: float = 0.0) -> Requirement | None:
        """The same for a quoted amount before asking."""
        chosen = super().choose_ahead(quoted, now)
        return None if chosen is None else self._eager(chosen)

    def _eager(self, requirement: Requirement) -> Requirement:
        terms = requirement.channel
        if terms is None:
            return requirement
        deposit = max(terms.least_deposit, self.share)
        return replace(requirement, channel=replace(terms, least_deposit=deposit))


class SharedTransport(httpx.AsyncBaseTransport):
    """A transport that several use and none closes."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        return await self._inner.handle_async_request(request)


def salt_of(number: int) -> str:
    """The salt of a viewer's channel: the same at each run, so that what was left is used."""
    return "0x" + hashlib.sha256(f"xbyte-live bench {number}".encode()).hexdigest()


def _moved(channel: Channel) -> tuple[object, ...]:
    return (channel.balance, channel.deposit, channel.withdrawn_at, channel.fault, channel.known)

"""Adapter: the SQL of channels to claim, to refund, or to read from the chain again."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, func, select

from xbyte_live.evm.channels import NO_SIGNATURE
from xbyte_live.payments.ledger.channel import Channel, channel_of
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels

_IDS_AT_ONCE = 500

_unclaimed = channels.c.charged - channels.c.held - channels.c.claimed
_used_at = func.coalesce(channels.c.charged_at, channels.c.created_at)


@dataclass(frozen=True, slots=True)
class PayoutAccount:
    """Whom claimed money goes to: an address and a token on one network."""

    network: str
    asset: str
    pay_to: str


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """What a payee's channels were charged and nobody has claimed."""

    payee: PayoutAccount
    channels: int
    amount: int


class ClaimLedger:
    """Looks at ``channels``; every method raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claimable(self, network: str, *, pay_to: str | None = None) -> list[Channel]:
        """The channels of a network (and payee) of which something can be claimed, most first."""
        where = [channels.c.network == network, *_CLAIMABLE]
        if pay_to is not None:
            where.append(channels.c.pay_to == pay_to)
        return await self._channels(select(channels).where(*where).order_by(_unclaimed.desc()))

    async def leaving(self) -> list[Channel]:
        """The channels that a payer is about to empty, with something to claim, soonest first."""
        ends = channels.c.withdraw_requested_at + channels.c.withdraw_delay
        where = (channels.c.withdraw_requested_at > 0, *_CLAIMABLE)
        return await self._channels(select(channels).where(*where).order_by(ends))

    async def unclaimed(self) -> list[Unclaimed]:
        """What could be claimed for each payee."""
        key = (channels.c.network, channels.c.asset, channels.c.pay_to)
        query = select(*key, func.count(), func.sum(_unclaimed)).where(*_CLAIMABLE).group_by(*key)
        return await self._database.read(
            lambda db: [
                Unclaimed(PayoutAccount(network, asset, pay_to), int(count), int(amount))
                for network, asset, pay_to, count, amount in db.execute(query)
            ]
        )

    async def payees(self) -> list[PayoutAccount]:
        """Every payee that a channel was ever opened for."""
        key = (channels.c.network, channels.c.asset, channels.c.pay_to)
        query = select(*key).distinct().order_by(*key)
        return await self._database.read(
            lambda db: [PayoutAccount(*row) for row in db.execute(query)]
        )

    async def oldest(self) -> dict[str, float]:
        """When the first channel of each network was seen."""
        query = select(channels.c.network, func.min(channels.c.created_at)).group_by(
            channels.c.network
        )
        return await self._database.read(
            lambda db: {network: float(at) for network, at in db.execute(query)}
        )

    async def idle(self, *, before: float, least: int, limit: int) -> list[Channel]:
        """Channels not charged since ``before`` that have ``least`` or more to give back."""
        rest = channels.c.balance - channels.c.reserved - channels.c.charged
        query = (
            select(channels)
            .where(
                _used_at < before,
                rest >= max(1, least),
                channels.c.reserved == 0,
                channels.c.held == 0,
                channels.c.withdraw_requested_at == 0,
            )
            .order_by(_used_at)
            .limit(limit)
        )
        return await self._channels(query)

    async def stale(
        self, network: str, *, charged_since: float, read_before: float, limit: int
    ) -> list[Channel]:
        """Channels in use of which the chain was last asked before ``read_before``."""
        query = (
            select(channels)
            .where(
                channels.c.network == network,
                channels.c.charged_at >= charged_since,
                channels.c.synced_at < read_before,
            )
            .order_by(channels.c.synced_at)
            .limit(limit)
        )
        return await self._channels(query)

    async def known(self, channel_ids: Collection[str]) -> list[Channel]:
        """Those of these channels that are ours."""
        ids, found = sorted(channel_ids), []
        for at in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[at : at + _IDS_AT_ONCE]
            found += await self._channels(select(channels).where(channels.c.channel_id.in_(some)))
        return found

    async def in_use(self, network: str, *, after: int, limit: int) -> list[Channel]:
        """The channels with money in them that is not claimed, in pages by their number."""
        query = (
            select(channels)
            .where(
                channels.c.network == network,
                channels.c.id > after,
                case((channels.c.balance > channels.c.charged, channels.c.balance),
                     else_=channels.c.charged) > channels.c.claimed,
            )
            .order_by(channels.c.id)
            .limit(limit)
        )  # fmt: skip
        return await self._channels(query)

    async def _channels(self, query: Select[Any]) -> list[Channel]:
        return await self._database.read(lambda db: [channel_of(row) for row in db.execute(query)])


_CLAIMABLE = (_unclaimed > 0, channels.c.signature != NO_SIGNATURE)

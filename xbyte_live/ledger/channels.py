"""Adapter: payment channels and what was delivered for their vouchers; group-committed.

A channel's row holds what the payer signed (``signed``), what was charged of it (``charged``) and
what the chain said last (``balance``, ``claimed`` …). ``charged`` and a delivery row change in one
transaction. Of what was charged, ``held`` belongs to open sessions and is not claimed yet.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, bindparam, case, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from xbyte_live.batching import Batched
from xbyte_live.db.engine import Database
from xbyte_live.db.tables import channels, deliveries
from xbyte_live.payments.voucher import NO_SIGNATURE, ChannelConfig, Claim, Voucher

Outcome = Literal["charged", "again", "mismatch", "balance", "missing"]


@dataclass(frozen=True, slots=True)
class OnChain:
    """A channel as the contract has it; ``at`` is when it was read (Unix seconds)."""

    balance: int
    claimed: int
    withdraw_requested_at: int
    refund_nonce: int
    at: float


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as the ledger has it; amounts are cumulative atomic units of its token."""

    id: int
    channel_id: str
    network: str
    config: ChannelConfig
    opening: int
    charged: int
    signed: int
    signature: str
    held: int
    reserved: int
    epoch: int
    archived: int
    chain: OnChain
    created_at: float
    charged_at: float | None

    @property
    def spendable(self) -> int:
        """How far ``charged`` may go."""
        return self.chain.balance - self.reserved

    @property
    def claimable(self) -> int:
        """The total that may be claimed now: what was charged and is not a session's rest."""
        return self.charged - self.held

    @property
    def voucher(self) -> Voucher:
        """The highest voucher."""
        return Voucher(self.channel_id, self.signed, self.signature)

    @property
    def claim(self) -> Claim:
        """The row that claims all that may be claimed."""
        return Claim(self.config, self.voucher, self.claimable)


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A checked voucher for one delivery; ``ceiling`` is what it signs for in all."""

    channel_id: str
    ceiling: int
    signature: str
    amount: int
    slug: str
    resource: str
    size: int


@dataclass(frozen=True, slots=True)
class Charging:
    """What became of a voucher, and the channel as it then stands (``None``: ``missing``).

    ``charged``: now; ``again``: before, for the same bytes, within the retry window;
    ``mismatch``: it does not follow on what was charged; ``balance``: the channel has too little,
    or its payer is about to take it out.
    ``epoch`` names with the ceiling the delivery that was charged.
    """

    outcome: Outcome
    channel: Channel | None
    epoch: int = 0


class ChannelLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(
        self,
        database: Database,
        *,
        retry_window: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._retry_window = retry_window
        self._clock = clock
        self._charges = Batched(self._charge)

    async def charge(self, new: NewDelivery) -> Charging:
        """Charge a voucher for a delivery, once however often it comes (money rules 3 and 4).

        All that wait are charged in one transaction while the one before is being committed.
        """
        return await self._charges.do(new)

    async def find(self, channel_id: str) -> Channel | None:
        """The channel of that id."""
        return await self._database.read(lambda db: _find(db, channel_id))

    async def was_charged(self, new: NewDelivery) -> bool:
        """Whether this voucher was charged for this delivery, within the retry window."""
        since = self._clock() - self._retry_window
        return await self._database.read(lambda db: _charged_before(db, new, since))

    async def sync(
        self, network: str, config: ChannelConfig, channel_id: str, chain: OnChain
    ) -> Channel:
        """Record what the chain says of a channel, making its row if there is none.

        A channel that is new here begins at what was claimed of it. An older reading never
        replaces a newer one.
        """
        return await self._database.write(
            lambda db: _sync(db, network, config, channel_id, chain, self._clock())
        )

    async def _charge(self, news: Sequence[NewDelivery]) -> Sequence[Charging]:
        now = self._clock()
        return await self._database.write(lambda db: charge_all(db, news, now, self._retry_window))


def charge_all(
    db: Connection, news: Sequence[NewDelivery], now: float, retry_window: float
) -> list[Charging]:
    """Charge many vouchers in the caller's transaction; one answer for each, in their order.

    Those of one channel are taken in the order of their ceilings, so that two that were sent
    together do not miss each other.
    """
    found = {channel.channel_id: channel for channel in _locked(db, {n.channel_id for n in news})}
    before = dict(found)
    outcomes: dict[int, Charging] = {}
    fresh: list[dict[str, Any]] = []
    for index, new in sorted(enumerate(news), key=lambda pair: pair[1].ceiling):
        channel = found.get(new.channel_id)
        if channel is None:
            outcomes[index] = Charging("missing", None)
            continue
        if new.ceiling != channel.charged + new.amount:
            outcomes[index] = _earlier(db, channel, new, fresh, now - retry_window)
            continue
        if new.ceiling > channel.spendable or _is_leaving(channel, now):
            outcomes[index] = Charging("balance", channel)
            continue
        signed = (channel.signed, channel.signature)
        if new.ceiling > channel.signed:
            signed = (new.ceiling, new.signature)
        channel = replace(
            channel, charged=new.ceiling, signed=signed[0], signature=signed[1], charged_at=now
        )
        found[new.channel_id] = channel
        fresh.append(_delivery(channel, new, now))
        outcomes[index] = Charging("charged", channel, channel.epoch)
    if fresh:
        changed = [c for c in found.values() if c is not before[c.channel_id]]
        _write_charged(db, changed, before)
        db.execute(insert(deliveries), fresh)
    return [outcomes[index] for index in range(len(news))]


def _write_charged(db: Connection, changed: Sequence[Channel], before: dict[str, Channel]) -> None:
    """The compare-and-set: every row must still hold what this transaction read."""
    result = db.execute(
        _CHARGE,
        [
            {
                "row": channel.id,
                "was": before[channel.channel_id].charged,
                "now_charged": channel.charged,
                "now_signed": channel.signed,
                "now_signature": channel.signature,
                "at": channel.charged_at,
            }
            for channel in changed
        ],
    )
    if result.rowcount not in (len(changed), -1):
        raise AssertionError("a channel changed under the transaction that holds it")


_CHARGE = (
    update(channels)
    .where(channels.c.id == bindparam("row"), channels.c.charged == bindparam("was"))
    .values(
        charged=bindparam("now_charged"),
        signed=bindparam("now_signed"),
        signature=bindparam("now_signature"),
        charged_at=bindparam("at"),
    )
)


def _earlier(
    db: Connection, channel: Channel, new: NewDelivery, fresh: list[dict[str, Any]], since: float
) -> Charging:
    """A voucher that does not follow: the retry of a delivery, or a mismatch."""
    same = (channel.id, new.ceiling, new.amount, new.resource, new.size)
    for row in fresh:  # charged by this very transaction
        if tuple(row[name] for name in _SAME) == same:
            return Charging("again", channel, row["epoch"])
    if new.ceiling > channel.signed:
        return Charging("mismatch", channel)
    epoch = _epoch_of(db, channel.id, new, since)
    if epoch is None:
        return Charging("mismatch", channel)
    return Charging("again", channel, epoch)


def _charged_before(db: Connection, new: NewDelivery, since: float) -> bool:
    channel = _find(db, new.channel_id)
    return channel is not None and _epoch_of(db, channel.id, new, since) is not None


def _epoch_of(db: Connection, channel: int, new: NewDelivery, since: float) -> int | None:
    """The epoch in which a voucher was charged for a delivery since then, if it was."""
    query = (
        select(deliveries.c.epoch)
        .where(
            deliveries.c.channel == channel,
            deliveries.c.cumulative == new.ceiling,
            deliveries.c.amount == new.amount,
            deliveries.c.resource == new.resource,
            deliveries.c.size == new.size,
            deliveries.c.created_at >= since,
        )
        .order_by(deliveries.c.epoch.desc())
        .limit(1)
    )
    return db.execute(query).scalar_one_or_none()


def _is_leaving(channel: Channel, now: float) -> bool:
    """Whether a withdrawal is so near that what is charged now might not be claimed in time."""
    requested = channel.chain.withdraw_requested_at
    return requested > 0 and now > requested + channel.config.withdraw_delay / 2


_SAME = ("channel", "cumulative", "amount", "resource", "size")


def _delivery(channel: Channel, new: NewDelivery, now: float) -> dict[str, Any]:
    return {
        "channel": channel.id,
        "epoch": channel.epoch,
        "cumulative": new.ceiling,
        "amount": new.amount,
        "slug": new.slug,
        "resource": new.resource,
        "size": new.size,
        "created_at": now,
    }


def _locked(db: Connection, ids: Iterable[str]) -> list[Channel]:
    """The channels of those ids, held until the transaction ends; always in one order."""
    query = select(channels).where(channels.c.channel_id.in_(sorted(ids))).order_by(channels.c.id)
    return [channel_of(row) for row in db.execute(query.with_for_update()).mappings()]


def _find(db: Connection, channel_id: str) -> Channel | None:
    query = select(channels).where(channels.c.channel_id == channel_id)
    row = db.execute(query).mappings().first()
    return channel_of(row) if row is not None else None


def _sync(
    db: Connection,
    network: str,
    config: ChannelConfig,
    channel_id: str,
    chain: OnChain,
    now: float,
) -> Channel:
    mirrored = {
        "balance": chain.balance,
        "claimed": chain.claimed,
        "withdraw_requested_at": chain.withdraw_requested_at,
        "refund_nonce": chain.refund_nonce,
        "synced_at": chain.at,
    }
    values = {
        "channel_id": channel_id,
        "network": network,
        "asset": config.token,
        "payer": config.payer,
        "payer_authorizer": config.payer_authorizer,
        "pay_to": config.receiver,
        "receiver_authorizer": config.receiver_authorizer,
        "withdraw_delay": config.withdraw_delay,
        "salt": config.salt,
        "opening": chain.claimed,
        "charged": chain.claimed,
        "signed": chain.claimed,
        "signature": NO_SIGNATURE,
        "created_at": now,
    }
    dialect = postgresql if db.dialect.name == "postgresql" else sqlite
    db.execute(
        dialect.insert(channels)
        .values({**values, **mirrored})
        .on_conflict_do_update(
            index_elements=["channel_id"],
            set_=mirrored,
            where=channels.c.synced_at <= chain.at,
        )
    )
    lost = (channels.c.channel_id == channel_id, channels.c.claimed > channels.c.charged)
    db.execute(  # a ledger restored from an old copy: what it forgot was claimed all the same
        update(channels)
        .where(*lost)
        .values(
            opening=channels.c.opening + channels.c.claimed - channels.c.charged,
            signed=case(
                (channels.c.signed < channels.c.claimed, channels.c.claimed),
                else_=channels.c.signed,
            ),
            signature=case(
                (channels.c.signed < channels.c.claimed, NO_SIGNATURE),
                else_=channels.c.signature,
            ),
            charged=channels.c.claimed,
        )
    )
    channel = _find(db, channel_id)
    if channel is None:
        raise AssertionError("a channel that was just written is not to be found")
    return channel


def channel_of(row: RowMapping) -> Channel:
    """A row of ``channels`` as a value."""
    return Channel(
        id=row["id"],
        channel_id=row["channel_id"],
        network=row["network"],
        config=ChannelConfig(
            payer=row["payer"],
            payer_authorizer=row["payer_authorizer"],
            receiver=row["pay_to"],
            receiver_authorizer=row["receiver_authorizer"],
            token=row["asset"],
            withdraw_delay=row["withdraw_delay"],
            salt=row["salt"],
        ),
        opening=row["opening"],
        charged=row["charged"],
        signed=row["signed"],
        signature=row["signature"],
        held=row["held"],
        reserved=row["reserved"],
        epoch=row["epoch"],
        archived=row["archived"],
        chain=OnChain(
            balance=row["balance"],
            claimed=row["claimed"],
            withdraw_requested_at=row["withdraw_requested_at"],
            refund_nonce=row["refund_nonce"],
            at=row["synced_at"],
        ),
        created_at=row["created_at"],
        charged_at=row["charged_at"],
    )

"""Adapter: the SQL of payment channels and of the deliveries charged to them, group-committed.

A channel's row holds what the payer signed (``signed``), what was charged of it (``charged``) and
what the chain said last (``balance``, ``claimed`` …). ``charged`` and a delivery row change in one
transaction. Of what was charged, ``held`` belongs to open sessions and is not claimed yet.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection, bindparam, case, select, text, update

from xbyte_live.evm.channels import NO_SIGNATURE, ChannelConfig
from xbyte_live.payments.ledger.channel import Channel, Charging, NewDelivery, OnChain, channel_of
from xbyte_live.runtime.aio import BatchQueue
from xbyte_live.storage.db.dialect import DIALECTS, Dialect, dialect_of, insert_into, json_rows
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels, deliveries


class Charger(Protocol):
    """Who may take the charging over."""

    def hand_over(
        self, news: Sequence[NewDelivery], now: float
    ) -> Awaitable[Sequence[Charging]] | None:
        """Have them charged as ``charge_checked`` does; ``None`` leaves it to the caller."""


class ChannelLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(
        self,
        database: Database,
        *,
        retry_window: float,
        charger: Charger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._retry_window = retry_window
        self._charger = charger
        self._clock = clock
        self._charges = BatchQueue(self._charge, at_once=2, limit=database.limit)
        self._turn = asyncio.Lock()

    async def charge(self, new: NewDelivery) -> Charging:
        """Charge a voucher for a delivery, once however often it comes (money rules 3 and 4).

        All that wait are charged in one transaction while the one before is being committed.
        """
        return await self._charges.do(new)

    async def find(self, channel_id: str) -> Channel | None:
        """The channel of that id."""
        return await self._database.read(lambda db: _find(db, channel_id))

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
        async with self._turn:  # what a payer sent first is charged first
            now = self._clock()
            handed = self._charger.hand_over(news, now) if self._charger else None
            if handed is None:
                return await charge_checked(self._database, news, now, self._retry_window)
        return await handed


async def charge_checked(
    database: Database, news: Sequence[NewDelivery], now: float, retry_window: float
) -> Sequence[Charging]:
    """Check the signatures of many vouchers, then charge the good ones in one transaction.

    One answer for each, in their order. Raises ``DatabaseUnavailable``.
    """
    if len(news) == 1:
        signed = [news[0].is_signed]
    else:
        signed = await asyncio.to_thread(lambda: [new.is_signed for new in news])
    good = [new for new, is_good in zip(news, signed, strict=True) if is_good]
    charged: Sequence[Charging] = ()
    if good:
        charged = await database.write(lambda db: charge_all(db, good, now, retry_window))
    return in_their_order(signed, charged)


def in_their_order(signed: Sequence[bool], charged: Sequence[Charging]) -> list[Charging]:
    """The answers to vouchers of which those that were ``signed`` are ``charged``."""
    honest = iter(charged)
    return [next(honest) if is_good else Charging("forged", None) for is_good in signed]


def charge_all(
    db: Connection, news: Sequence[NewDelivery], now: float, retry_window: float
) -> list[Charging]:
    """Charge many checked vouchers in the caller's transaction; an answer for each, in their order.

    Those of one channel are taken in the order of their ceilings, so that two that were sent
    together do not miss each other.
    """
    if not news:
        return []
    found = {channel.channel_id: channel for channel in _locked(db, {n.channel_id for n in news})}
    before = dict(found)
    outcomes: dict[int, Charging] = {}
    fresh: list[dict[str, Any]] = []
    for index, new in sorted(enumerate(news), key=lambda pair: pair[1].ceiling):
        channel = found.get(new.channel_id)
        if channel is None:
            outcomes[index] = Charging("missing", None)
            continue
        follows = new.ceiling == channel.charged + new.amount
        if not follows:
            outcomes[index] = _earlier(db, channel, new, fresh, now - retry_window)
            if outcomes[index].outcome == "again":
                continue
        if channel.chain.at < new.oldest:
            outcomes[index] = Charging("stale", channel)
            continue
        if not follows:
            continue
        if new.ceiling > channel.spendable or _is_leaving(channel, now):
            outcomes[index] = Charging("balance", channel)
            continue
        channel = channel.charged_for(new, now)
        found[new.channel_id] = channel
        fresh.append(_delivery(channel, new))
        outcomes[index] = Charging("charged", channel, channel.epoch)
    if fresh:
        changed = [
            {
                "channel": channel.id,
                "was": before[channel_id].charged,
                "charged": channel.charged,
                "signed": channel.signed,
                "signature": channel.signature,
            }
            for channel_id, channel in found.items()
            if channel is not before[channel_id]
        ]
        if _run(db, _CHARGE, changed, now) != len(changed):
            raise AssertionError("a channel changed under the transaction that holds it")
        _run(db, _DELIVER, fresh, now)
    return [outcomes[index] for index in range(len(news))]


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


_CHARGED = {
    "channel": "bigint",
    "was": "bigint",
    "charged": "bigint",
    "signed": "bigint",
    "signature": "text",
}
_DELIVERED = {
    "channel": "bigint",
    "epoch": "integer",
    "cumulative": "bigint",
    "amount": "bigint",
    "slug": "text",
    "resource": "text",
    "size": "bigint",
}
_SAME = ("channel", "cumulative", "amount", "resource", "size")


def _delivery(channel: Channel, new: NewDelivery) -> dict[str, Any]:
    return {
        "channel": channel.id,
        "epoch": channel.epoch,
        "cumulative": new.ceiling,
        "amount": new.amount,
        "slug": new.slug,
        "resource": new.resource,
        "size": new.size,
    }


_OF_IDS = (
    select(channels)
    .where(channels.c.channel_id.in_(bindparam("ids", expanding=True)))
    .order_by(channels.c.id)
    .with_for_update()
)


def _locked(db: Connection, ids: Iterable[str]) -> list[Channel]:
    """The channels of those ids, held until the transaction ends; always in one order."""
    return [channel_of(row) for row in db.execute(_OF_IDS, {"ids": sorted(ids)})]


def _find(db: Connection, channel_id: str) -> Channel | None:
    query = select(channels).where(channels.c.channel_id == channel_id)
    row = db.execute(query).first()
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
    db.execute(
        insert_into(db, channels)
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


# Rows of a batch go as one JSON value: a statement that is run row by row hands the interpreter
# over to the event loop at every row, and waits to get it back.
_CHARGE, _DELIVER = (
    {dialect: text(sql.format(json_rows(dialect, types))) for dialect in DIALECTS}
    for sql, types in (
        (
            "UPDATE channels SET charged = v.charged, signed = v.signed, signature = v.signature,"
            " charged_at = :now FROM {} WHERE channels.id = v.channel AND channels.charged = v.was",
            _CHARGED,
        ),
        (
            "INSERT INTO deliveries"
            " (channel, epoch, cumulative, amount, slug, resource, size, created_at)"
            " SELECT channel, epoch, cumulative, amount, slug, resource, size, :now FROM {}",
            _DELIVERED,
        ),
    )
)


def _run(db: Connection, statements: Mapping[Dialect, Any], rows: Sequence[Any], now: float) -> int:
    """Write all rows in one statement; how many there were to write."""
    values = {"rows": orjson.dumps(rows).decode(), "now": now}
    return db.execute(statements[dialect_of(db)], values).rowcount

"""Adapter: the SQL of sessions: budgets bought once, drawn, and given back.

The money of a session stands in one of two places:

    channel   its payment charged the channel, which ``held`` it back from being claimed; what is
              drawn is let go, and the rest is taken off what was charged when the session ends
    exact     its payment was settled; the rest is given back on chain where we hold the payee's
              key (a row of ``actions`` first), else it is the payer's credit with the payee

Whatever changes together is one transaction. Rows are locked in one order: channels, sessions.
"""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, update

from xbyte_live.payments.ledger.channel import Channel, Charging, NewDelivery
from xbyte_live.payments.ledger.channels import charge_all
from xbyte_live.payments.ledger.charge import Charge
from xbyte_live.payments.ledger.rollup import LedgerEvent, add_late
from xbyte_live.payments.ledger.session import EndedSession, Session, SessionTotals, Way
from xbyte_live.payments.x402.order import (
    NAMES,
    Order,
    channel_origin,
    charge_origin,
    digest_of,
    token_of,
)
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import actions, channels, charges, credits, purchases, sessions


class SessionLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer.

    ``secret`` makes tokens; ``payees`` are the lower-case addresses whose keys we hold.
    """

    def __init__(
        self,
        database: Database,
        *,
        secret: bytes,
        payees: Collection[str],
        retry_window: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._secret = secret
        self._payees = frozenset(payees)
        self._retry_window = retry_window
        self._clock = clock

    async def charge(self, new: NewDelivery, order: Order) -> Charging | None:
        """Charge a voucher for an order and hold its amount for the session, in one transaction.

        ``None`` if the session it would add to is over, or was bought by another channel.
        """
        return await self._database.write(
            lambda db: _charge(db, self._secret, new, order, self._clock(), self._retry_window)
        )

    async def paid(self, charge: Charge, order: Order) -> Session:
        """The session a settled ``exact`` charge bought or added to; done once (rule 3).

        What comes too late for its session goes back as the session's rest did. A new session
        takes along the credit its payer has with the payee.
        """
        return await self._database.write(
            lambda db: _paid(db, self._secret, self._payees, charge, order, self._clock())
        )

    async def find(self, digest: str) -> Session | None:
        """The session whose token has that digest."""
        return await self._database.read(lambda db: _find(db, sessions.c.digest == digest))

    async def bought(self, origin: str) -> Session | None:
        """The session that a payment bought or added to."""
        bought_by = select(purchases.c.session_id).where(purchases.c.origin == origin)
        return await self._database.read(
            lambda db: _find(db, sessions.c.id == bought_by.scalar_subquery())
        )

    async def price(self, session: Session) -> int:
        """What the session was first bought for."""
        query = (
            select(purchases.c.amount)
            .where(purchases.c.session_id == session.id)
            .order_by(purchases.c.id)
            .limit(1)
        )
        return await self._database.read(lambda db: int(db.execute(query).scalar_one()))

    async def end(self, session: Session, *, expired: bool = False) -> EndedSession | None:
        """End a session and give its rest back, once; ``None`` if it had ended.

        With ``expired`` only if its time is over, which somebody may just have prolonged.
        """
        return await self._database.write(
            lambda db: _end(db, session, self._payees, self._clock(), expired)
        )

    async def expired(self, limit: int) -> list[Session]:
        """Sessions that have not ended although their time is over, the oldest first."""
        query = (
            select(sessions)
            .where(sessions.c.closed_at.is_(None), sessions.c.expires_at <= self._clock())
            .order_by(sessions.c.expires_at)
            .limit(limit)
        )
        return await self._database.read(
            lambda db: [_session(row) for row in db.execute(query).mappings()]
        )

    async def unopened(self, since: int, limit: int = 100) -> tuple[list[int], int]:
        """Settled charges after number ``since`` that paid for a session and gave none yet.

        With them comes the number after which to look the next time.
        """
        return await self._database.read(lambda db: _unopened(db, since, limit))

    async def credit(self, network: str, asset: str, payer: str, pay_to: str) -> int:
        """What a payer has left with a payee from sessions that ended."""
        query = select(credits.c.amount).where(_credit_of(network, asset, payer, pay_to))
        return await self._database.read(lambda db: int(db.execute(query).scalar() or 0))

    async def totals(self) -> SessionTotals:
        """The sessions that have not ended; for metrics."""
        left = func.coalesce(func.sum(sessions.c.budget - sessions.c.drawn), 0)
        query = select(func.count(), left).where(sessions.c.closed_at.is_(None))

        def work(db: Connection) -> SessionTotals:
            count, amount = db.execute(query).one()
            return SessionTotals(int(count), int(amount))

        return await self._database.read(work)


# Bought by a voucher


def _charge(
    db: Connection,
    secret: bytes,
    new: NewDelivery,
    order: Order,
    now: float,
    retry_window: float,
) -> Charging | None:
    before = None
    if order.digest:
        lock_channels(db, channels.c.channel_id == new.channel_id)
        before = _find(db, sessions.c.digest == order.digest, lock=True)
        if before is None or not _is_of(db, before, new.channel_id) or before.is_over(now):
            return None
    (charging,) = charge_all(db, [new], now, retry_window)
    if charging.outcome != "charged" or charging.channel is None:
        return charging
    channel = charging.channel
    origin = channel_origin(channel.id, charging.epoch, new.ceiling)
    if before is None:
        session = _insert(db, secret, origin, _of_channel(channel, order, new.amount, now))
    else:
        session = _extend(db, before, new.amount, order, now)
    _note(db, session, origin, new.amount, now)
    db.execute(
        update(channels)
        .where(channels.c.id == channel.id)
        .values(held=channels.c.held + new.amount)
    )
    return replace(charging, channel=replace(channel, held=channel.held + new.amount))


def _is_of(db: Connection, session: Session, channel_id: str) -> bool:
    query = select(channels.c.id).where(channels.c.channel_id == channel_id)
    return session.channel is not None and db.execute(query).scalar() == session.channel


def _of_channel(channel: Channel, order: Order, amount: int, now: float) -> dict[str, Any]:
    return {
        "slug": order.slug,
        "network": channel.network,
        "asset": channel.config.token,
        "payer": channel.config.payer,
        "pay_to": channel.config.receiver,
        "channel": channel.id,
        "budget": amount,
        "created_at": now,
        "expires_at": now + order.ttl,
    }


# Bought with exact


def _paid(
    db: Connection,
    secret: bytes,
    payees: Collection[str],
    charge: Charge,
    order: Order,
    now: float,
) -> Session:
    origin = charge_origin(charge.id)
    if not order.digest:
        return _bought(db, secret, charge, order, origin, now)
    session = _require(db, sessions.c.digest == order.digest, lock=True)
    if _is_noted(db, origin):
        return session
    session = _extend(db, session, charge.amount, order, now)
    _note(db, session, origin, charge.amount, now, charge.id)
    if session.closed_at is None:
        return session
    _give_back(db, session, charge.amount, f"return:{session.digest}:{origin}", payees, now)
    add_late(db, LedgerEvent(session.closed_at, session.slug, income=-charge.amount))
    return _change(db, session, returned=session.returned + charge.amount)


def _bought(
    db: Connection, secret: bytes, charge: Charge, order: Order, origin: str, now: float
) -> Session:
    digest = digest_of(token_of(secret, origin))
    made = db.execute(
        insert_into(db, sessions)
        .values(
            digest=digest,
            slug=order.slug,
            network=charge.network,
            asset=charge.asset,
            payer=charge.payer,
            pay_to=charge.pay_to,
            budget=charge.amount,
            drawn=0,
            created_at=now,
            expires_at=now + order.ttl,
        )
        .on_conflict_do_nothing(index_elements=["digest"])
        .returning(sessions)
    )
    row = made.mappings().first()
    if row is None:  # it was made before
        return _require(db, sessions.c.digest == digest)
    session = _session(row)
    _note(db, session, origin, charge.amount, now, charge.id)
    credit = _take_credit(db, session)
    if not credit:
        return session
    _note(db, session, f"credit-{origin}", credit, now)
    return _change(db, session, budget=session.budget + credit)


def _take_credit(db: Connection, session: Session) -> int:
    where = _credit_of(session.network, session.asset, session.payer, session.pay_to)
    found = db.execute(select(credits.c.amount).where(where).with_for_update()).scalar()
    if found:
        db.execute(update(credits).where(where).values(amount=0))
    return int(found or 0)


def _unopened(db: Connection, since: int, limit: int) -> tuple[list[int], int]:
    ours = and_(charges.c.id > since, or_(*(charges.c.resource.startswith(name) for name in NAMES)))
    settled = (
        select(charges.c.id)
        .outerjoin(purchases, purchases.c.charge_id == charges.c.id)
        .where(ours, charges.c.state == "settled", purchases.c.id.is_(None))
        .order_by(charges.c.id)
        .limit(limit)
    )
    found = [int(number) for (number,) in db.execute(settled)]
    newest = db.execute(select(func.max(charges.c.id))).scalar() or since
    open_ = db.execute(
        select(func.min(charges.c.id)).where(ours, charges.c.state != "settled")
    ).scalar()
    seen = [newest, *(number - 1 for number in (open_, *found[:1]) if number is not None)]
    return found, min(seen)


# How sessions end


def _end(
    db: Connection, known: Session, payees: Collection[str], now: float, expired: bool
) -> EndedSession | None:
    if known.channel is not None:
        lock_channels(db, channels.c.id == known.channel)
    session = _require(db, sessions.c.id == known.id, lock=True)
    if session.closed_at is not None or (expired and session.expires_at > now):
        return None
    rest = session.left
    way: Way = "channel"
    if session.channel is None:
        way = _give_back(db, session, rest, f"return:{session.digest}", payees, now)
    elif rest:
        db.execute(
            update(channels)
            .where(channels.c.id == session.channel)
            .values(
                charged=channels.c.charged - rest,
                held=channels.c.held - rest,
                epoch=channels.c.epoch + 1,
            )
        )
    return EndedSession(_change(db, session, returned=rest, closed_at=now), way)


def _give_back(
    db: Connection,
    session: Session,
    amount: int,
    identity: str,
    payees: Collection[str],
    now: float,
) -> Way:
    """Owe a payer what a settled payment left: on chain, or else as credit with the payee."""
    ours = session.pay_to in payees
    if amount and ours:
        db.execute(
            insert(actions).values(
                kind="return",
                network=session.network,
                asset=session.asset,
                pay_to=session.pay_to,
                payer=session.payer,
                identity=identity,
                amount=amount,
                document=json.dumps({}),
                requirements=json.dumps({}),
                state="pending",
                in_doubt=False,
                created_at=now,
            )
        )
    elif amount:
        owner = ("network", "asset", "payer", "pay_to")
        db.execute(
            insert_into(db, credits)
            .values({name: getattr(session, name) for name in owner} | {"amount": amount})
            .on_conflict_do_update(index_elements=owner, set_={"amount": credits.c.amount + amount})
        )
    return "transfer" if ours else "credit"


def _credit_of(network: str, asset: str, payer: str, pay_to: str) -> Any:
    return and_(
        credits.c.network == network,
        credits.c.asset == asset,
        credits.c.payer == payer,
        credits.c.pay_to == pay_to,
    )


# Rows


def lock_channels(db: Connection, where: Any) -> dict[int, RowMapping]:
    """The channels that match, by their row's number, held until the transaction ends."""
    query = select(channels).where(where).order_by(channels.c.id).with_for_update()
    return {row["id"]: row for row in db.execute(query).mappings()}


def lock_sessions(db: Connection, where: Any) -> dict[str, Session]:
    """The sessions that match, by their digest, held until the transaction ends."""
    query = select(sessions).where(where).order_by(sessions.c.id).with_for_update()
    return {row["digest"]: _session(row) for row in db.execute(query).mappings()}


def _insert(db: Connection, secret: bytes, origin: str, values: dict[str, Any]) -> Session:
    digest = digest_of(token_of(secret, origin))
    statement = insert(sessions).values(digest=digest, drawn=0, **values).returning(sessions)
    return _session(db.execute(statement).mappings().one())


def _extend(db: Connection, session: Session, amount: int, order: Order, now: float) -> Session:
    later = max(session.expires_at, now + order.ttl)
    return _change(db, session, budget=session.budget + amount, expires_at=later)


def _change(db: Connection, session: Session, **values: Any) -> Session:
    statement = update(sessions).where(sessions.c.id == session.id).values(values)
    return _session(db.execute(statement.returning(sessions)).mappings().one())


def _note(
    db: Connection,
    session: Session,
    origin: str,
    amount: int,
    now: float,
    charge_id: int | None = None,
) -> None:
    db.execute(
        insert(purchases).values(
            session_id=session.id,
            origin=origin,
            charge_id=charge_id,
            amount=amount,
            created_at=now,
        )
    )


def _is_noted(db: Connection, origin: str) -> bool:
    query = select(purchases.c.id).where(purchases.c.origin == origin)
    return db.execute(query).first() is not None


def _find(db: Connection, where: Any, *, lock: bool = False) -> Session | None:
    query = select(sessions).where(where)
    row = db.execute(query.with_for_update() if lock else query).mappings().first()
    return _session(row) if row is not None else None


def _require(db: Connection, where: Any, *, lock: bool = False) -> Session:
    found = _find(db, where, lock=lock)
    if found is None:
        raise AssertionError("a session that money was taken for is not to be found")
    return found


def _session(row: RowMapping) -> Session:
    return Session(**{name: row[name] for name in Session.__slots__})

"""Adapter: the SQL of actions: what channels and sessions need on chain, a row before each.

An action goes through these states, every step durable before anything follows from it:

    pending   to be sent, or sent and not known yet (``in_doubt``)
    settled   the chain shows its effect
    failed    it had no effect and is not on its way

A refund holds its amount back from its channel (``channels.reserved``) as long as it is pending,
so that no charge can take what is about to leave.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, and_, func, or_, select, update

from xbyte_live.payments.ledger.channel import OnChain
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import actions, channels

Kind = Literal["deposit", "claim", "settle", "refund", "return"]
State = Literal["pending", "settled", "failed"]
Refusal = Literal["busy", "balance", "missing"]


@dataclass(frozen=True, slots=True)
class NewAction:
    """Something to do on chain; ``identity`` is unique, ``document`` what a facilitator settles.

    ``amount`` is in atomic units: deposited, given back, claimed or paid out.
    """

    kind: Kind
    network: str
    asset: str
    pay_to: str
    identity: str
    amount: int
    document: dict[str, Any]
    requirements: dict[str, Any]
    payer: str | None = None
    channel_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(NewAction):
    """An action as the ledger holds it; ``tx_hash`` is the transaction that did it, if known."""

    id: int
    state: State
    in_doubt: bool
    tx_hash: str | None
    error: str | None
    attempts: int
    created_at: float
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class OpenedAction:
    """What ``open`` or ``open_refund`` found or made; ``created``: made, or begun again.

    ``refusal`` says why there is no refund: ``busy`` (another one is open), ``balance`` (the
    channel has less to give) or ``missing`` (no such channel).
    """

    action: Action | None
    created: bool = False
    refusal: Refusal | None = None


class ActionLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def open(self, new: NewAction, *, patience: float, again: bool = False) -> OpenedAction:
        """Make the row of an action, or find it by its identity.

        One that failed begins again, as it is now asked for; with ``again`` also one that was
        settled (the chain went back). Whoever opens it has ``patience`` seconds to begin.
        """
        return await self._database.write(lambda db: _open(db, new, self._clock(), patience, again))

    async def open_refund(self, new: NewAction, *, patience: float, read_at: float) -> OpenedAction:
        """The same for a refund, which reserves its amount on its channel in one transaction.

        ``read_at`` is when the chain was read for it: one that was settled since then is
        ``busy``, one from before begins again, as the chain has gone back.
        """
        return await self._database.write(
            lambda db: _open_refund(db, new, self._clock(), patience, read_at)
        )

    async def find(self, identity: str) -> Action | None:
        """The action of that identity."""
        return await self._database.read(lambda db: _find(db, actions.c.identity == identity))

    async def get(self, action_id: int) -> Action | None:
        """The action of that number."""
        return await self._database.read(lambda db: _find(db, actions.c.id == action_id))

    async def begin_attempt(self, action_id: int, *, lease: float) -> Action | None:
        """Take the right to do an action for ``lease`` seconds; ``None`` if it is taken or over.

        The row is in doubt from here until the attempt's end is recorded, so that a crash
        leaves it so; the returned ``in_doubt`` is what it was before.
        """
        return await self._database.write(
            lambda db: _begin_attempt(db, action_id, lease, self._clock())
        )

    async def settle(
        self, action: Action, tx_hash: str | None, chain: OnChain | None = None
    ) -> Action:
        """Record that the chain shows the effect, whatever was believed before.

        For a refund ``chain`` is the channel as it was read then: what is reserved is let go
        in the transaction that takes the new balance.
        """
        values = {
            "state": "settled",
            "tx_hash": tx_hash or action.tx_hash,
            "settled_at": self._clock(),
            "error": None,
            "in_doubt": False,
        }
        return await self._finish(action, actions.c.state != "settled", values, chain)

    async def fail(self, action: Action, error: str) -> Action:
        """Record that it had no effect and no transaction is on its way."""
        values = {"state": "failed", "error": error[:128], "in_doubt": False}
        return await self._finish(action, _same_attempt(action), values)

    async def postpone(
        self,
        action: Action,
        error: str,
        *,
        delay: float,
        in_doubt: bool,
        tx_hash: str | None = None,
    ) -> Action:
        """Record that it is still open; it is due again in ``delay`` seconds."""
        values = {
            "error": error[:128],
            "next_attempt_at": self._clock() + delay,
            "in_doubt": in_doubt,
            "tx_hash": tx_hash or action.tx_hash,
        }
        return await self._finish(action, _same_attempt(action), values)

    async def reopen(self, channel_id: str, *, since: float) -> int:
        """Look again at the deposits of a channel that were settled since then; how many."""
        statement = (
            update(actions)
            .where(
                actions.c.channel_id == channel_id,
                actions.c.kind == "deposit",
                actions.c.state == "settled",
                actions.c.settled_at >= since,
            )
            .values(state="pending", in_doubt=True, next_attempt_at=None, error="reorg")
        )
        return await self._database.write(lambda db: db.execute(statement).rowcount)

    async def due(self, limit: int, *, returns: bool = False) -> list[Action]:
        """Actions that should be looked after now, the oldest first.

        What sessions give back is told apart: ``returns`` are looked after on their own.
        """
        now = self._clock()
        return await self._select(
            and_(
                actions.c.kind == "return" if returns else actions.c.kind != "return",
                or_(actions.c.next_attempt_at.is_(None), actions.c.next_attempt_at <= now),
                or_(actions.c.lease_until.is_(None), actions.c.lease_until <= now),
            ),
            limit,
        )

    async def pending(self, kind: Kind, limit: int = 1000) -> list[Action]:
        """The open actions of one kind, the oldest first."""
        return await self._select(actions.c.kind == kind, limit)

    async def last(self, kind: Kind) -> dict[tuple[str, str, str], float]:
        """When the last action of a kind that did not fail was opened, by network, asset, payee."""
        key = (actions.c.network, actions.c.asset, actions.c.pay_to)
        query = (
            select(*key, func.max(actions.c.created_at))
            .where(actions.c.kind == kind, actions.c.state != "failed")
            .group_by(*key)
        )
        return await self._database.read(
            lambda db: {(row[0], row[1], row[2]): float(row[3]) for row in db.execute(query)}
        )

    async def under_way(self) -> int:
        """How many actions are not known to be done or to have failed."""
        query = select(func.count()).where(actions.c.state == "pending")
        return await self._database.read(lambda db: int(db.execute(query).scalar_one()))

    async def _select(self, where: Any, limit: int) -> list[Action]:
        query = (
            select(actions)
            .where(actions.c.state == "pending", where)
            .order_by(actions.c.id)
            .limit(limit)
        )
        return await self._database.read(
            lambda db: [_action(row) for row in db.execute(query).mappings()]
        )

    async def _finish(
        self, action: Action, where: Any, values: dict[str, Any], chain: OnChain | None = None
    ) -> Action:
        """Change the row if ``where`` holds; a refund that is over gives its reservation back."""

        def work(db: Connection) -> Action:
            if action.channel_id is not None:
                _lock_channel(db, action.channel_id)
            before = _require(db, action.id)
            changed = db.execute(
                update(actions)
                .where(actions.c.id == action.id, where)
                .values({**values, "lease_until": None})
            ).rowcount
            if changed and action.kind == "refund":
                freed = before.state == "pending" and values.get("state") is not None
                _write_refund(db, before, freed, chain)
            return _require(db, action.id)

        return await self._database.write(work)


def _open(db: Connection, new: NewAction, now: float, patience: float, again: bool) -> OpenedAction:
    made = _insert(db, new, now, patience)
    if made is not None:
        return OpenedAction(made, created=True)
    found = _require_identity(db, new.identity)
    if found.state == "failed" or (again and found.state == "settled"):
        return OpenedAction(_begin_again(db, found, new, now, patience), created=True)
    return OpenedAction(found)


def _open_refund(
    db: Connection, new: NewAction, now: float, patience: float, read_at: float
) -> OpenedAction:
    channel = _lock_channel(db, new.channel_id or "")
    if channel is None:
        return OpenedAction(None, refusal="missing")
    pending = and_(
        actions.c.channel_id == new.channel_id,
        actions.c.kind == "refund",
        actions.c.state == "pending",
    )
    if (other := _find(db, pending)) is not None:
        same = other.identity == new.identity and other.amount == new.amount
        return OpenedAction(other) if same else OpenedAction(None, refusal="busy")
    if not 0 < new.amount <= channel["balance"] - channel["reserved"] - channel["charged"]:
        return OpenedAction(None, refusal="balance")
    action = _insert(db, new, now, patience)
    if action is None:  # one that failed, or that the chain has forgotten
        found = _require_identity(db, new.identity)
        if found.settled_at is not None and found.settled_at >= read_at:
            return OpenedAction(None, refusal="busy")
        action = _begin_again(db, found, new, now, patience)
    db.execute(
        update(channels)
        .where(channels.c.channel_id == new.channel_id)
        .values(reserved=channels.c.reserved + new.amount)
    )
    return OpenedAction(action, created=True)


def _write_refund(db: Connection, before: Action, freed: bool, chain: OnChain | None) -> None:
    of_channel = channels.c.channel_id == before.channel_id
    if freed:
        db.execute(
            update(channels).where(of_channel).values(reserved=channels.c.reserved - before.amount)
        )
    if chain is not None:
        newer = or_(channels.c.synced_at <= chain.at, channels.c.refund_nonce < chain.refund_nonce)
        db.execute(
            update(channels)
            .where(of_channel, newer)
            .values(
                balance=chain.balance,
                claimed=chain.claimed,
                withdraw_requested_at=chain.withdraw_requested_at,
                refund_nonce=chain.refund_nonce,
                synced_at=chain.at,
            )
        )


def _insert(db: Connection, new: NewAction, now: float, patience: float) -> Action | None:
    row = db.execute(
        insert_into(db, actions)
        .values(
            kind=new.kind,
            network=new.network,
            identity=new.identity,
            channel_id=new.channel_id,
            state="pending",
            in_doubt=False,
            created_at=now,
            next_attempt_at=now + patience,
            **_asked(new),
        )
        .on_conflict_do_nothing(index_elements=["identity"])
        .returning(actions)
    )
    found = row.mappings().first()
    return _action(found) if found is not None else None


def _begin_again(
    db: Connection, found: Action, new: NewAction, now: float, patience: float
) -> Action:
    db.execute(
        update(actions)
        .where(actions.c.id == found.id)
        .values(
            state="pending",
            in_doubt=found.state == "settled",
            error=None,
            settled_at=None,
            lease_until=None,
            next_attempt_at=now + patience,
            **_asked(new),
        )
    )
    return _require(db, found.id)


def _asked(new: NewAction) -> dict[str, Any]:
    """The columns that say what is asked for."""
    return {
        "asset": new.asset,
        "pay_to": new.pay_to,
        "payer": new.payer,
        "amount": new.amount,
        "document": json.dumps(new.document),
        "requirements": json.dumps(new.requirements),
    }


def _begin_attempt(db: Connection, action_id: int, lease: float, now: float) -> Action | None:
    free = and_(
        actions.c.id == action_id,
        actions.c.state == "pending",
        or_(actions.c.lease_until.is_(None), actions.c.lease_until <= now),
    )
    before = _find(db, free, lock=True)
    if before is None:
        return None
    taken = db.execute(
        update(actions)
        .where(free)
        .values(attempts=actions.c.attempts + 1, lease_until=now + lease, in_doubt=True)
    )
    if not taken.rowcount:
        return None
    return replace(_require(db, action_id), in_doubt=before.in_doubt)


def _same_attempt(action: Action) -> Any:
    """Still open, and no later attempt has begun."""
    return and_(actions.c.state == "pending", actions.c.attempts == action.attempts)


def _lock_channel(db: Connection, channel_id: str) -> RowMapping | None:
    query = select(channels).where(channels.c.channel_id == channel_id).with_for_update()
    return db.execute(query).mappings().first()


def _find(db: Connection, where: Any, *, lock: bool = False) -> Action | None:
    query = select(actions).where(where).order_by(actions.c.id).limit(1)
    row = db.execute(query.with_for_update() if lock else query).mappings().first()
    return _action(row) if row is not None else None


def _require(db: Connection, action_id: int) -> Action:
    found = _find(db, actions.c.id == action_id)
    if found is None:
        raise AssertionError("an action that was just written is not to be found")
    return found


def _require_identity(db: Connection, identity: str) -> Action:
    found = _find(db, actions.c.identity == identity, lock=True)
    if found is None:
        raise AssertionError("an action that is in the ledger is not to be found there")
    return found


def _action(row: RowMapping) -> Action:
    return Action(
        kind=row["kind"],
        network=row["network"],
        asset=row["asset"],
        pay_to=row["pay_to"],
        identity=row["identity"],
        amount=row["amount"],
        document=json.loads(row["document"]),
        requirements=json.loads(row["requirements"]),
        payer=row["payer"],
        channel_id=row["channel_id"],
        id=row["id"],
        state=row["state"],
        in_doubt=row["in_doubt"],
        tx_hash=row["tx_hash"],
        error=row["error"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
    )

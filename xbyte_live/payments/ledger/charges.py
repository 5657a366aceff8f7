"""Adapter: the SQL of charges by ``exact``: reserved once, then settled, failed or owed."""

import json
import secrets as random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Table,
    and_,
    case,
    delete,
    func,
    not_,
    or_,
    select,
    true,
    union,
    update,
)

from xbyte_live.payments.ledger.charge import (
    DEBTS,
    Charge,
    Debt,
    Exposure,
    NewCharge,
    Reservation,
    Totals,
    is_debt,
)
from xbyte_live.storage.db.dialect import insert_into, lock_name
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels, charges, deliveries, draws, secrets, sessions


class ChargeLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def reserve(
        self,
        new: NewCharge,
        *,
        exposure: Exposure | None,
        patience: float,
        refuse_debtors: bool = False,
    ) -> Reservation:
        """Charge this authorization for this delivery, unless it was charged before (rule 3).

        With ``exposure`` the charge is ``queued`` and its bytes may leave at once, if what this
        payer has not settled yet stays within its cap; else it is ``pending``, and due for
        clearing up if it still is so after ``patience`` seconds. With ``refuse_debtors`` a payer
        that owes anything is not charged at all.
        """
        return await self._database.write(
            lambda db: _reserve(db, new, exposure, patience, refuse_debtors, self._clock())
        )

    async def find(self, network: str, asset: str, payer: str, nonce: str) -> Charge | None:
        """The charge of an authorization, by its identity on chain."""
        return await self._database.read(
            lambda db: _find(db, _identity(network, asset, payer, nonce))
        )

    async def get(self, charge_id: int) -> Charge | None:
        """The charge of that number."""
        return await self._database.read(lambda db: _find(db, charges.c.id == charge_id))

    async def begin_attempt(self, charge_id: int, *, lease: float) -> Charge | None:
        """Take the right to settle a charge for ``lease`` seconds; ``None`` if it is taken.

        The row is in doubt from here until the attempt's end is recorded, so that a crash
        leaves it so; the returned ``in_doubt`` is what it was before. A failed charge is taken
        up again.
        """
        return await self._database.write(
            lambda db: _begin_attempt(db, charge_id, lease, self._clock())
        )

    async def settle(self, charge: Charge, tx_hash: str) -> Charge:
        """Record that the money moved, in which transaction; true whatever was believed before.

        A charge for a debt makes good, in the same transaction, what the debtor owed its payee,
        whoever paid: the oldest first, and no more than was paid.
        """
        values = {"state": "settled", "tx_hash": tx_hash, "settled_at": self._clock()}
        not_settled = charges.c.state != "settled"
        return await self._finish(
            charge,
            not_settled,
            {**values, "error": None, "in_doubt": False},
            _make_good if is_debt(charge.resource) else None,
        )

    async def serve(self, charge: Charge) -> Charge:
        """Record that the bytes are handed over now, if they never were; the window starts here."""
        never = charges.c.served_at.is_(None)
        return await self._finish(charge, never, {"served_at": self._clock()}, keep_lease=True)

    async def fail(self, charge: Charge, error: str) -> Charge:
        """Record that the money did not move and no transaction is on its way."""
        values = {"state": "failed", "error": error[:128], "in_doubt": False}
        return await self._finish(charge, _same_attempt(charge), values)

    async def postpone(self, charge: Charge, error: str, *, delay: float, in_doubt: bool) -> Charge:
        """Record that a charge is still open; it is due again in ``delay`` seconds."""
        values = {
            "error": error[:128],
            "next_attempt_at": self._clock() + delay,
            "in_doubt": in_doubt,
        }
        return await self._finish(charge, _same_attempt(charge), values)

    async def due(self, limit: int) -> list[Charge]:
        """Charges whose settlement should be tried now, the oldest first."""
        now = self._clock()
        query = (
            select(charges)
            .where(
                charges.c.state.in_(("queued", "pending")),
                or_(charges.c.next_attempt_at.is_(None), charges.c.next_attempt_at <= now),
                or_(charges.c.lease_until.is_(None), charges.c.lease_until <= now),
            )
            .order_by(charges.c.id)
            .limit(limit)
        )
        return await self._database.read(
            lambda db: [_charge(row) for row in db.execute(query).mappings()]
        )

    async def open_totals(self) -> list[Totals]:
        """Count and sum of the charges that are not settled yet, by state; quick at any size."""
        return await self._totals(charges.c.state.in_(("pending", "queued")))

    async def queued(self) -> int:
        """Charges whose bytes may have left and whose settlement is still to come."""
        query = select(func.count()).where(charges.c.state == "queued")
        return await self._database.read(lambda db: int(db.execute(query).scalar_one()))

    async def debts(self, payer: str) -> list[Debt]:
        """What this payer owes to each payee, the oldest debt first."""
        query = (
            select(charges.c.pay_to, func.sum(charges.c.amount))
            .where(_owed_by(payer))
            .group_by(charges.c.pay_to)
            .order_by(func.min(charges.c.id))
        )
        return await self._database.read(
            lambda db: [Debt(pay_to, int(amount)) for pay_to, amount in db.execute(query)]
        )

    async def totals(self) -> list[Totals]:
        """Count and sum of the charges of each state."""
        return await self._totals(true())

    async def _totals(self, where: Any) -> list[Totals]:
        columns = (charges.c.state, func.count(), func.coalesce(func.sum(charges.c.amount), 0))
        query = select(*columns).where(where).group_by(charges.c.state)
        return await self._database.read(
            lambda db: [Totals(state, n, int(amount)) for state, n, amount in db.execute(query)]
        )

    async def payers(self, slug: str, *, since: float) -> int:
        """How many different payers paid for an item since then, by whatever scheme."""
        ways = union(
            select(charges.c.payer).where(
                charges.c.slug == slug, charges.c.created_at > since, charges.c.state != "failed"
            ),
            select(channels.c.payer)
            .join(deliveries, deliveries.c.channel == channels.c.id)
            .where(deliveries.c.slug == slug, deliveries.c.created_at > since),
            select(sessions.c.payer)
            .join(draws, draws.c.session_id == sessions.c.id)
            .where(sessions.c.slug == slug, draws.c.created_at > since),
        ).subquery()
        query = select(func.count()).select_from(ways)
        return await self._database.read(lambda db: int(db.execute(query).scalar_one()))

    async def forget_refused(self, *, age: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` charges older than ``age`` seconds that came to nothing.

        No byte left for them and no money moved, so they are only room that anybody with a key
        and no money can take up. Returns how many there were.
        """
        came_to_nothing = select(charges.c.id).where(
            charges.c.state == "failed",
            charges.c.delivered.is_(False),
            charges.c.in_doubt.is_(False),
            charges.c.created_at < self._clock() - age,
        )
        statement = delete(charges).where(charges.c.id.in_(came_to_nothing.limit(limit)))
        return await self._database.write(lambda db: db.execute(statement).rowcount)

    async def secret(self, name: str) -> bytes:
        """32 random bytes kept under a name, made by whoever asks first."""
        return await self._database.write(lambda db: _secret(db, name))

    async def _finish(
        self,
        charge: Charge,
        where: Any,
        values: dict[str, Any],
        also: Callable[[Connection, Charge], None] | None = None,
        *,
        keep_lease: bool = False,
    ) -> Charge:
        if not keep_lease:
            values = {**values, "lease_until": None}
        statement = update(charges).where(charges.c.id == charge.id, where).values(values)

        def work(db: Connection) -> Charge:
            changed = db.execute(statement).rowcount
            if changed and also is not None:
                also(db, charge)
            return _require(db, charge.id)

        return await self._database.write(work)


def _reserve(
    db: Connection,
    new: NewCharge,
    exposure: Exposure | None,
    patience: float,
    refuse_debtors: bool,
    now: float,
) -> Reservation:
    identity = _identity(new.network, new.asset, new.payer, new.nonce)
    if exposure is not None:  # one payer on several nodes
        lock_name(db, new.payer)
    if refuse_debtors and (owed := _debt(db, new.payer)):
        return Reservation(_find(db, identity), owed=owed)
    optimistic = exposure is not None and _fits(db, new, exposure)
    made = _insert_new(
        db,
        charges,
        {
            **_columns(new),
            "state": "queued" if optimistic else "pending",
            "delivered": optimistic,
            "in_doubt": False,
            "created_at": now,
            "served_at": now if optimistic else None,
            "next_attempt_at": None if optimistic else now + patience,
        },
    )
    if made is not None:
        return Reservation(_charge(made), created=True)
    found = _find(db, identity)
    if found is None:
        raise AssertionError("a charge that is in the ledger is not to be found there")
    return Reservation(found)


def _fits(db: Connection, new: NewCharge, exposure: Exposure) -> bool:
    """Whether a payer has little enough open to get bytes before the chain knows."""
    of_payer = charges.c.payer == new.payer
    is_open = and_(charges.c.state.in_(("queued", "pending")), charges.c.delivered)
    open_amount = db.execute(
        select(func.coalesce(func.sum(charges.c.amount), 0)).where(of_payer, is_open)
    ).scalar_one()
    settled_before = db.execute(
        select(charges.c.id).where(of_payer, charges.c.state == "settled").limit(1)
    ).first()
    cap = exposure.cap if settled_before else exposure.new_payer_cap
    return int(open_amount) + new.amount <= cap


def _begin_attempt(db: Connection, charge_id: int, lease: float, now: float) -> Charge | None:
    free = and_(
        charges.c.id == charge_id,
        charges.c.state != "settled",
        not_(and_(charges.c.state == "failed", charges.c.delivered)),  # a debt is paid as such
        or_(charges.c.lease_until.is_(None), charges.c.lease_until <= now),
    )
    before = _find(db, free, lock=True)
    taken = db.execute(
        update(charges)
        .where(free)
        .values(
            attempts=charges.c.attempts + 1,
            lease_until=now + lease,
            in_doubt=True,
            state=case((charges.c.state == "failed", "pending"), else_=charges.c.state),
        )
    )
    if before is None or not taken.rowcount:
        return None
    return replace(_require(db, charge_id), in_doubt=before.in_doubt)


def _same_attempt(charge: Charge) -> Any:
    """Still open, and no later attempt has begun."""
    return and_(charges.c.state.in_(("pending", "queued")), charges.c.attempts == charge.attempts)


def _debt(db: Connection, payer: str) -> int:
    query = select(func.coalesce(func.sum(charges.c.amount), 0)).where(_owed_by(payer))
    return int(db.execute(query).scalar_one())


def _owed_by(payer: str) -> Any:
    return and_(
        charges.c.payer == payer,
        charges.c.state == "failed",
        charges.c.delivered,
        charges.c.made_good_by.is_(None),
    )


def _make_good(db: Connection, paid: Charge) -> None:
    debtor = paid.resource.removeprefix(DEBTS).partition("/")[0]
    owed = and_(_owed_by(debtor), charges.c.pay_to == paid.pay_to, charges.c.id < paid.id)
    left, covered = paid.amount, []
    for charge_id, amount in db.execute(
        select(charges.c.id, charges.c.amount).where(owed).order_by(charges.c.id)
    ):
        if amount <= left:  # one that failed since the debt was quoted may not fit
            left -= amount
            covered.append(charge_id)
    db.execute(update(charges).where(charges.c.id.in_(covered)).values(made_good_by=paid.id))


def _identity(network: str, asset: str, payer: str, nonce: str) -> Any:
    return and_(
        charges.c.network == network,
        charges.c.asset == asset,
        charges.c.payer == payer,
        charges.c.nonce == nonce,
    )


def _find(db: Connection, where: Any, *, lock: bool = False) -> Charge | None:
    query = select(charges).where(where)
    row = db.execute(query.with_for_update() if lock else query).mappings().first()
    return _charge(row) if row is not None else None


def _require(db: Connection, charge_id: int) -> Charge:
    found = _find(db, charges.c.id == charge_id)
    if found is None:
        raise AssertionError(f"charge {charge_id} vanished from the ledger")
    return found


def _secret(db: Connection, name: str) -> bytes:
    _insert_new(db, secrets, {"name": name, "value": random.token_bytes(32)})
    return bytes(db.execute(select(secrets.c.value).where(secrets.c.name == name)).scalar_one())


def _insert_new(db: Connection, table: Table, values: dict[str, Any]) -> RowMapping | None:
    """Insert a row unless its key is taken; the row if this call inserted it."""
    statement = insert_into(db, table).values(values).on_conflict_do_nothing().returning(table)
    return db.execute(statement).mappings().first()


def _columns(new: NewCharge) -> dict[str, Any]:
    return {
        "scheme": new.scheme,
        "network": new.network,
        "asset": new.asset,
        "payer": new.payer,
        "nonce": new.nonce,
        "pay_to": new.pay_to,
        "amount": new.amount,
        "slug": new.slug,
        "resource": new.resource,
        "size": new.size,
        "valid_before": new.valid_before,
        "payload": json.dumps(new.document, separators=(",", ":")),
        "requirements": json.dumps(new.requirements, separators=(",", ":")),
    }


def _charge(row: RowMapping) -> Charge:
    return Charge(
        scheme=row["scheme"],
        network=row["network"],
        asset=row["asset"],
        payer=row["payer"],
        nonce=row["nonce"],
        pay_to=row["pay_to"],
        amount=row["amount"],
        slug=row["slug"],
        resource=row["resource"],
        size=row["size"],
        valid_before=row["valid_before"],
        document=json.loads(row["payload"]),
        requirements=json.loads(row["requirements"]),
        id=row["id"],
        state=row["state"],
        delivered=row["delivered"],
        tx_hash=row["tx_hash"],
        error=row["error"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        served_at=row["served_at"],
        made_good_by=row["made_good_by"],
        attempts=row["attempts"],
        in_doubt=row["in_doubt"],
    )

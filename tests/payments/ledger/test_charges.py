"""One contract for the ledger on SQLite and PostgreSQL: every step durable, every charge once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import IntegrityError

from tests.support import ledger_children as children
from tests.support.ledger_children import NOW, PAYEE, PAYER, a_charge
from tests.support.paying import Clock
from xbyte_live.payments.ledger.charge import (
    Charge,
    Debt,
    Exposure,
    Reservation,
    Totals,
    debt_resource,
    is_debt,
)
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.storage.db.engine import Database

LEASE = 60.0
TX = "0x" + "ab" * 32
OTHER_PAYER = "0x" + "ef" * 20
OTHER_PAYEE = "0x" + "12" * 20
LIMIT = Exposure(cap=1000, new_payer_cap=300)

T = TypeVar("T")


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def ledger(database: Database, clock: Clock) -> ChargeLedger:
    return ChargeLedger(database, clock=clock)


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Database]:
    """A running database."""
    database = Database(url)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


async def pending(ledger: ChargeLedger, number: int = 1, **changes: Any) -> Charge:
    """A payment that was reserved and waits for its settlement."""
    reserved = await ledger.reserve(a_charge(number, **changes), exposure=None, patience=LEASE)
    assert reserved.created and reserved.charge is not None
    return reserved.charge


async def queued(
    ledger: ChargeLedger, number: int = 1, exposure: Exposure = LIMIT, **changes: Any
) -> Charge:
    """A payment whose bytes have left and whose settlement is queued."""
    reserved = await ledger.reserve(a_charge(number, **changes), exposure=exposure, patience=LEASE)
    assert reserved.created and reserved.charge is not None
    assert reserved.charge.state == "queued"
    return reserved.charge


async def attempt(ledger: ChargeLedger, charge: Charge) -> Charge:
    """The charge with an attempt begun."""
    begun = await ledger.begin_attempt(charge.id, lease=LEASE)
    assert begun is not None
    return begun


async def failed(ledger: ChargeLedger, number: int, **changes: Any) -> Charge:
    """A payment whose bytes have left and whose settlement has failed."""
    charge = await queued(ledger, number, Exposure(10**9, 10**9), **changes)
    return await ledger.fail(await attempt(ledger, charge), "insufficient_funds")


async def now_of(ledger: ChargeLedger, charge: Charge) -> Charge:
    found = await ledger.get(charge.id)
    assert found is not None
    return found


# Reserve


async def test_a_charge_is_kept_as_it_was_made(ledger: ChargeLedger) -> None:
    new = a_charge(1)
    charge = await pending(ledger)
    assert all(getattr(charge, name) == getattr(new, name) for name in new.__slots__)
    assert (charge.state, charge.delivered, charge.in_doubt) == ("pending", False, False)
    assert (charge.tx_hash, charge.error, charge.settled_at) == (None, None, None)
    assert (charge.created_at, charge.attempts) == (NOW, 0)
    assert await ledger.get(charge.id) == charge
    assert await ledger.find(new.network, new.asset, new.payer, new.nonce) == charge


async def test_the_second_reservation_finds_the_first(ledger: ChargeLedger) -> None:
    first = await pending(ledger)
    other = a_charge(1, resource="/other", amount=7, document={"other": True})
    again = await ledger.reserve(other, exposure=None, patience=LEASE)
    assert again == Reservation(first, created=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "0x" + "99" * 32},
        {"payer": OTHER_PAYER},
        {"asset": "0x" + "77" * 20},
        {"network": "eip155:1"},
    ],
)
async def test_any_other_identity_is_another_charge(
    ledger: ChargeLedger, changes: dict[str, str]
) -> None:
    first = await pending(ledger)
    second = await pending(ledger, 1, **changes)
    assert first.id < second.id
    assert await now_of(ledger, first) == first


async def test_what_was_never_charged_is_not_found(ledger: ChargeLedger) -> None:
    new = a_charge(1)
    assert await ledger.find(new.network, new.asset, new.payer, new.nonce) is None
    assert await ledger.get(1) is None
    assert await ledger.begin_attempt(1, lease=LEASE) is None


@pytest.mark.parametrize("exposure", [None, Exposure(10**6, 10**6)])
async def test_200_parallel_reservations_make_one_charge(
    ledger: ChargeLedger, exposure: Exposure | None
) -> None:
    reserved = await asyncio.gather(
        *(ledger.reserve(a_charge(1), exposure=exposure, patience=LEASE) for _ in range(200))
    )
    assert sum(reservation.created for reservation in reserved) == 1
    assert len({reservation.charge.id for reservation in reserved if reservation.charge}) == 1
    assert [total.count for total in await ledger.totals()] == [1]


async def test_several_processes_make_each_charge_once(
    database: Database, database_url: str
) -> None:
    made = await children.all_at_once(children.reserve_all, 3, database_url, "120")
    assert sorted(int(number) for said in made for number in said) == list(range(1, 121))


async def test_nothing_can_be_sold_for_nothing(ledger: ChargeLedger) -> None:
    for amount in (0, -1):
        with pytest.raises(IntegrityError):
            await ledger.reserve(a_charge(1, amount=amount), exposure=None, patience=LEASE)
    assert await ledger.totals() == []


async def test_the_largest_amount_is_kept_exactly(ledger: ChargeLedger) -> None:
    charge = await pending(ledger, 1, amount=2**63 - 1, size=2**53 + 1, valid_before=2**53)
    found = await now_of(ledger, charge)
    assert (found.amount, found.size, found.valid_before) == (2**63 - 1, 2**53 + 1, 2**53)


# Exposure


async def test_bytes_may_leave_within_the_cap_and_wait_beyond_it(ledger: ChargeLedger) -> None:
    states = []
    for number in range(1, 6):
        reserved = await ledger.reserve(a_charge(number), exposure=LIMIT, patience=LEASE)
        assert reserved.charge is not None
        states.append((reserved.charge.state, reserved.charge.delivered))
    assert states == [("queued", True)] * 3 + [("pending", False)] * 2


async def test_the_cap_is_what_is_open_together_to_the_last_unit(ledger: ChargeLedger) -> None:
    await queued(ledger, 1, amount=299)
    await queued(ledger, 2, amount=1)
    third = await ledger.reserve(a_charge(3, amount=1), exposure=LIMIT, patience=LEASE)
    assert third.charge is not None and third.charge.state == "pending"


async def test_a_payer_one_of_whose_payments_settled_has_the_larger_cap(
    ledger: ChargeLedger,
) -> None:
    await ledger.settle(await pending(ledger, 1, amount=1), TX)
    for number in range(2, 12):
        await queued(ledger, number)
    beyond = await ledger.reserve(a_charge(12), exposure=LIMIT, patience=LEASE)
    assert beyond.charge is not None and beyond.charge.state == "pending"


async def test_the_cap_is_free_again_once_a_payment_settled(ledger: ChargeLedger) -> None:
    first = await queued(ledger, 1, amount=300)
    await ledger.settle(first, TX)
    await queued(ledger, 2, amount=1000)


async def test_what_waits_for_the_chain_is_no_exposure(ledger: ChargeLedger) -> None:
    for number in range(1, 6):
        await pending(ledger, number)
    await queued(ledger, 6)


async def test_a_failed_delivery_is_a_debt_and_never_tried_again(ledger: ChargeLedger) -> None:
    charge = await failed(ledger, 1)
    assert charge.is_owed and not charge.came_to_nothing
    assert await ledger.begin_attempt(charge.id, lease=LEASE) is None


async def test_each_payer_has_a_cap_of_its_own(ledger: ChargeLedger) -> None:
    await queued(ledger, 1, amount=300)
    await queued(ledger, 1, amount=300, payer=OTHER_PAYER)


async def test_parallel_requests_of_one_payer_stay_within_the_cap(ledger: ChargeLedger) -> None:
    reserved = await asyncio.gather(
        *(
            ledger.reserve(a_charge(number), exposure=LIMIT, patience=LEASE)
            for number in range(1, 201)
        )
    )
    delivered = [r.charge for r in reserved if r.charge and r.charge.delivered]
    assert sum(charge.amount for charge in delivered) == 300
    assert sum(r.created for r in reserved) == 200


async def test_a_payer_at_several_processes_stays_within_the_cap(
    database: Database, database_url: str
) -> None:
    works = [
        await children.spawn(children.owe_all, database_url, "60", "2500", str(first))
        for first in (1, 1001, 2001)
    ]
    for work in works:
        work.go()
    said = await asyncio.gather(*(work.rest() for work in works))
    assert sum(int(amount) for amounts in said for amount in amounts) == 2500


# Debts


async def test_a_payer_that_owes_is_refused_and_told_what(ledger: ChargeLedger) -> None:
    await failed(ledger, 1, amount=40)
    await failed(ledger, 2, amount=60, payer=OTHER_PAYER)
    refused = await ledger.reserve(a_charge(3), exposure=LIMIT, patience=LEASE, refuse_debtors=True)
    assert refused == Reservation(None, owed=40)
    new = a_charge(3)
    assert await ledger.find(new.network, new.asset, new.payer, new.nonce) is None


async def test_a_payer_that_owes_still_finds_what_it_paid_for(ledger: ChargeLedger) -> None:
    paid = await ledger.settle(await pending(ledger, 1), TX)
    await failed(ledger, 2)
    again = await ledger.reserve(a_charge(1), exposure=LIMIT, patience=LEASE, refuse_debtors=True)
    assert again == Reservation(paid, owed=100)


async def test_a_payer_that_owes_may_buy_what_is_settled_first(ledger: ChargeLedger) -> None:
    await failed(ledger, 1)
    assert (await pending(ledger, 2)).state == "pending"


async def test_only_bytes_that_left_unpaid_are_owed(ledger: ChargeLedger) -> None:
    await ledger.fail(await attempt(ledger, await pending(ledger, 1)), "insufficient_funds")
    await queued(ledger, 2)
    await ledger.settle(await queued(ledger, 3), TX)
    assert await ledger.debts(PAYER) == []


async def test_debts_are_told_by_payee_the_oldest_first(ledger: ChargeLedger) -> None:
    await owing(ledger, (5, OTHER_PAYEE), (7, PAYEE), (11, OTHER_PAYEE))
    assert await ledger.debts(PAYER) == [Debt(OTHER_PAYEE, 16), Debt(PAYEE, 7)]


async def owing(ledger: ChargeLedger, *amounts: int | tuple[int, str]) -> list[Charge]:
    """Several failed deliveries of one payer, which owed nothing when each was made."""
    made = []
    for number, owed in enumerate(amounts, start=1):
        amount, pay_to = owed if isinstance(owed, tuple) else (owed, PAYEE)
        made.append(
            await queued(ledger, number, Exposure(10**9, 10**9), amount=amount, pay_to=pay_to)
        )
    return [await ledger.fail(await attempt(ledger, charge), "x") for charge in made]


async def pay_debt(ledger: ChargeLedger, amount: int, number: int = 90, **changes: Any) -> Charge:
    """Settle a charge that pays a debt."""
    resource = debt_resource(PAYER, PAYEE)
    return await ledger.settle(
        await pending(ledger, number, amount=amount, resource=resource, **changes), TX
    )


async def test_a_debt_paid_in_full_is_made_good(ledger: ChargeLedger) -> None:
    await owing(ledger, 5, 7, 11)
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 23)]
    await pay_debt(ledger, 23)
    assert await ledger.debts(PAYER) == []
    await queued(ledger, 50)


async def test_no_more_is_made_good_than_was_paid(ledger: ChargeLedger) -> None:
    """A delivery that fails while its payer's debt is being paid is not forgiven with it."""
    await owing(ledger, 5, 7, 11)
    await pay_debt(ledger, 12)
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 11)]
    await pay_debt(ledger, 10, number=91)
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 11)]
    await pay_debt(ledger, 11, number=92)
    assert await ledger.debts(PAYER) == []


async def test_a_debt_that_is_settled_twice_makes_good_once(ledger: ChargeLedger) -> None:
    await owing(ledger, 5, 5)
    paid = await pay_debt(ledger, 5)
    await ledger.settle(paid, TX)
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 5)]


async def test_a_debt_to_one_payee_is_not_paid_to_another(ledger: ChargeLedger) -> None:
    await owing(ledger, (5, OTHER_PAYEE))
    await pay_debt(ledger, 5)
    assert await ledger.debts(PAYER) == [Debt(OTHER_PAYEE, 5)]


async def test_a_debt_is_not_made_good_by_paying_for_something_else(ledger: ChargeLedger) -> None:
    await owing(ledger, 5)
    await ledger.settle(await pending(ledger, 2, amount=5), TX)
    other = debt_resource(OTHER_PAYER, PAYEE)
    await ledger.settle(await pending(ledger, 3, amount=5, resource=other), TX)
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 5)]


async def test_anybody_may_pay_a_debt(ledger: ChargeLedger) -> None:
    await owing(ledger, 5)
    await pay_debt(ledger, 5, payer=OTHER_PAYER)
    assert await ledger.debts(PAYER) == []


async def test_an_unsettled_payment_of_a_debt_makes_nothing_good(ledger: ChargeLedger) -> None:
    await owing(ledger, 5)
    charge = await pending(ledger, 90, amount=5, resource=debt_resource(PAYER, PAYEE))
    charge = await attempt(ledger, charge)
    await ledger.fail(charge, "x")
    assert await ledger.debts(PAYER) == [Debt(PAYEE, 5)]


async def test_a_delivery_that_settles_after_all_is_owed_no_more(ledger: ChargeLedger) -> None:
    (charge,) = await owing(ledger, 5)
    await ledger.settle(charge, TX)
    assert await ledger.debts(PAYER) == []


def test_a_debt_is_a_resource_of_its_own() -> None:
    resource = debt_resource(PAYER, PAYEE.upper())
    assert resource == debt_resource(PAYER, PAYEE)
    assert is_debt(resource)
    assert not is_debt("/hls/debts/source/0.ts")
    assert debt_resource(PAYER, PAYEE) != debt_resource(PAYER, OTHER_PAYEE)


# Attempts


async def test_an_attempt_is_taken_once_until_its_lease_is_over(
    ledger: ChargeLedger, clock: Clock
) -> None:
    charge = await pending(ledger)
    begun = await attempt(ledger, charge)
    assert (begun.attempts, begun.in_doubt) == (1, False)
    clock.now += LEASE - 0.001
    assert await ledger.begin_attempt(charge.id, lease=LEASE) is None
    clock.now += 0.001
    assert (await attempt(ledger, charge)).attempts == 2


async def test_200_parallel_attempts_take_one(ledger: ChargeLedger) -> None:
    charge = await pending(ledger)
    begun = await asyncio.gather(
        *(ledger.begin_attempt(charge.id, lease=LEASE) for _ in range(200))
    )
    assert [found.attempts for found in begun if found] == [1]


async def test_several_processes_take_each_attempt_once(
    ledger: ChargeLedger, database_url: str
) -> None:
    for number in range(1, 81):
        await pending(ledger, number)
    taken = await children.all_at_once(children.attempt_all, 3, database_url, "80")
    assert sorted(int(number) for said in taken for number in said) == list(range(1, 81))


async def test_an_attempt_that_never_ended_leaves_doubt(ledger: ChargeLedger, clock: Clock) -> None:
    charge = await pending(ledger)
    await attempt(ledger, charge)
    assert (await now_of(ledger, charge)).in_doubt
    clock.now += LEASE
    assert (await attempt(ledger, charge)).in_doubt


async def test_a_crash_during_an_attempt_leaves_doubt_and_the_charge_due(
    ledger: ChargeLedger, clock: Clock, database_url: str
) -> None:
    charge = await queued(ledger)
    child = await children.spawn(children.attempt_and_hang, database_url, str(charge.id))
    child.go()
    assert await child.line() == "begun"
    await child.kill()
    assert (await now_of(ledger, charge)).in_doubt
    clock.now += LEASE
    assert [due.id for due in await ledger.due(10)] == [charge.id]
    assert (await attempt(ledger, charge)).in_doubt


async def test_an_attempt_that_ended_without_doubt_leaves_none(ledger: ChargeLedger) -> None:
    begun = await attempt(ledger, await queued(ledger))
    await ledger.postpone(begun, "facilitator_unavailable", delay=0, in_doubt=False)
    assert not (await attempt(ledger, begun)).in_doubt


async def test_doubt_stays_until_the_outcome_is_known(ledger: ChargeLedger) -> None:
    begun = await attempt(ledger, await queued(ledger))
    await ledger.postpone(begun, "outcome_unknown", delay=0, in_doubt=True)
    again = await attempt(ledger, begun)
    assert again.in_doubt
    settled = await ledger.settle(again, TX)
    assert not settled.in_doubt


async def test_doubt_is_read_when_the_attempt_is_taken_not_before(postgres_url: str) -> None:
    """Another node ends its attempt in doubt between our look at the row and our taking it."""
    async with started(postgres_url) as database:
        ledger = ChargeLedger(database)
        charge = await queued(ledger)
        with (
            psycopg.connect(postgres_url) as other,
            psycopg.connect(postgres_url, autocommit=True) as watcher,
        ):
            other.execute("UPDATE charges SET in_doubt = true, attempts = attempts + 1")
            ours = asyncio.create_task(ledger.begin_attempt(charge.id, lease=LEASE))
            while not watcher.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                await asyncio.to_thread(watcher.execute, "SELECT 1")
            other.commit()
            begun = await ours
        assert begun is not None
        assert (begun.in_doubt, begun.attempts) == (True, 2)


async def test_a_failed_charge_is_taken_up_again_as_pending(ledger: ChargeLedger) -> None:
    first = await attempt(ledger, await pending(ledger))
    assert (await ledger.fail(first, "insufficient_funds")).state == "failed"
    again = await attempt(ledger, first)
    assert (again.state, again.attempts, again.in_doubt) == ("pending", 2, False)


async def test_a_settled_charge_is_never_attempted(ledger: ChargeLedger, clock: Clock) -> None:
    charge = await ledger.settle(await pending(ledger), TX)
    clock.now += 10 * LEASE
    assert await ledger.begin_attempt(charge.id, lease=LEASE) is None


# Outcomes


async def test_a_settled_charge_has_its_transaction_and_time(
    ledger: ChargeLedger, clock: Clock
) -> None:
    begun = await attempt(ledger, await pending(ledger))
    clock.now += 5
    settled = await ledger.settle(begun, TX)
    assert (settled.state, settled.tx_hash, settled.settled_at) == ("settled", TX, NOW + 5)
    served = await ledger.serve(settled)
    clock.now += 9
    assert (await ledger.serve(settled)).served_at == served.served_at == NOW + 5
    assert served == await now_of(ledger, begun)


async def test_what_settled_stays_settled(ledger: ChargeLedger, clock: Clock) -> None:
    begun = await attempt(ledger, await pending(ledger))
    settled = await ledger.settle(begun, TX)
    clock.now += 5
    assert await ledger.settle(begun, "0x" + "cd" * 32) == settled
    assert await ledger.fail(begun, "x") == settled
    assert await ledger.postpone(begun, "x", delay=1, in_doubt=True) == settled


async def test_a_late_answer_of_an_old_attempt_changes_nothing(
    ledger: ChargeLedger, clock: Clock
) -> None:
    old = await attempt(ledger, await pending(ledger))
    clock.now += LEASE
    new = await attempt(ledger, old)
    before = await now_of(ledger, new)
    assert await ledger.fail(old, "x") == before
    assert await ledger.postpone(old, "x", delay=0, in_doubt=False) == before
    assert await ledger.begin_attempt(old.id, lease=LEASE) is None  # the lease is the new one's


async def test_money_that_moved_is_believed_from_an_old_attempt_too(
    ledger: ChargeLedger, clock: Clock
) -> None:
    old = await attempt(ledger, await pending(ledger))
    clock.now += LEASE
    await ledger.fail(await attempt(ledger, old), "x")
    assert (await ledger.settle(old, TX)).state == "settled"


async def test_a_failure_has_its_reason_cut_to_what_fits(ledger: ChargeLedger) -> None:
    begun = await attempt(ledger, await pending(ledger))
    found = await ledger.fail(begun, "é" * 1000)
    assert (found.state, found.error) == ("failed", "é" * 128)


async def test_a_queued_charge_stays_queued_while_it_is_postponed(ledger: ChargeLedger) -> None:
    begun = await attempt(ledger, await queued(ledger))
    found = await ledger.postpone(begun, "outcome_unknown", delay=1, in_doubt=True)
    assert (found.state, found.delivered, found.error) == ("queued", True, "outcome_unknown")


# Due


async def due_numbers(ledger: ChargeLedger, limit: int = 100) -> list[int]:
    return [int(charge.nonce, 16) for charge in await ledger.due(limit)]


async def test_what_is_queued_is_due_at_once_the_oldest_first(ledger: ChargeLedger) -> None:
    for number in (3, 1, 2):
        await queued(ledger, number)
    assert await due_numbers(ledger) == [3, 1, 2]
    assert await due_numbers(ledger, limit=2) == [3, 1]
    assert await ledger.queued() == 3


async def test_what_is_pending_is_due_when_patience_ends(
    ledger: ChargeLedger, clock: Clock
) -> None:
    await pending(ledger)
    clock.now += LEASE - 0.001
    assert await due_numbers(ledger) == []
    clock.now += 0.001
    assert await due_numbers(ledger) == [1]
    assert await ledger.queued() == 0


async def test_what_is_attempted_is_due_when_its_lease_ends(
    ledger: ChargeLedger, clock: Clock
) -> None:
    await attempt(ledger, await queued(ledger))
    assert await due_numbers(ledger) == []
    clock.now += LEASE
    assert await due_numbers(ledger) == [1]


async def test_what_is_postponed_is_due_after_its_delay(ledger: ChargeLedger, clock: Clock) -> None:
    begun = await attempt(ledger, await queued(ledger))
    await ledger.postpone(begun, "x", delay=7, in_doubt=True)
    clock.now += 6.999
    assert await due_numbers(ledger) == []
    clock.now += 0.001
    assert await due_numbers(ledger) == [1]


async def test_what_is_settled_or_failed_is_never_due(ledger: ChargeLedger, clock: Clock) -> None:
    await ledger.settle(await queued(ledger, 1), TX)
    await ledger.fail(await attempt(ledger, await queued(ledger, 2)), "x")
    clock.now += 10**6
    assert await due_numbers(ledger) == []
    assert await ledger.queued() == 0


async def test_totals_are_counted_by_state(ledger: ChargeLedger) -> None:
    assert await ledger.totals() == []
    await pending(ledger, 1, amount=1)
    await queued(ledger, 2, amount=20)
    await queued(ledger, 3, amount=30)
    await ledger.settle(await pending(ledger, 4, amount=400), TX)
    totals = sorted(await ledger.totals(), key=lambda total: total.state)
    assert totals == [Totals("pending", 1, 1), Totals("queued", 2, 50), Totals("settled", 1, 400)]
    assert all(type(total.amount) is int for total in totals)


# Durability


async def test_every_charge_a_killed_process_had_told_of_is_there(
    ledger: ChargeLedger, database_url: str
) -> None:
    """``kill -9`` between the charge and the delivery: what may have been delivered is known."""
    told: set[int] = set()
    for round_ in range(3):
        first = round_ * 10**6 + 1
        child = await children.spawn(children.reserve_until_killed, database_url, str(first))
        child.go()
        lines = [await child.line() for _ in range(20 + 30 * round_)]
        told |= {int(line) for line in [*lines, *await child.kill()]}
    there = {int(charge.nonce, 16) for charge in await ledger.due(10**6)}
    assert told <= there
    assert len(there - told) <= 3 * 8  # made, and killed before it was told
    assert all(charge.state == "queued" and charge.delivered for charge in await ledger.due(10**6))


async def test_a_charge_is_there_after_a_restart(database_url: str, clock: Clock) -> None:
    async with started(database_url) as database:
        ledger = ChargeLedger(database, clock=clock)
        charge = await attempt(ledger, await queued(ledger))
    async with started(database_url) as database:
        assert await ChargeLedger(database).get(charge.id) == replace(charge, in_doubt=True)


# What is forgotten


async def test_only_what_came_to_nothing_is_forgotten(ledger: ChargeLedger, clock: Clock) -> None:
    refused = await ledger.fail(await attempt(ledger, await pending(ledger, 1)), "x")
    kept = [
        await ledger.settle(await pending(ledger, 2), TX),
        await queued(ledger, 3),
        await pending(ledger, 4),
        await failed(ledger, 5, payer=OTHER_PAYER),
    ]
    again = await ledger.fail(await attempt(ledger, await pending(ledger, 6)), "x")
    kept.append(await attempt(ledger, again))  # taken up again
    clock.now += 100
    kept.append(await ledger.fail(await attempt(ledger, await pending(ledger, 7)), "x"))
    assert await ledger.forget_refused(age=100) == 0
    clock.now += 1
    assert await ledger.forget_refused(age=100) == 1
    assert await ledger.get(refused.id) is None
    for charge in kept:
        assert (await now_of(ledger, charge)).state == charge.state
    assert await ledger.forget_refused(age=100) == 0


async def test_what_is_forgotten_at_once_is_bounded(ledger: ChargeLedger, clock: Clock) -> None:
    for number in range(5):
        await ledger.fail(await attempt(ledger, await pending(ledger, number)), "x")
    clock.now += 1
    assert await ledger.forget_refused(age=0, limit=3) == 3
    assert await ledger.forget_refused(age=0, limit=3) == 2


async def test_a_payment_that_was_forgotten_can_be_made_again(
    ledger: ChargeLedger, clock: Clock
) -> None:
    await ledger.fail(await attempt(ledger, await pending(ledger)), "insufficient_funds")
    clock.now += 1
    await ledger.forget_refused(age=0)
    assert (await pending(ledger)).state == "pending"


# Secrets


async def test_a_secret_is_made_once(ledger: ChargeLedger) -> None:
    told = await asyncio.gather(*(ledger.secret("receipts") for _ in range(50)))
    assert len(set(told)) == 1
    assert len(told[0]) == 32
    assert await ledger.secret("other") != told[0]


async def test_several_processes_share_a_secret(ledger: ChargeLedger, database_url: str) -> None:
    told = await children.all_at_once(children.tell_secret, 3, database_url)
    assert {said[0] for said in told} == {(await ledger.secret("receipts")).hex()}


# Any sequence of steps, against a model in memory


@dataclass
class Row:
    """What the ledger should hold of a charge."""

    id: int
    amount: int
    state: str
    delivered: bool
    next_attempt: float | None
    attempts: int = 0
    in_doubt: bool = False
    lease_until: float | None = None
    made_good: bool = False
    pays_debt: bool = False

    @property
    def is_owed(self) -> bool:
        return self.state == "failed" and self.delivered and not self.made_good

    @property
    def is_exposed(self) -> bool:
        return self.state in ("queued", "pending") and self.delivered


class Model(RuleBasedStateMachine):
    """Steps in any order, by callers that may be late, on one payer's charges."""

    seen = Bundle("seen")  # charges as some caller holds them, however old

    def __init__(self, runner: asyncio.Runner, database: Database, payer: str) -> None:
        super().__init__()
        self._runner = runner
        self.clock = Clock(NOW)
        self.ledger = ChargeLedger(database, clock=self.clock)
        self.payer = payer
        self.rows: dict[int, Row] = {}
        self.by_number: dict[int, Row] = {}

    def run_(self, step: Awaitable[T]) -> T:
        async def run() -> T:
            return await step

        return self._runner.run(run())

    @rule(target=seen, number=st.integers(1, 6), amount=st.integers(1, 200), waits=st.booleans())
    def reserve(self, number: int, amount: int, waits: bool) -> Charge | None:
        exposure = None if waits else LIMIT
        new = a_charge(number, payer=self.payer, amount=amount)
        made = self.run_(
            self.ledger.reserve(new, exposure=exposure, patience=LEASE, refuse_debtors=not waits)
        )
        before = self.by_number.get(number)
        owed = sum(row.amount for row in self.rows.values() if row.is_owed)
        if exposure and owed:
            assert (made.owed, made.created) == (owed, False)
            assert (made.charge and made.charge.id) == (before and before.id)
            return made.charge
        assert made.charge is not None
        assert made.created == (before is None)
        if before is None:
            self._add(number, made.charge, fits=bool(exposure) and self._fits(amount))
        return made.charge

    @rule(target=seen, share=st.integers(1, 100))
    def pay_debt(self, share: int) -> Charge | None:
        owed = sum(row.amount for row in self.rows.values() if row.is_owed)
        amount = max(1, owed * share // 100)
        number = 1000 + len(self.rows)
        resource = debt_resource(self.payer, PAYEE)
        new = a_charge(number, payer=self.payer, amount=amount, resource=resource)
        made = self.run_(self.ledger.reserve(new, exposure=None, patience=LEASE))
        assert made.created and made.charge is not None
        self._add(number, made.charge, fits=False)
        self.rows[made.charge.id].pays_debt = True
        return made.charge

    @rule(target=seen, charge=seen, lease=st.sampled_from([1.0, LEASE]))
    def begin_attempt(self, charge: Charge | None, lease: float) -> Charge | None:
        if charge is None:
            return None
        row = self.rows[charge.id]
        begun = self.run_(self.ledger.begin_attempt(charge.id, lease=lease))
        free = row.lease_until is None or row.lease_until <= self.clock.now
        is_debt = row.state == "failed" and row.delivered
        assert (begun is not None) == (free and row.state != "settled" and not is_debt)
        if begun is not None:
            assert begun.in_doubt == row.in_doubt
            row.attempts, row.lease_until, row.in_doubt = (
                row.attempts + 1,
                self.clock.now + lease,
                True,
            )
            row.state = "pending" if row.state == "failed" else row.state
        return begun

    @rule(charge=seen)
    def settle(self, charge: Charge | None) -> None:
        if charge is None:
            return
        row = self.rows[charge.id]
        found = self.run_(self.ledger.settle(charge, TX))
        assert (found.state, found.tx_hash) == ("settled", TX)
        if row.state != "settled":
            row.state, row.in_doubt, row.lease_until = "settled", False, None
            if row.pays_debt:
                self._make_good(row)

    @rule(charge=seen)
    def fail(self, charge: Charge | None) -> None:
        if charge is None:
            return
        row = self.rows[charge.id]
        self.run_(self.ledger.fail(charge, "x"))
        if self._is_current(charge):
            row.state, row.in_doubt, row.lease_until = "failed", False, None

    @rule(charge=seen, delay=st.sampled_from([0.0, 5.0, 300.0]), in_doubt=st.booleans())
    def postpone(self, charge: Charge | None, delay: float, in_doubt: bool) -> None:
        if charge is None:
            return
        row = self.rows[charge.id]
        self.run_(self.ledger.postpone(charge, "x", delay=delay, in_doubt=in_doubt))
        if self._is_current(charge):
            row.next_attempt, row.in_doubt, row.lease_until = (
                self.clock.now + delay,
                in_doubt,
                None,
            )

    @rule(seconds=st.sampled_from([0.5, 30.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        for row in self.rows.values():
            charge = self.run_(self.ledger.get(row.id))
            assert charge is not None
            assert (charge.state, charge.delivered) == (row.state, row.delivered)
            assert (charge.attempts, charge.in_doubt) == (row.attempts, row.in_doubt)
            assert charge.amount == row.amount

    @invariant()
    def what_is_due_is_the_models(self) -> None:
        due = [c.id for c in self.run_(self.ledger.due(10**6)) if c.payer == self.payer]
        assert due == sorted(row.id for row in self.rows.values() if self._is_due(row))

    @invariant()
    def what_is_owed_is_the_models(self) -> None:
        owed = sum(row.amount for row in self.rows.values() if row.is_owed)
        assert sum(debt.amount for debt in self.run_(self.ledger.debts(self.payer))) == owed

    def _add(self, number: int, charge: Charge, *, fits: bool) -> None:
        assert (charge.state, charge.delivered) == (
            ("queued", True) if fits else ("pending", False)
        )
        later = None if fits else self.clock.now + LEASE
        row = Row(charge.id, charge.amount, charge.state, fits, later)
        self.rows[charge.id] = self.by_number[number] = row

    def _fits(self, amount: int) -> bool:
        exposed = sum(row.amount for row in self.rows.values() if row.is_exposed)
        settled = any(row.state == "settled" for row in self.rows.values())
        return exposed + amount <= (LIMIT.cap if settled else LIMIT.new_payer_cap)

    def _make_good(self, paid: Row) -> None:
        left = paid.amount
        for row in sorted(self.rows.values(), key=lambda row: row.id):
            if row.is_owed and row.id < paid.id:
                left -= row.amount
                if left < 0:
                    return
                row.made_good = True

    def _is_current(self, charge: Charge) -> bool:
        row = self.rows[charge.id]
        return row.state in ("pending", "queued") and row.attempts == charge.attempts

    def _is_due(self, row: Row) -> bool:
        waits = row.next_attempt is not None and row.next_attempt > self.clock.now
        leased = row.lease_until is not None and row.lease_until > self.clock.now
        return row.state in ("pending", "queued") and not waits and not leased


def test_any_sequence_of_steps_is_what_the_model_says(database_url: str) -> None:
    runs = iter(range(10**6))
    with asyncio.Runner() as runner:
        database = Database(database_url)
        runner.run(database.start())
        try:
            run_state_machine_as_test(
                lambda: Model(runner, database, f"0x{next(runs):040x}"),
                settings=settings(
                    max_examples=10,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.stop())

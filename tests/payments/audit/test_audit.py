"""The audit: clean when all is well, and every planted breach is found, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.payments.facilitators.test_local import AMOUNT, paid_by, transfer_of
from tests.support.chain import SharedDevnet
from tests.support.channel_parties import House, Payer, a_house
from tests.support.ledger_books import ASSET, DAYS, PAY_TO, Busy, Shop, a_busy_shop
from tests.support.ledger_children import a_charge
from xbyte_live.devnet.chain import DevChain
from xbyte_live.evm.evidence import Evidence, Landed, Logged
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.payments.audit.audit import Auditor
from xbyte_live.payments.audit.findings import KEPT, Findings
from xbyte_live.payments.facilitators.remote import Settled
from xbyte_live.payments.ledger.channel import NewDelivery
from xbyte_live.payments.ledger.charge import Charge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.session import Session
from xbyte_live.storage.db.engine import Database


@pytest.fixture
async def busy(database: Database) -> Busy:
    return await a_busy_shop(database)


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


async def test_an_empty_ledger_is_clean(shop: Shop) -> None:
    outcome = await shop.audit()
    assert outcome.is_clean and not outcome.sums and not outcome.unchecked


async def test_a_busy_ledger_is_clean_and_adds_up(busy: Busy) -> None:
    outcome = await busy.shop.audit()

    assert list(outcome.disagreements) == []
    channels, exact = sorted(outcome.sums, key=lambda s: s.scheme)
    assert (channels.scheme, channels.count) == ("batch-settlement", 3)
    assert channels.charged == (7 + 8 + 9 + 10 + 11) + (30 + 5 + 50 + 300 + 6) + 12
    assert (channels.claimed, channels.settled) == (34 + 30 + 5 + 50 + 60 + 6, 34)
    assert channels.in_flight == 500
    assert (exact.scheme, exact.count, exact.in_flight) == ("exact", 4, 16)
    assert exact.charged == 13 + 15 + 16 + 400


async def test_it_is_clean_without_the_chain(busy: Busy) -> None:
    outcome = await busy.shop.audit(chain=False)
    assert outcome.is_clean and not outcome.chain and not outcome.unchecked


async def test_a_chain_that_is_down_is_said_and_no_disagreement(busy: Busy) -> None:
    busy.shop.chain.is_down = True
    outcome = await busy.shop.audit()
    assert outcome.is_clean
    assert [ASSET.network in reason for reason in outcome.unchecked] == [True]


async def test_a_network_without_a_node_is_said(busy: Busy) -> None:
    await busy.shop.sql("UPDATE charges SET network = 'eip155:1' WHERE state = 'queued'")
    outcome = await busy.shop.audit()
    assert outcome.is_clean
    assert [reason.partition(":")[0] for reason in outcome.unchecked] == ["eip155"]


PLAIN, BUYER, REFUNDING = 1, 2, 3  # the rows of the channels of a busy shop
_LAST = "(SELECT max(id) FROM deliveries WHERE channel = 1)"

BREACHES: dict[str, tuple[str, set[str]]] = {
    "charged too much": (
        "UPDATE channels SET charged = charged + 1, signed = signed + 1 WHERE id = 1",
        {"channel.sum", "channel.voucher", "deliveries.gap"},
    ),
    "charged too little": (
        "UPDATE channels SET charged = charged - 1 WHERE id = 1",
        {"channel.sum", "deliveries.returned"},
    ),
    "another opening": (
        "UPDATE channels SET opening = opening + 1 WHERE id = 1",
        {"channel.sum"},
    ),
    "a delivery that is gone": (
        "DELETE FROM deliveries WHERE channel = 1 AND amount = 10",
        {"channel.sum", "deliveries.gap"},
    ),
    "a delivery that is gone, hidden in the sum": (
        "DELETE FROM deliveries WHERE channel = 1 AND amount = 10;"
        "UPDATE channels SET archived = archived + 10 WHERE id = 1",
        {"deliveries.gap", "earnings.vouchers"},
    ),
    "the last delivery gone": (
        f"DELETE FROM deliveries WHERE id = {_LAST}",
        {"channel.sum", "deliveries.gap"},
    ),
    "a delivery of another amount": (
        "UPDATE deliveries SET amount = amount + 1 WHERE channel = 1 AND amount = 10",
        {"channel.sum", "deliveries.overlap"},
    ),
    "a delivery charged twice": (
        "UPDATE deliveries SET cumulative = cumulative - 1 WHERE channel = 1 AND amount = 10",
        {"deliveries.overlap", "deliveries.gap"},
    ),
    "a delivery in an earlier epoch": (
        "UPDATE deliveries SET amount = amount + 5 WHERE channel = 2 AND epoch = 2",
        {"channel.sum"},
    ),
    "more charged than signed": (
        "UPDATE channels SET signed = charged - 1 WHERE id = 1",
        {"channel.ceiling", "channel.voucher"},
    ),
    "a signature for something else": (
        "UPDATE channels SET signed = signed + 1 WHERE id = 1",
        {"channel.voucher"},
    ),
    "a signature that is none": (
        "UPDATE channels SET signature = '0xzz' WHERE id = 1",
        {"channel.voucher"},
    ),
    "a signature that is gone": (
        "UPDATE channels SET signature = '0x' WHERE id = 1",
        {"channel.voucher"},
    ),
    "a signature of somebody else": (
        "UPDATE channels SET payer_authorizer = payer_authorizer WHERE id = 2;"
        "UPDATE channels SET signature ="
        " (SELECT c.signature FROM channels c WHERE c.id = 3) WHERE id = 1",
        {"channel.voucher"},
    ),
    "reserved for no refund": (
        "UPDATE channels SET reserved = 1 WHERE id = 1",
        {"channel.reserved"},
    ),
    "a refund nothing is reserved for": (
        "UPDATE channels SET reserved = 0 WHERE id = 3",
        {"channel.reserved"},
    ),
    "held for no session": (
        "UPDATE channels SET held = held + 1 WHERE id = 2",
        {"channel.held", "channel.claimed"},
    ),
    "not held for a session": (
        "UPDATE channels SET held = held - 1 WHERE id = 2",
        {"channel.held"},
    ),
    "more drawn than draws say": (
        "UPDATE sessions SET drawn = drawn + 1 WHERE closed_at IS NULL",
        {"session.drawn", "channel.held"},
    ),
    "a draw that is gone": (
        "DELETE FROM draws WHERE amount = 60",
        {"session.drawn"},
    ),
    "a budget nobody paid": (
        "UPDATE sessions SET budget = budget + 1 WHERE closed_at IS NULL",
        {"session.budget", "channel.held"},
    ),
    "a session that kept something": (
        "UPDATE sessions SET returned = returned - 1 WHERE budget = 200",
        {"session.returned", "channel.sum"},
    ),
    "an open session that gave back": (
        "UPDATE sessions SET returned = 1 WHERE closed_at IS NULL",
        {"session.returned", "channel.sum"},
    ),
    "too much credit": (
        "UPDATE credits SET amount = amount + 1",
        {"credit.amount"},
    ),
    "too little credit": (
        "UPDATE credits SET amount = amount - 1",
        {"credit.amount"},
    ),
    "credit below nothing": (
        "UPDATE credits SET amount = -1",
        {"credit.amount"},
    ),
    "credit that is gone": (
        "DELETE FROM credits",
        {"credit.amount"},
    ),
    "a day that earned more": (
        "UPDATE earnings SET amount = amount + 1 WHERE scheme = 'batch-settlement'",
        {"earnings.vouchers", "sums.all", "sums.item"},
    ),
    "a day of sessions that earned less": (
        "UPDATE earnings SET amount = amount - 1 WHERE scheme = 'session'",
        {"earnings.sessions", "sums.all", "sums.item"},
    ),
    "days that are gone": (
        "DELETE FROM earnings",
        {"earnings.vouchers", "earnings.sessions", "sums.all", "sums.item"},
    ),
    "a debt made good by nothing": (
        "UPDATE charges SET made_good_by = 99999 WHERE amount = 14",
        {"charge.made_good"},
    ),
    "a debt made good by another sale": (
        "UPDATE charges SET made_good_by = (SELECT c.id FROM charges c WHERE c.amount = 15)"
        " WHERE amount = 14",
        {"charge.made_good"},
    ),
    "a debt made good by too little": (
        "UPDATE charges SET made_good_by ="
        " (SELECT c.id FROM charges c WHERE c.resource LIKE '/debts/%') WHERE amount = 14",
        {"charge.made_good"},
    ),
    "a debt that names its transaction": (
        "UPDATE charges SET settled_at = 1 WHERE amount = 14",
        {"charge.failed"},
    ),
    "a settled charge without a transaction": (
        "UPDATE charges SET tx_hash = NULL WHERE amount = 15",
        {"charge.transaction"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
async def test_every_breach_in_the_database_is_found(busy: Busy, breach: str) -> None:
    statements, codes = BREACHES[breach]
    await busy.shop.sql(*statements.split(";"))
    assert await busy.shop.codes(chain=False) == codes


async def test_a_disagreement_says_what_and_how_much(busy: Busy) -> None:
    await busy.shop.sql("UPDATE channels SET reserved = 3 WHERE id = 1")
    (found,) = (await busy.shop.audit()).disagreements
    assert (found.code, found.expected, found.found) == ("channel.reserved", 0, 3)
    assert found.about == f"channel {busy.plain.channel_id}"
    assert "refunds" in found.says


async def test_more_than_it_holds_is_found(busy: Busy) -> None:
    await busy.shop.sql("UPDATE channels SET balance = 40 WHERE id = 1")
    assert await busy.shop.codes(chain=False) == {"channel.balance"}


# The chain


def _of(busy: Busy, **changes: int) -> None:
    chain, channel_id = busy.shop.chain, busy.plain.channel_id
    chain.channels[channel_id] = replace(chain.channels[channel_id], **changes)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"balance": 9_999}, {"mirror.balance"}),
        ({"balance": 10_001}, {"mirror.balance"}),
        ({"balance": 44}, {"chain.balance", "mirror.balance"}),
        ({"claimed": 33}, {"mirror.claimed", "action.claim"}),
        ({"claimed": 35}, {"mirror.claimed", "payee.claimed"}),
        ({"claimed": 46}, {"mirror.claimed", "payee.claimed", "chain.claimed", "chain.signed"}),
        ({"refund_nonce": 1}, {"mirror.refund_nonce"}),
        ({"withdraw_requested_at": 5}, {"mirror.withdrawal"}),
    ],
)
async def test_a_channel_the_chain_has_otherwise_is_found(
    busy: Busy, changes: dict[str, int], codes: set[str]
) -> None:
    _of(busy, **changes)
    assert await busy.shop.codes() == codes


async def test_what_happened_on_chain_since_is_in_flight(busy: Busy) -> None:
    shop = busy.shop
    shop.clock.now += 1000
    await shop.deposit(busy.plain, 500, sync=False)
    await shop.claim(busy.plain, sync=False)
    assert await shop.codes() == set()
    await shop.deposit(busy.plain, 70, sync=False)
    _of(busy, balance=10_569)
    assert await shop.codes() == {"mirror.balance", "mirror.claimed"}


async def test_a_withdrawal_that_nobody_has_seen_yet_is_in_flight(busy: Busy) -> None:
    busy.shop.clock.now += 1000
    event = Logged("WithdrawInitiated", 5)
    busy.shop.chain.events[busy.plain.channel_id].append((busy.shop.clock(), event))
    _of(busy, withdraw_requested_at=int(busy.shop.clock()))
    assert await busy.shop.codes() == set()


async def test_a_payee_that_was_paid_less_or_more_is_found(busy: Busy) -> None:
    chain = busy.shop.chain
    claimed, chain.claimed = chain.claimed, chain.claimed - 1
    assert await busy.shop.codes() == {"payee.claimed"}
    chain.claimed, chain.settled = claimed + 1000, 33  # another server of the payee adds
    assert await busy.shop.codes() == {"action.settle"}
    chain.settled = claimed + 1001
    assert await busy.shop.codes() == {"payee.settled"}


async def test_a_deposit_that_never_landed_is_found(busy: Busy) -> None:
    await busy.shop.sql("UPDATE actions SET tx_hash = NULL WHERE kind = 'deposit' AND id = 1")
    assert await busy.shop.codes() == {"action.deposit"}


async def test_a_deposit_of_another_amount_is_found(busy: Busy) -> None:
    await busy.shop.sql("UPDATE actions SET amount = 9999 WHERE kind = 'deposit' AND id = 1")
    assert await busy.shop.codes() == {"action.deposit"}


async def test_a_refund_the_chain_never_saw_is_found(busy: Busy) -> None:
    await busy.shop.sql(
        "UPDATE actions SET state = 'settled' WHERE kind = 'refund' AND state = 'pending'",
        "UPDATE channels SET reserved = 0 WHERE id = 3",
    )
    assert await busy.shop.codes() == {"action.refund"}


@pytest.mark.parametrize("part", ["used", "moved", "all"])
async def test_a_charge_whose_money_never_moved_is_found(busy: Busy, part: str) -> None:
    shop = busy.shop
    charge = await shop.exact(21)
    assert charge.tx_hash is not None
    assert await shop.codes() == set()
    did = shop.chain.transactions.pop(charge.tx_hash)
    if part != "all":
        changed: dict[str, Any] = {part: frozenset()}
        shop.chain.transactions[charge.tx_hash] = replace(did, **changed)
    assert await shop.codes() == {"charge.unpaid"}


async def test_a_return_is_proven_by_its_transaction(busy: Busy) -> None:
    shop, tx = busy.shop, busy.shop.tx()
    payer = "0x" + "ab" * 20
    await shop.sql(
        "UPDATE credits SET amount = 0",
        "INSERT INTO actions (kind, network, asset, pay_to, payer, identity, amount, document,"
        " requirements, state, in_doubt, tx_hash, attempts, created_at) VALUES"
        f" ('return', '{ASSET.network}', '{ASSET.address}', '{PAY_TO}', '{payer}', 'return:x', 330,"
        f" '{{}}', '{{}}', 'settled', false, '{tx}', 1, 1.0)",
    )
    assert await shop.codes() == {"action.return"}
    moved = frozenset({(ASSET.address, PAY_TO, payer, 330)})
    shop.chain.transactions[tx] = Landed(frozenset(), moved, frozenset())
    assert await shop.codes() == set()
    shop.chain.transactions[tx] = Landed(frozenset(), frozenset(), frozenset())
    assert await shop.codes() == {"action.return"}


async def test_a_smart_wallets_voucher_is_not_judged_here(shop: Shop) -> None:
    payer = shop.payer(payer_authorizer="0x" + "00" * 20)
    await shop.deposit(payer, 100)
    await shop.charge(payer, 5)
    assert await shop.codes() == set()


async def test_a_ledger_restored_from_an_old_copy_is_clean(shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 1000)
    await shop.charge(payer, 5)
    shop.chain.move(payer.channel_id, "Claimed", 90)  # of charges that the copy has not
    await shop.sync(payer)
    assert await shop.codes() == set()
    await shop.charge(payer, 7)
    assert await shop.codes() == set()
    await shop.sql("UPDATE channels SET opening = opening - 1")
    assert await shop.codes() == {"channel.sum", "deliveries.gap"}


async def test_charges_while_it_looks_are_no_disagreement(busy: Busy) -> None:
    shop, stop = busy.shop, asyncio.Event()

    async def sell() -> int:
        sold = 0
        while not stop.is_set():
            sold += await shop.charge(busy.plain, 1) == "charged"
            if sold % 10 == 0:
                await shop.claim(busy.plain)
        return sold

    selling = asyncio.create_task(sell())
    for _ in range(5):
        assert await shop.codes() == set()
    stop.set()
    assert await selling > 0


def test_what_is_listed_is_bounded() -> None:
    found = Findings()
    for number in range(KEPT + 5):
        found.add("a", str(number), 0, 1, "no")
    assert (len(found.kept), found.more) == (KEPT, 5)


# Retention


async def test_what_is_rolled_up_stays_provable_and_is_gone(busy: Busy) -> None:
    shop = busy.shop
    shop.pass_days(DAYS + 30)
    left = await shop.roll_up()
    assert left == 3 + 4 + 1 + 2 + 1  # of plain, buyer, refunding; draws; one charge
    assert await shop.codes() == set()
    assert (await shop.channel(busy.plain)).archived == 45
    assert await shop.charge(busy.plain, 3) == "charged"
    assert await shop.codes() == set()
    assert await shop.roll_up() == 0


async def test_nothing_goes_before_its_time_or_without_a_limit(shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 100)
    await shop.charge(payer, 1)
    await shop.exact(5, valid_before=2_000_000_000)
    shop.pass_days(89.9)
    assert await shop.roll_up() == 0
    shop.pass_days(1000)
    assert await shop.roll_up(days=0) == 0
    assert await shop.roll_up() == 1  # the authorization could still be presented
    assert await shop.codes() == set()


async def test_debts_and_what_opens_again_are_kept(shop: Shop) -> None:
    debtor = "0x" + "99" * 20
    await shop.debt(13, debtor)
    await shop.exact(13, resource=f"/debts/{debtor}/{PAY_TO}")
    await shop.debt(14, debtor)
    await shop.exact(16, lands=False)
    await shop.exact(17, slug="free")
    await shop.exact(18, slug="gone")
    session = await shop.exact_session(400)
    await shop.sql(
        "INSERT INTO items (slug, kind, name, created_at, version, rewatch)"
        " VALUES ('free', 'title', 'Free', 1.0, 1, 'free')"
    )
    await shop.end(session)
    shop.pass_days(DAYS + 1)
    assert await shop.roll_up() == 1
    assert await shop.codes() == set()


async def test_more_than_a_batch_goes_at_once_and_by_several_nodes(shop: Shop) -> None:
    payers = [shop.payer() for _ in range(3)]
    for payer in payers:
        await shop.deposit(payer, 10_000)
    for number in range(600):
        await shop.charge(payers[number % 3], 1 + number % 5)
    shop.pass_days(DAYS + 1)
    counts = await asyncio.gather(shop.roll_up(), shop.roll_up())
    assert sum(counts) == 600
    assert await shop.codes() == set()


# Whatever happens


STEPS = (
    "charge", "charge", "charge", "burst", "deposit", "unseen", "sync", "claim", "claim unseen",
    "claim open", "settle", "refund", "refund open", "session", "draw", "draw", "end", "exact",
    "exact open", "exact session", "exact draw", "exact end", "roll up", "day", "month",
)  # fmt: skip


class Life:
    """One shop for all examples, with payers of their own for each."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        payers = [self.shop.payer() for _ in range(3)]
        sessions: list[list[Session]] = [[], [], []]
        exact: list[Session] = []
        for payer in payers:
            await self.shop.deposit(payer, 500)
        for step, who, amount in steps:
            await self._step(step, payers[who], sessions[who], exact, amount)
        assert await self.shop.codes() == set(), steps

    async def _step(
        self, step: str, payer: Payer, sessions: list[Session], exact: list[Session], amount: int
    ) -> None:
        shop = self.shop
        match step:
            case "charge":
                await shop.charge(payer, amount)
            case "burst":
                base = (await shop.channel(payer)).charged
                vouchers = [payer.voucher(base + amount * n) for n in (1, 1, 2, 3)]
                resources = [f"/burst/{base}/{n}" for n in (1, 1, 2, 4)]
                await asyncio.gather(
                    *(
                        shop.channels.charge(
                            NewDelivery(v.channel_id, v.ceiling, v.signature, amount, "p", r, 1)
                        )
                        for v, r in zip(vouchers, resources, strict=True)
                    ),
                    shop.sync(payer),
                )
            case "deposit":
                await shop.deposit(payer, amount)
            case "unseen":
                await shop.deposit(payer, amount, sync=False)
            case "sync":
                await shop.sync(payer)
            case "claim":
                await shop.claim(payer)
            case "claim unseen":
                await shop.claim(payer, sync=False)
            case "claim open":
                await shop.claim(payer, lands=False)
            case "settle":
                await shop.settle()
            case "refund":
                await shop.sync(payer)
                await shop.refund(payer, amount)
            case "refund open":
                await shop.sync(payer)
                await shop.refund(payer, amount, lands=False)
            case "session":
                if (bought := await shop.session(payer, 3 * amount, ttl=10 * 86_400)) is not None:
                    sessions.append(bought)
            case "draw":
                for session in sessions:
                    await shop.draw(session, amount)
            case "end":
                if sessions:
                    await shop.end(sessions.pop())
            case "exact":
                await shop.exact(amount)
            case "exact open":
                await shop.exact(amount, lands=False)
            case "exact session":
                exact.append(await shop.exact_session(amount))
            case "exact draw":
                for session in exact:
                    await shop.draw(session, amount)
            case "exact end":
                if exact:
                    await shop.end(exact.pop())
            case "roll up":
                await shop.roll_up()
            case "day":
                shop.pass_days(1)
            case "month":
                shop.pass_days(50)


def test_nothing_that_happens_in_order_is_a_disagreement(database_url: str) -> None:
    database = Database(database_url)
    with asyncio.Runner() as runner:
        runner.run(database.start())
        life = Life(Shop(database))

        @settings(max_examples=30, deadline=None)
        @given(
            st.lists(
                st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(1, 60)),
                max_size=40,
            )
        )
        def lives(steps: list[tuple[str, int, int]]) -> None:
            runner.run(life.run(steps))

        try:
            lives()
        finally:
            runner.run(database.stop())


# A real chain


@pytest.fixture
async def house(database_url: str, devnet: SharedDevnet, chain: DevChain) -> AsyncIterator[House]:
    async with a_house(database_url, chain, devnet.asset) as house:
        yield house


async def codes(house: House, url: str) -> set[str]:
    """What an audit with the real chain finds."""
    evidence = Evidence(RpcNode(url, timeout=5))
    try:
        outcome = await Auditor(house.database, {house.network: evidence}, pause=0.0).audit()
    finally:
        await evidence.node.close()
    assert not outcome.unchecked
    return {found.code for found in outcome.disagreements}


async def write(house: House, statement: str) -> None:
    await house.database.write(lambda db: db.execute(text(statement)))


async def test_on_a_real_chain(house: House, devnet: SharedDevnet) -> None:
    url = devnet.rpc_url
    first, second, third = [await house.opened(1000, charged) for charged in (7, 80, 900)]
    assert await codes(house, url) == set()
    await house.actions.claim([await house.channel(p) for p in (first, second, third)])
    await house.actions.pay_out(house.network, house.pay_to, house.asset.address.lower())
    await house.actions.refund(await house.channel(first), 500)
    await house.charge(first, 30)
    assert await codes(house, url) == set()

    channel = await house.channel(second)
    await house.call(second, "initiateWithdraw", 100)  # the ledger has not seen it yet
    assert await codes(house, url) == set()
    await write(house, f"UPDATE channels SET claimed = 79 WHERE id = {channel.id}")
    assert await codes(house, url) == {"mirror.claimed", "mirror.withdrawal"}
    await write(house, f"UPDATE channels SET claimed = 80 WHERE id = {channel.id}")
    await write(house, "UPDATE channels SET refund_nonce = 2 WHERE refund_nonce = 1")
    assert await codes(house, url) == {"mirror.refund_nonce"}
    await write(house, "UPDATE channels SET refund_nonce = 1 WHERE refund_nonce = 2")
    await write(house, "UPDATE actions SET amount = 1001 WHERE kind = 'deposit' AND id = 1")
    assert await codes(house, url) == {"action.deposit"}
    await write(house, "UPDATE actions SET amount = 1000 WHERE kind = 'deposit' AND id = 1")
    await write(house, "UPDATE actions SET tx_hash = NULL WHERE kind = 'deposit' AND id = 1")
    assert await codes(house, url) == {"action.deposit"}


async def test_charges_by_exact_on_a_real_chain(house: House, devnet: SharedDevnet) -> None:
    signed = await a_settled_charge(house, devnet)
    assert await codes(house, devnet.rpc_url) == set()
    await write(house, f"UPDATE charges SET tx_hash = '0x{'00' * 32}' WHERE id = {signed.id}")
    assert await codes(house, devnet.rpc_url) == set()  # it is found in the logs
    await write(house, f"UPDATE charges SET nonce = '0x{'77' * 32}' WHERE id = {signed.id}")
    assert await codes(house, devnet.rpc_url) == {"charge.unpaid"}


async def a_settled_charge(house: House, devnet: SharedDevnet) -> Charge:
    """A charge whose transfer was made on chain."""
    payer = devnet.new_account(usdc=AMOUNT)
    payment = paid_by(payer, house.pay_to)
    outcome = await house.facilitator.settle(payment)
    assert isinstance(outcome, Settled), outcome
    transfer = transfer_of(payment)
    new = a_charge(
        1,
        network=house.network,
        **{
            name: getattr(transfer, name)
            for name in ("asset", "payer", "nonce", "pay_to", "amount", "valid_before")
        },
    )
    ledger = ChargeLedger(house.database)
    reserved = await ledger.reserve(new, exposure=None, patience=60)
    assert reserved.charge is not None
    return await ledger.settle(reserved.charge, outcome.tx_hash)

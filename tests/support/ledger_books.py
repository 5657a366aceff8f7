"""A whole ledger with its chain: real rows by the real parts, and a chain that only adds up."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from eth_account import Account
from sqlalchemy import text

from tests.support.channel_parties import Payer
from tests.support.ledger_children import NOW, a_charge
from tests.support.paying import Clock
from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.evm.channel_contract import ChannelState, Receiver
from xbyte_live.evm.channels import Claim
from xbyte_live.evm.evidence import Landed, Logged
from xbyte_live.money import Asset
from xbyte_live.payments.audit.audit import Auditor
from xbyte_live.payments.audit.findings import Audit
from xbyte_live.payments.ledger.actions import Action, ActionLedger, NewAction
from xbyte_live.payments.ledger.channel import Channel, NewDelivery, OnChain
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge import Charge, Exposure
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger, NewDraw
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.ledger.retention import Retention
from xbyte_live.payments.ledger.rollup import Rollup
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.x402.order import Order
from xbyte_live.storage.db.engine import Database

ASSET = Asset("eip155:84532", "0x036cbd53842c5426634e7929541ec2318f3dcf7e", "USDC", "2", 6, "USDC")
PAY_TO = "0x" + "cd" * 20
AUTHORIZER = "0x" + "ee" * 20
DAYS = 90
WINDOW = 120.0


@dataclass
class FakeChain:
    """The contract as numbers; a history that says how they came to be."""

    clock: Clock
    channels: dict[str, ChannelState] = field(default_factory=dict)
    claimed: int = 0
    settled: int = 0
    transactions: dict[str, Landed] = field(default_factory=dict)
    events: dict[str, list[tuple[float, Logged]]] = field(default_factory=lambda: defaultdict(list))
    is_down: bool = False

    async def check(self, chain_id: int) -> None:
        assert chain_id == ASSET.chain_id
        if self.is_down:
            raise ChainUnavailable("the RPC node gave no answer (test)")

    async def states(self, channel_ids: Sequence[str]) -> dict[str, ChannelState]:
        return {i: self.channels.get(i, ChannelState(0, 0, 0, 0)) for i in channel_ids}

    async def receiver(self, pay_to: str, token: str) -> Receiver:
        return Receiver(self.claimed, self.settled)

    async def landed(self, hashes: Sequence[str]) -> dict[str, Landed]:
        return {tx: self.transactions[tx] for tx in hashes if tx in self.transactions}

    async def history(
        self, channel_ids: Sequence[str], since: float
    ) -> Mapping[str, Sequence[Logged]]:
        return {i: [e for at, e in self.events[i] if at >= since - 60] for i in channel_ids}

    async def fate(self, transfer: Transfer) -> Fate:
        return Fate("void")

    async def close(self) -> None:
        pass

    def move(self, channel_id: str, name: str, amount: int, tx: str = "") -> None:
        """An event, with what it does to the numbers."""
        old = self.channels.get(channel_id, ChannelState(0, 0, 0, 0))
        self.events[channel_id].append((self.clock(), Logged(name, amount)))
        match name:
            case "Deposited":
                old = replace(old, balance=old.balance + amount)
                did = Landed(frozenset(), frozenset(), frozenset({(channel_id, amount)}))
                self.transactions[tx] = did
            case "Claimed":
                old = replace(old, claimed=old.claimed + amount)
                self.claimed += amount
            case "Refunded":
                old = replace(old, balance=old.balance - amount, refund_nonce=old.refund_nonce + 1)
        self.channels[channel_id] = old

    def transfer(self, tx: str, payer: str, pay_to: str, amount: int, nonce: str = "") -> None:
        """A transaction that moved money, by an authorization if there is a nonce."""
        used = frozenset({(ASSET.address, payer, nonce)}) if nonce else frozenset()
        moved = frozenset({(ASSET.address, payer, pay_to, amount)})
        self.transactions[tx] = Landed(used, moved, frozenset())


class Shop:
    """Everything that writes the ledger, and the chain it writes about."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock(NOW)
        self.chain = FakeChain(self.clock)
        self.channels = ChannelLedger(database, retry_window=WINDOW, clock=self.clock)
        self.charges = ChargeLedger(database, clock=self.clock)
        self.actions = ActionLedger(database, clock=self.clock)
        self.draws = DrawLedger(database, retry_window=WINDOW, clock=self.clock)
        self.sessions = SessionLedger(
            database, secret=b"s" * 32, payees=(), retry_window=WINDOW, clock=self.clock
        )
        self._number = 0

    def tx(self) -> str:
        """A transaction hash, and a number that nobody has had."""
        self._number += 1
        return f"0x{self._number:064x}"

    # Channels

    def payer(self, **changes: object) -> Payer:
        """A payer with a key of its own."""
        return Payer(Account.create(), ASSET, PAY_TO, AUTHORIZER, **changes)

    async def sync(self, payer: Payer) -> Channel:
        """Bring the chain's state of a channel into the ledger."""
        state = self.chain.channels.get(payer.channel_id, ChannelState(0, 0, 0, 0))
        seen = OnChain(
            state.balance,
            state.claimed,
            state.withdraw_requested_at,
            state.refund_nonce,
            self.clock(),
        )
        return await self.channels.sync(ASSET.network, payer.config, payer.channel_id, seen)

    async def deposit(self, payer: Payer, amount: int, *, sync: bool = True) -> Action:
        """A deposit that lands."""
        tx = self.tx()
        action = await self._begin("deposit", payer, amount, f"deposit:{payer.channel_id}:{tx}")
        self.chain.move(payer.channel_id, "Deposited", amount, tx)
        done = await self.actions.settle(action, tx)
        if sync:
            await self.sync(payer)
        return done

    async def channel(self, payer: Payer) -> Channel:
        found = await self.channels.find(payer.channel_id)
        assert found is not None
        return found

    async def delivery(self, payer: Payer, amount: int, resource: str) -> NewDelivery:
        """The voucher for one more delivery."""
        voucher = payer.voucher((await self.channel(payer)).charged + amount)
        return NewDelivery(
            *(payer.channel_id, voucher.ceiling, voucher.signature, amount),
            *("plasma", resource, 10 * amount),
        )

    async def charge(self, payer: Payer, amount: int) -> str:
        """One more delivery; what became of it."""
        new = await self.delivery(payer, amount, f"/hls/plasma/source/{self.tx()[-6:]}.ts")
        return (await self.channels.charge(new)).outcome

    async def claim(self, payer: Payer, *, sync: bool = True, lands: bool = True) -> Action | None:
        """A claim of all that may be claimed."""
        channel = await self.channel(payer)
        if channel.claimable <= channel.chain.claimed or not channel.voucher.is_signed:
            return None
        claim: Claim = channel.claim
        amount = channel.claimable - channel.chain.claimed
        action = await self._begin(
            "claim", payer, amount, f"claim:{self.tx()}", {"payload": {"claims": [claim.wire()]}}
        )
        if not lands:
            return action
        there = self.chain.channels[payer.channel_id].claimed
        if claim.total > there:
            self.chain.move(payer.channel_id, "Claimed", claim.total - there)
        done = await self.actions.settle(action, self.tx())
        if sync:
            await self.sync(payer)
        return done

    async def settle(self) -> Action | None:
        """A payout of all that was claimed."""
        amount = self.chain.claimed - self.chain.settled
        if not amount:
            return None
        identity = f"settle:{ASSET.network}:{ASSET.address}:{PAY_TO}:{self.chain.claimed}"
        new = NewAction("settle", ASSET.network, ASSET.address, PAY_TO, identity, amount, {}, {})
        opened = await self.actions.open(new, patience=30)
        assert opened.action is not None
        self.chain.settled = self.chain.claimed
        return await self.actions.settle(opened.action, self.tx())

    async def refund(self, payer: Payer, amount: int, *, lands: bool = True) -> Action | None:
        """A refund, which may stay on its way."""
        channel = await self.channel(payer)
        nonce = channel.chain.refund_nonce
        new = replace(
            self._new("refund", payer, amount, f"refund:{payer.channel_id}:{nonce}"),
            document={"payload": {"refundNonce": str(nonce)}},
        )
        opened = await self.actions.open_refund(new, patience=30, read_at=channel.chain.at)
        if opened.action is None or not lands:
            return opened.action
        self.chain.move(payer.channel_id, "Refunded", amount)
        state = self.chain.channels[payer.channel_id]
        seen = OnChain(state.balance, state.claimed, 0, state.refund_nonce, self.clock())
        return await self.actions.settle(opened.action, self.tx(), seen)

    async def _begin(
        self,
        kind: str,
        payer: Payer,
        amount: int,
        identity: str,
        document: dict[str, object] | None = None,
    ) -> Action:
        new = replace(self._new(kind, payer, amount, identity), document=document or {})
        opened = await self.actions.open(new, patience=30)
        assert opened.action is not None
        return opened.action

    def _new(self, kind: str, payer: Payer, amount: int, identity: str) -> NewAction:
        return NewAction(
            kind=kind,  # type: ignore[arg-type]
            network=ASSET.network,
            asset=ASSET.address,
            pay_to=PAY_TO,
            identity=identity,
            amount=amount,
            document={},
            requirements={},
            payer=payer.config.payer,
            channel_id=payer.channel_id,
        )

    # Sessions

    async def session(self, payer: Payer, amount: int, ttl: int = 3600) -> Session | None:
        """A session bought by a voucher."""
        order = Order(f"budget={amount}", ttl, slug="plasma", key=self.tx()[-8:])
        charging = await self.sessions.charge(
            await self.delivery(payer, amount, order.resource), order
        )
        if charging is None or charging.outcome != "charged":
            return None
        return await self._newest_session()

    async def exact_session(self, amount: int) -> Session:
        """A session bought with ``exact``."""
        order = Order(f"budget={amount}", 3600, slug="plasma", key=self.tx()[-8:])
        charge = await self.exact(amount, resource=order.resource)
        return await self.sessions.paid(charge, order)

    async def draw(self, session: Session, amount: int) -> str:
        """One delivery out of a session; what became of it."""
        name = f"/hls/plasma/source/{self.tx()[-6:]}.ts"
        new = NewDraw(session.digest, "plasma", name, name, 10 * amount, {PAY_TO: amount})
        return (await self.draws.draw(new)).outcome

    async def end(self, session: Session) -> None:
        await self.sessions.end(session)

    async def _newest_session(self) -> Session:
        def newest(db: object) -> str:
            query = text("SELECT digest FROM sessions ORDER BY id DESC LIMIT 1")
            return str(db.execute(query).scalar_one())  # type: ignore[attr-defined]

        found = await self.sessions.find(await self.database.read(newest))
        assert found is not None
        return found

    # Charges by exact

    async def exact(self, amount: int, *, lands: bool = True, **changes: object) -> Charge:
        """A charge by ``exact`` that settles."""
        nonce = self.tx()
        fields = {"valid_before": int(self.clock()) + 600, **changes}
        reserved = await self.charges.reserve(
            a_charge(1, amount=amount, nonce=nonce, pay_to=PAY_TO, **fields),
            exposure=Exposure(10**9, 10**9),
            patience=60,
        )
        charge = reserved.charge
        assert charge is not None
        if not lands:
            return charge
        tx = self.tx()
        self.chain.transfer(tx, charge.payer, PAY_TO, amount, nonce)
        return await self.charges.settle(charge, tx)

    async def debt(self, amount: int, payer: str) -> Charge:
        """A delivery that nothing paid for."""
        charge = await self.exact(amount, lands=False, payer=payer)
        begun = await self.charges.begin_attempt(charge.id, lease=60)
        assert begun is not None
        return await self.charges.fail(begun, "insufficient_funds")

    # Over time

    async def roll_up(self, days: int = DAYS) -> int:
        """Sum up what is over, and roll up what is old enough now."""
        await self.add_up()
        retention = Retention(self.database, days=days, retry_window=WINDOW, clock=self.clock)
        return await retention.roll_up()

    async def add_up(self) -> int:
        """Bring the sums of reports up to what is over now."""
        return await Rollup(self.database, clock=self.clock).advance()

    def pass_days(self, days: float) -> None:
        self.clock.now += days * DAY

    async def audit(self, *, chain: bool = True) -> Audit:
        """What the audit says."""
        return await Auditor(self.database, {ASSET.network: self.chain}, pause=0.0).audit(
            chain=chain
        )

    async def codes(self, *, chain: bool = True) -> set[str]:
        """The codes of what it finds; everything must have been checked."""
        outcome = await self.audit(chain=chain)
        assert not outcome.unchecked
        return {found.code for found in outcome.disagreements}

    async def sql(self, *statements: str) -> None:
        """Write to the tables by hand, past every check."""

        def work(db: object) -> None:
            execute = db.execute  # type: ignore[attr-defined]
            if self.database.dialect == "sqlite":
                execute(text("PRAGMA ignore_check_constraints = ON"))
            else:
                for table, name in (
                    ("channels", "charged"), ("channels", "held"), ("channels", "amounts"),
                    ("credits", "amount"), ("sessions", "budget"),
                ):  # fmt: skip
                    execute(
                        text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{name}")
                    )
            for statement in statements:
                assert execute(text(statement)).rowcount != 0, statement

        await self.database.write(work)


@dataclass
class Busy:
    """A shop with something of everything; ``first`` is the row of a channel without sessions."""

    shop: Shop
    plain: Payer
    sessions: Payer
    refunding: Payer


async def a_busy_shop(database: Database) -> Busy:
    """Old rows that are rolled up, new ones, open ones; all in order."""
    shop = Shop(database)
    plain, buyer, refunding = shop.payer(), shop.payer(), shop.payer()
    for payer in (plain, buyer, refunding):
        await shop.deposit(payer, 10_000)
    await shop.charge(plain, 7)
    await shop.charge(plain, 8)
    old = await shop.session(buyer, 100)
    assert old is not None
    await shop.draw(old, 30)
    await shop.end(old)
    await shop.exact(40)
    shop.pass_days(DAYS + 1)
    assert await shop.roll_up() == 5

    await shop.charge(plain, 9)
    await shop.charge(plain, 10)
    await shop.claim(plain)
    await shop.charge(plain, 11)
    await shop.settle()
    await shop.charge(buyer, 5)
    closed, still = await shop.session(buyer, 200), await shop.session(buyer, 300)
    assert closed is not None and still is not None
    await shop.draw(closed, 50)
    await shop.end(closed)
    await shop.draw(still, 60)
    await shop.charge(buyer, 6)
    await shop.claim(buyer)
    await shop.charge(refunding, 12)
    await shop.refund(refunding, 1000)
    await shop.refund(refunding, 500, lands=False)

    debtor = "0x" + "99" * 20
    await shop.debt(13, debtor)
    await shop.exact(13, resource=f"/debts/{debtor}/{PAY_TO}")
    await shop.debt(14, debtor)
    await shop.exact(15)
    await shop.exact(16, lands=False)
    exact = await shop.exact_session(400)
    await shop.draw(exact, 70)
    await shop.end(exact)
    return Busy(shop, plain, buyer, refunding)

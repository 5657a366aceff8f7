"""Sessions on a real database: channels with money in them, vouchers and charges that buy."""

import itertools
import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from xbyte_live.evm.channels import ChannelConfig
from xbyte_live.payments.ledger.channel import Channel, Charging, NewDelivery, OnChain
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge import Charge, NewCharge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger, NewDraw
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.x402.order import Order, channel_origin
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels, deliveries, draws, purchases, sessions

NETWORK = "eip155:84532"
ASSET = "0x036cbd53842c5426634e7929541ec2318f3dcf7e"
PAYER = "0x" + "ab" * 20
PAYEE = "0x" + "cd" * 20
SECRET = b"s" * 32
NOW = 1_760_000_000.0
DELAY = 900
SEGMENT = "/hls/plasma/source/{}.ts"

_numbers = itertools.count(os.getpid() << 32)


class Clock:
    """A wall clock the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def a_config(salt: int = 1, payer: str = PAYER) -> ChannelConfig:
    return ChannelConfig(payer, payer, PAYEE, "0x" + "ef" * 20, ASSET, DELAY, f"0x{salt:064x}")


def an_order(slug: str = "plasma", ttl: int = 3600, **changes: Any) -> Order:
    fields = {"asked": "", "ttl": ttl, "slug": slug} | changes
    return Order(**fields)


def a_draw(session: Session, msn: int = 0, amount: int = 10, **changes: Any) -> NewDraw:
    name = SEGMENT.format(msn)
    fields: dict[str, Any] = {
        "digest": session.digest,
        "slug": session.slug,
        "resource": name,
        "whole": name,
        "size": 1000,
        "amounts": {PAYEE: amount},
    }
    return NewDraw(**(fields | changes))


@dataclass(slots=True)
class Books:
    """Every ledger sessions touch, on one database and one clock."""

    channels: ChannelLedger
    charges: ChargeLedger
    sessions: SessionLedger
    draws: DrawLedger
    clock: Clock
    database: Database

    async def channel(self, salt: int = 1, balance: int = 1_000_000, leaving: int = 0) -> Channel:
        """A channel with so much in it."""
        config = a_config(salt)
        chain = OnChain(balance, 0, leaving, 0, self.clock())
        return await self.channels.sync(NETWORK, config, f"0x{salt:064x}", chain)

    async def fresh(self, channel: Channel) -> Channel:
        found = await self.channels.find(channel.channel_id)
        assert found is not None
        return found

    def voucher(self, channel: Channel, amount: int, order: Order) -> NewDelivery:
        """What follows on what a channel was charged."""
        ceiling = channel.charged + amount
        return NewDelivery(
            channel.channel_id, ceiling, f"0x{ceiling:02x}", amount, order.slug, order.resource, 0
        )

    async def buy(self, channel: Channel, amount: int = 100, order: Order | None = None) -> Session:
        """A session that a voucher bought."""
        order = order or an_order()
        new = self.voucher(await self.fresh(channel), amount, order)
        return await self.bought(await self.sessions.charge(new, order), new)

    async def bought(self, charging: Charging | None, new: NewDelivery) -> Session:
        assert charging is not None and charging.channel is not None
        assert charging.outcome in ("charged", "again")
        origin = channel_origin(charging.channel.id, charging.epoch, new.ceiling)
        found = await self.sessions.bought(origin)
        assert found is not None
        return found

    async def paid(
        self, amount: int = 100, order: Order | None = None, payer: str = PAYER
    ) -> Charge:
        """A settled charge for a session."""
        order = order or an_order()
        new = NewCharge(
            scheme="exact",
            network=NETWORK,
            asset=ASSET,
            payer=payer,
            nonce=f"0x{next(_numbers):064x}",
            pay_to=PAYEE,
            amount=amount,
            slug=order.slug,
            resource=order.resource,
            size=0,
            valid_before=2_000_000_000,
            document={},
            requirements={},
        )
        reserved = await self.charges.reserve(new, exposure=None, patience=60)
        assert reserved.charge is not None
        return await self.charges.settle(reserved.charge, "0x" + "11" * 32)

    async def held(self) -> None:
        """Assert what the audit asserts: what is held is what open sessions have left."""

        def work(db: Any) -> None:
            for row in db.execute(select(channels)).mappings():
                of = sessions.c.channel == row["id"]
                is_open = sessions.c.closed_at.is_(None)
                left = func.coalesce(func.sum(sessions.c.budget - sessions.c.drawn), 0)
                assert row["held"] == db.execute(select(left).where(of, is_open)).scalar()
                back = func.coalesce(func.sum(sessions.c.returned), 0)
                charged = func.coalesce(func.sum(deliveries.c.amount), 0)
                own = deliveries.c.channel == row["id"]
                assert row["charged"] == (
                    row["opening"]
                    + db.execute(select(charged).where(own)).scalar()
                    - db.execute(select(back).where(of)).scalar()
                )
            for row in db.execute(select(sessions)).mappings():
                for table, name in ((draws, "drawn"), (purchases, "budget")):
                    total = func.coalesce(func.sum(table.c.amount), 0)
                    query = select(total).where(table.c.session_id == row["id"])
                    assert row[name] == db.execute(query).scalar(), name

        await self.database.read(work)


def open_books(database: Database, *, payees: tuple[str, ...] = ()) -> Books:
    """The ledgers of one server."""
    clock = Clock()
    return Books(
        ChannelLedger(database, retry_window=120, clock=clock),
        ChargeLedger(database, clock=clock),
        SessionLedger(database, secret=SECRET, payees=payees, retry_window=120, clock=clock),
        DrawLedger(database, retry_window=120, clock=clock),
        clock,
        database,
    )

"""A site that sells sessions: real gate, ledgers and HTTP side; the chain is at hand."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from eth_account.signers.local import LocalAccount
from starlette.applications import Starlette

from tests.fakes import USDC, FakeChain, FakeFacilitator, MemoryCatalog, MemoryStore
from tests.support.channel_parties import Payer
from tests.support.paying import Clock, a_payer, payment_headers, v1_headers, v2_header
from tests.support.web import NOW, PAYEE, segment_bytes
from xbyte_live.config import Settings
from xbyte_live.models import Stream, Title, segment_key
from xbyte_live.payments.batch_settlement.offers import ChannelPolicy
from xbyte_live.payments.batch_settlement.scheme import BatchSettlement
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.channel import Channel, OnChain
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge import Exposure
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.sessions import Sessions
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.x402.requirements import (
    SCHEME_CHANNELS,
    SCHEME_EXACT,
    ChannelTerms,
    PaymentMethod,
)
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.app import create_app
from xbyte_live.web.common.health import Readiness
from xbyte_live.web.common.metrics import Metrics

AUTHORIZER = "0x" + "ef" * 20
FUNDS = 10_000_000


class FakeMirror:
    """A chain on which every channel holds ``FUNDS``."""

    def __init__(self, ledger: ChannelLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def refresh(self, network: str, config: Any, channel_id: str) -> Channel:
        chain = OnChain(FUNDS, 0, 0, 0, self._clock())
        return await self._ledger.sync(network, config, channel_id, chain)


@dataclass(slots=True)
class SessionSite:
    """The application and what it stands on; ``account`` pays with exact, ``payer`` by channel."""

    app: Starlette
    catalog: MemoryCatalog
    store: MemoryStore
    gate: Gate
    sessions: Sessions
    budgets: SessionLedger
    channels: ChannelLedger
    charges: ChargeLedger
    metrics: Metrics
    clock: Clock
    facilitator: FakeFacilitator
    account: LocalAccount
    payer: Payer
    host: str = "192.0.2.1"

    def add(self, item: Title | Stream) -> None:
        """Put a title or stream and its bytes up for sale."""
        self.catalog.by_slug[item.slug] = item
        for rendition in item.renditions:
            for segment in rendition.segments:
                key = segment_key(item.slug, rendition.name, segment.msn)
                self.store.files[key] = segment_bytes(segment.msn, segment.size)

    def client(self, host: str = "192.0.2.1") -> httpx2.AsyncClient:
        """A client at an address."""
        transport = httpx2.ASGITransport(self.app, client=(host, 1234))
        return httpx2.AsyncClient(transport=transport, base_url="http://site.test")

    async def channel(self) -> Channel:
        """The payer's channel as it stands."""
        found = await self.channels.find(self.payer.channel_id)
        assert found is not None
        return found

    def by_voucher(self, requirements: dict[str, Any], charged: int) -> dict[str, str]:
        """The header of a voucher for an offer."""
        voucher = self.payer.voucher(charged + int(requirements["amount"]))
        payload = {
            "type": "voucher",
            "channelConfig": self.payer.config.wire(),
            "voucher": voucher.wire(),
        }
        return v2_header({"x402Version": 2, "accepted": requirements, "payload": payload})

    def by_exact(self, requirements: dict[str, Any], **how: Any) -> dict[str, str]:
        """The header of an exact payment for an offer."""
        return payment_headers(self.account, requirements, now=self.clock(), **how)

    def by_v1(self, requirements: dict[str, Any]) -> dict[str, str]:
        """The same for an offer in the v1 form."""
        return v1_headers(self.account, requirements, now=self.clock())

    async def buy(
        self, client: httpx2.AsyncClient, scheme: str = SCHEME_EXACT, **body: Any
    ) -> dict[str, Any]:
        """Buy a session as a client would; what the 201 says."""
        body = {"slug": "plasma", "budget": "0.02"} | body
        asked = await client.post("/api/v1/sessions", json=body)
        assert asked.status_code == 402, asked.text
        offer = offers_of(asked)[scheme]
        if scheme == SCHEME_EXACT:
            headers = self.by_exact(offer)
        else:
            found = await self.channels.find(self.payer.channel_id)
            headers = self.by_voucher(offer, found.charged if found else 0)
        bought = await client.post("/api/v1/sessions", json=body, headers=headers)
        assert bought.status_code == 201, bought.text
        answer: dict[str, Any] = bought.json()
        return answer | {"headers": headers, "body": body}


def offers_of(answer: httpx2.Response) -> dict[str, dict[str, Any]]:
    """The offers of a 402, by scheme."""
    document = json.loads(base64.b64decode(answer.headers["payment-required"]))
    return {offer["scheme"]: offer for offer in document["accepts"]}


@asynccontextmanager
async def a_session_site(
    url: str, *, exposure: Exposure | None = None, **changes: Any
) -> AsyncIterator[SessionSite]:
    """Open a site on a database."""
    settings = replace(Settings(pay_to=PAYEE), **changes)
    clock, chain = Clock(NOW), FakeChain()
    chain.now = NOW
    database = Database(url)
    await database.start()
    charges = ChargeLedger(database, clock=clock)
    channels = ChannelLedger(database, retry_window=settings.retry_window, clock=clock)
    secret = await charges.secret("sessions")
    budgets = SessionLedger(
        database, secret=secret, payees=(), retry_window=settings.retry_window, clock=clock
    )
    facilitator = FakeFacilitator(chain)
    settlement = Transfers(
        charges, facilitator, {USDC.network: chain}, lease=60, parallel=8, queue=100, clock=clock
    )
    terms = ChannelTerms(AUTHORIZER, settings.withdraw_delay)
    methods = (
        PaymentMethod(SCHEME_CHANNELS, USDC, channel=terms),
        PaymentMethod(SCHEME_EXACT, USDC, "base-sepolia"),
    )
    window, timeout = settings.retry_window, settings.payment_timeout
    gate = Gate(
        charges,
        (
            BatchSettlement(
                channels,
                FakeMirror(channels, clock),  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                facilitator,  # type: ignore[arg-type]
                methods,
                ChannelPolicy(deposit_floor=0, payment_timeout=timeout, retry_window=window),
                sessions=budgets,
                clock=clock,
            ),
            Exact(
                charges,
                settlement,
                facilitator,  # type: ignore[arg-type]
                methods,
                ExactPolicy(exposure, window, timeout, 5.0),
                clock=clock,
            ),
        ),
        payment_timeout=timeout,
        max_payment_header=settings.max_payment_header,
        secret=await charges.secret("receipts"),
    )
    draws = DrawLedger(database, retry_window=window, clock=clock)
    sessions = Sessions(budgets, draws, charges, gate, secret=secret, clock=clock)
    catalog, store, metrics = MemoryCatalog(), MemoryStore(), Metrics()
    app = create_app(
        settings=settings,
        catalog=catalog,  # type: ignore[arg-type]
        store=store,  # type: ignore[arg-type]
        cache=SegmentCache(store, settings.cache_bytes),  # type: ignore[arg-type]
        gate=gate,
        ledger=charges,
        metrics=metrics,
        readiness=Readiness({}, keep=0),
        sessions=sessions,
        clock=clock,
    )
    payer = Payer(a_payer(), USDC, PAYEE, AUTHORIZER, withdraw_delay=settings.withdraw_delay)
    site = SessionSite(
        app, catalog, store, gate, sessions, budgets, channels, charges, metrics, clock,
        facilitator, a_payer(), payer,
    )  # fmt: skip
    try:
        yield site
    finally:
        await settlement.drain()
        await database.stop()

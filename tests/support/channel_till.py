"""A gate that takes channels: real ledger, mirror, actions and SDK facilitator on a model chain."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.fakes import USDC
from tests.support.channel_model import ModelChain
from tests.support.channel_parties import Payer, a_key
from tests.support.paying import PAYEE, Clock, a_payer, v2_header
from xbyte_live.errors import PaymentRefused
from xbyte_live.evm.channels import Voucher
from xbyte_live.evm.keys import Authorizer
from xbyte_live.payments.batch_settlement.offers import ChannelPolicy
from xbyte_live.payments.batch_settlement.scheme import BatchSettlement
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.gate import Gate, PaymentResponse, Sale
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.channel_actions import ActionPolicy, Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.proofs import Proofs
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.x402.requirements import (
    SCHEME_CHANNELS,
    SCHEME_EXACT,
    ChannelTerms,
    PaymentMethod,
)
from xbyte_live.storage.db.engine import Database

DELAY = 900
FLOOR = 100
WINDOW = 120.0
TIMEOUT = 300


@dataclass(slots=True)
class ChannelTill:
    """A gate with the chain and the clock in the test's hand."""

    gate: Gate
    channels: ChannelLedger
    actions: Actions
    rows: ActionLedger
    chain: Any
    time: Clock
    authorizer: Authorizer
    database: Database

    def offer(self, sale: Sale) -> dict[str, Any]:
        """The offer of a channel in the 402 a sale is asked for with."""
        return corrected(self.gate, sale, PaymentRefused("payment_required"))

    def payer(self, tokens: int = 10**9, **changes: Any) -> Payer:
        """A payer with so much, and no channel yet."""
        payer = Payer(a_payer(), USDC, PAYEE, self.authorizer.address, **changes)
        if isinstance(self.chain, ModelChain):
            self.chain.tokens[payer.config.payer] = tokens
        return payer

    def voucher(
        self, payer: Payer, sale: Sale, ceiling: int, kind: str = "voucher", **more: Any
    ) -> dict[str, Any]:
        """The document of a voucher or a refund."""
        return a_document(self.offer(sale), payer, payer.voucher(ceiling), kind, **more)

    def deposit(
        self, payer: Payer, sale: Sale, amount: int, ceiling: int, valid_for: float = 36_000
    ) -> dict[str, Any]:
        """The document of a deposit."""
        ahead = self.time() - time.time()
        payload = payer.deposit(amount, ceiling, ahead + valid_for).wire()
        return {"x402Version": 2, "accepted": self.offer(sale), "payload": payload}

    async def pay(self, document: dict[str, Any], sale: Sale) -> PaymentResponse:
        """Present a payment."""
        return await self.gate.charge(v2_header(document), sale)

    async def found(self, payer: Payer) -> Channel:
        """A payer's channel as the ledger has it."""
        channel = await self.channels.find(payer.channel_id)
        assert channel is not None
        return channel

    async def opened(self, sale: Sale, deposit: int = 100_000, **changes: Any) -> Payer:
        """A payer with a channel that paid for the sale once."""
        payer = self.payer(**changes)
        await self.pay(self.deposit(payer, sale, deposit, price_of(self.offer(sale))), sale)
        return payer


def a_document(
    offer: dict[str, Any], payer: Payer, voucher: Voucher, kind: str = "voucher", **more: Any
) -> dict[str, Any]:
    """A payment of a voucher."""
    payload = {
        "type": kind,
        "channelConfig": payer.config.wire(),
        "voucher": voucher.wire(),
    } | more
    return {"x402Version": 2, "accepted": offer, "payload": payload}


def price_of(offer: dict[str, Any]) -> int:
    return int(offer["amount"])


def challenge_of(gate: Gate, sale: Sale, error: PaymentRefused) -> dict[str, Any]:
    """The 402 of a refusal."""
    header = gate.challenge(sale, error).headers["PAYMENT-REQUIRED"]
    return dict(json.loads(base64.b64decode(header)))


def corrected(gate: Gate, sale: Sale, error: PaymentRefused) -> dict[str, Any]:
    """The offer of a channel in the 402 of a refusal."""
    offers = challenge_of(gate, sale, error)["accepts"]
    return dict(next(offer for offer in offers if offer["scheme"] == SCHEME_CHANNELS))


def answer_of(receipt: PaymentResponse) -> dict[str, Any]:
    """What the payment response says."""
    return dict(json.loads(base64.b64decode(receipt.headers["PAYMENT-RESPONSE"])))


@asynccontextmanager
async def a_channel_till(
    url: str,
    chain: Any = None,
    *,
    facilitator: Any = None,
    fates: Any = None,
    authorizer: Authorizer | None = None,
    settle_wait: float = 0.3,
    floor: int = FLOOR,
    at: float | None = None,
) -> AsyncIterator[ChannelTill]:
    """Open a till on a database; again with the same chain and authorizer is a restart."""
    clock = Clock(time.time() if at is None else at)
    chain = chain or ModelChain(clock)
    authorizer = authorizer or Authorizer(a_key())
    database = Database(url)
    await database.start()
    network = USDC.network
    ledger = ChannelLedger(database, retry_window=WINDOW, clock=clock)
    charges, rows = ChargeLedger(database, clock=clock), ActionLedger(database, clock=clock)
    own = None
    if facilitator is None:
        facilitator = own = LocalFacilitator({network: chain}, {})
    channel_sync = ChannelSync(ledger, {network: chain}, clock=clock)
    actions = Actions(
        rows,
        ledger,
        facilitator,
        {network: chain},
        Proofs({network: chain}, {network: fates or chain}, clock=clock),
        channel_sync,
        [authorizer],
        ActionPolicy(lease=30.0, wait=settle_wait, max_gas_price=0, parallel=8),
        clock=clock,
    )
    transfers = Transfers(charges, facilitator, {}, lease=60, parallel=4, queue=10, clock=clock)
    terms = ChannelTerms(authorizer.address, DELAY)
    methods = (
        PaymentMethod(SCHEME_CHANNELS, USDC, channel=terms),
        PaymentMethod(SCHEME_EXACT, USDC, "base-sepolia"),
    )
    exact = Exact(
        charges,
        transfers,
        facilitator,
        methods,
        ExactPolicy(None, WINDOW, TIMEOUT, settle_wait),
        clock=clock,
    )
    gate = Gate(
        charges,
        (
            BatchSettlement(
                ledger,
                channel_sync,
                actions,
                facilitator,
                methods,
                ChannelPolicy(floor, TIMEOUT, WINDOW),
                clock=clock,
            ),
            exact,
        ),
        payment_timeout=TIMEOUT,
        max_payment_header=16384,
        secret=b"s" * 32,
    )
    try:
        yield ChannelTill(gate, ledger, actions, rows, chain, clock, authorizer, database)
    finally:
        await actions.drain()
        if own is not None:
            await own.close()
        await database.stop()

"""Adapter: sells a payer its debts: bytes delivered whose transfer failed."""

import re

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import ItemNotFound, PaymentRefused
from xbyte_live.money import MIB, Price
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.charge import debt_resource
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.pricing.quotes import Quote
from xbyte_live.web.common.responses import (
    JSON,
    NO_STORE,
    base_url,
    json_reply,
    payment_required,
)

_PAYER = re.compile(r"0x[0-9a-f]{40}")


class Debts:
    """``GET /debts/{payer}``: 402 for the oldest debt, 200 when there is none."""

    def __init__(self, *, settings: Settings, ledger: ChargeLedger, gate: Gate) -> None:
        self._settings = settings
        self._ledger = ledger
        self._gate = gate

    async def answer(self, request: Request) -> Response:
        """Sell the oldest debt for exactly its amount, transferred before it is forgiven."""
        payer = request.path_params["payer"].lower()
        if _PAYER.fullmatch(payer) is None:
            raise ItemNotFound("a payer is an address: 0x and 40 hex digits")
        owed = await self._ledger.debts(payer)
        if not owed:
            return json_reply({"payer": payer, "owed": "0"}, NO_STORE)
        debt = owed[0]
        sale = Sale(
            resource=debt_resource(payer, debt.pay_to),
            url=base_url(request, self._settings.public_url) + f"/debts/{payer}",
            slug="",
            size=MIB,  # a debt has no bytes of its own: one MB at the debt's price is its amount
            quotes=(Quote(MIB, Price(debt.amount), debt.pay_to),),
            description="bytes delivered earlier whose payment never settled",
            mime_type=JSON,
            settle_first=True,
        )
        try:
            shown = request.headers if request.method == "GET" else {}  # HEAD never charges
            response = await self._gate.charge(shown, sale)
        except PaymentRefused as refusal:
            return payment_required(self._gate.challenge(sale, refusal))
        left = sum(other.amount for other in owed[1:])
        paid = {"payer": payer, "paid": str(debt.amount), "owed": str(left)}
        return json_reply(paid, {**NO_STORE, **response.headers})

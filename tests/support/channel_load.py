"""Payers by channel that go on through anything, and never sign twice for one delivery."""

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.channel_parties import Payer
from tests.support.paying import v2_header

PIECE = 20_000  # bytes of one delivery
TOP_UP = 10  # deliveries a deposit lasts


@dataclass(slots=True)
class Watcher:
    """One payer at a priced object: presents one payment for each piece until it is taken.

    ``charged`` is what it has agreed to in all; ``delivered`` counts its pieces, ``statuses`` the
    answers it got. A deposit lasts for ``top_up`` pieces.
    """

    payer: Payer
    urls: Sequence[str]
    offer: dict[str, Any]
    charged: int = 0
    balance: int = 0
    delivered: int = 0
    refused: list[str] = field(default_factory=list)
    presented: int = 0
    top_up: int = TOP_UP
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def amount(self) -> int:
        return int(self.offer["amount"])

    async def watch(self, until: asyncio.Event, http: httpx2.AsyncClient) -> None:
        """Buy until told to stop, and then finish what was begun."""
        while not until.is_set() and not self.refused:
            await self.buy(http)

    async def buy(self, http: httpx2.AsyncClient) -> None:
        """Buy one piece; with a deposit where the channel has no more."""
        ceiling = self.charged + self.amount
        deposit = 0
        if ceiling > self.balance:
            deposit = max(10_000, self.top_up * self.amount)
            payment = self.payer.deposit(deposit, ceiling).wire()
        else:
            voucher = self.payer.voucher(ceiling).wire()
            payment = {
                "type": "voucher",
                "channelConfig": self.payer.config.wire(),
                "voucher": voucher,
            }
        document = {"x402Version": 2, "accepted": self.offer, "payload": payment}
        if await self.present(document, http):
            self.charged, self.balance = ceiling, self.balance + deposit
            self.delivered += 1

    async def present(self, document: dict[str, Any], http: httpx2.AsyncClient) -> bool:
        """The same payment, to any server, until one takes it or says no."""
        headers = v2_header(document) | {"range": f"bytes=0-{PIECE - 1}"}
        while True:
            self.presented += 1
            try:
                answer = await http.get(random.choice(self.urls), headers=headers)
            except httpx2.TransportError:
                await asyncio.sleep(0.05)  # whoever is down has no event to wait for
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code == 206 and len(answer.content) == PIECE:
                return True
            if answer.status_code == 402:
                self.refused.append(error_of(answer))
                return False
            assert answer.status_code in (500, 502, 503), answer.text
            await asyncio.sleep(0.1)


def error_of(answer: httpx2.Response) -> str:
    """The x402 error code of a 402."""
    document = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))
    return f"{document['error']} {document['accepts'][0]['extra']}"


async def offer_of(url: str) -> dict[str, Any]:
    """The channel offer for one piece of a priced object."""
    async with httpx2.AsyncClient() as http:
        answer = await http.get(url, headers={"range": f"bytes=0-{PIECE - 1}"})
    accepts = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))["accepts"]
    return dict(next(offer for offer in accepts if offer["scheme"] == "batch-settlement"))

"""The few parts that tests replace; each does the real thing's job in the simplest way."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from xbyte_live.errors import (
    ChainUnavailable,
    PaymentRefused,
    StoreError,
    XByteError,
)
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.media.live.messages import FeedEvent, FeedOptions
from xbyte_live.media.live.process import FeedProcess
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.models import Item, Segment
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import (
    Outcome,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
    Verdict,
)
from xbyte_live.payments.gate import Challenge, PaymentResponse, Sale
from xbyte_live.payments.x402.requirements import (
    SCHEME_EXACT,
    PaymentMethod,
    challenge,
    offers_v1,
    requirements_v2,
)
from xbyte_live.pricing.quotes import Quote

USDC = Asset("eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2", 6, "USDC")


class FakeGate:
    """A gate whose verdict is set by the test: a payment is good unless ``verdict`` says no."""

    def __init__(self) -> None:
        self.methods = (PaymentMethod(SCHEME_EXACT, USDC, "base-sepolia"),)
        self.verdict: XByteError | None = None
        self.asked: list[Sale] = []

    async def charge(self, headers: Mapping[str, str], sale: Sale) -> PaymentResponse:
        self.asked.append(sale)
        if self.verdict is not None:
            raise self.verdict
        if {name.lower() for name in headers}.isdisjoint({"payment-signature", "x-payment"}):
            raise PaymentRefused("payment_required")
        amount = sale.quotes[0].price.amount_for(sale.size)
        return PaymentResponse({"PAYMENT-RESPONSE": "cmVjZWlwdA=="}, amount)

    def terms(self, quote: Quote, deposit: int) -> list[dict[str, Any]]:
        offers = [requirements_v2(method, quote, 300, deposit) for method in self.methods]
        return [{k: v for k, v in offer.items() if k != "amount"} for offer in offers]

    def challenge(self, sale: Sale, refusal: PaymentRefused) -> Challenge:
        return a_challenge(sale, self.methods, refusal.code)


def a_challenge(sale: Sale, methods: Sequence[PaymentMethod], error: str) -> Challenge:
    """The 402 of a gate with these methods."""
    quote = sale.quotes[0]
    return challenge(
        sale,
        [requirements_v2(method, quote, 300, sale.deposit) for method in methods],
        in_v1=offers_v1(methods, 300, sale),
        error=error,
    )


class MemoryCatalog:
    """A catalog held in two dicts, counting how often it is asked."""

    def __init__(self, *items: Item) -> None:
        self.by_slug: dict[str, Item] = {item.slug: item for item in items}
        self.retired: dict[tuple[str, str, int], Segment] = {}
        self.removed: dict[str, Item] = {}
        self.broken: XByteError | None = None
        self.looks = 0

    async def item(self, slug: str) -> Item | None:
        self._look()
        return self.by_slug.get(slug)

    async def items(self) -> list[Item]:
        self._look()
        return list(self.by_slug.values())

    async def removed_item(self, slug: str) -> Item | None:
        self._look()
        return self.removed.get(slug)

    async def retired_segment(self, slug: str, rendition: str, msn: int) -> Segment | None:
        self._look()
        if not 0 <= msn < 2**63:
            raise OverflowError("no database holds that number")
        return self.retired.get((slug, rendition, msn))

    def _look(self) -> None:
        self.looks += 1
        if self.broken is not None:
            raise self.broken


class MemoryStore:
    """A store held in a dict, counting reads; ``broken`` makes every call fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken: StoreError | None = None
        self.reads = 0

    async def put(self, key: str, data: bytes) -> None:
        self._check()
        self.files[key] = data

    async def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.reads += 1
        data = self._file(key)
        if stop is not None and stop > len(data):
            raise StoreError("the file in the store is shorter than that")
        return data[start:stop]

    async def stream(
        self, key: str, start: int, stop: int, chunk: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        for at in range(start, stop, chunk):
            self.reads += 1
            yield self._file(key)[at : min(at + chunk, stop)]

    async def delete(self, key: str) -> None:
        self._check()
        self.files.pop(key, None)

    async def keys(self, prefix: str) -> list[str]:
        return [key for key in self.files if key.startswith(prefix)]

    def _file(self, key: str) -> bytes:
        self._check()
        if key not in self.files:
            raise StoreError("no such file in the store")
        return self.files[key]

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken


class FakeChain:
    """A token's memory of authorizations: which are used, and by which transaction."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.now = 0.0
        self.answers = True

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        if not self.answers:
            raise ChainUnavailable("the RPC node gave no answer")
        if transfer.nonce in self.cancelled:
            return Fate("void")
        if transfer.nonce in self.used:
            return Fate("moved", self.used[transfer.nonce])
        return Fate("void" if self.now >= transfer.valid_before else "open")


class FakeFacilitator:
    """Settles on a ``FakeChain`` at once; ``script`` holds what to do instead, call by call.

    An entry is an error to raise, an outcome to give without a transfer, or ``"moved, silent"``:
    the transfer happens and the answer is lost. ``gate`` holds every settle back until set.
    """

    def __init__(self, chain: FakeChain) -> None:
        self.chain = chain
        self.script: list[Exception | Outcome | str] = []
        self.settled: list[str] = []
        self.verdict = Verdict(True)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def verify(self, payment: SignedPayment) -> Verdict:
        return self.verdict

    async def settle(self, payment: SignedPayment) -> Outcome:
        self.begun.set()
        await self.gate.wait()
        nonce = payment.document["payload"]["authorization"]["nonce"]
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Settled | Refused | Unknown):
            return step
        if nonce in self.chain.used:
            return Unknown("invalid_exact_evm_nonce_already_used")
        self.chain.used[nonce] = "0x" + hashlib.sha256(nonce.encode()).hexdigest()
        self.settled.append(nonce)
        return Unknown("timeout") if step == "moved, silent" else Settled(self.chain.used[nonce])

    async def check(self) -> None:
        return None

    async def close(self) -> None:
        return None


class FakeFeed(FeedProcess):
    """A packaging child that hands out what the test puts: events, a failure, ``None`` to end."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[FeedEvent | XByteError | None] = asyncio.Queue()

    def put(self, *events: FeedEvent | XByteError | None) -> None:
        for event in events:
            self._events.put_nowait(event)

    async def write(self, data: bytes) -> None:
        return None

    async def finish(self) -> None:
        return None

    async def events(self) -> AsyncGenerator[FeedEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, XByteError):
                raise event
            yield event

    async def kill(self) -> None:
        return None


class FakeSpawner(FeedSpawner):
    """Starts the feeds it was made with, one after the other, while ``gate`` is set."""

    def __init__(self, *feeds: FakeFeed) -> None:
        self._feeds = list(feeds)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def start(self, options: FeedOptions) -> FeedProcess:
        self.begun.set()
        await self.gate.wait()
        return self._feeds.pop(0)

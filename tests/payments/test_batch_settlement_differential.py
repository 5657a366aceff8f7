"""The same payments to our gate and to the SDK's own server: verdicts, codes and states agree.

Each goes to both, which stand on two copies of one chain: a model under the SDK's facilitator
for many sequences, two real chains for a few. Where we differ on purpose is said in ``LISTED``;
anything else fails, and so does what is listed and never comes.
"""

import asyncio
import copy
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from tests.fakes import USDC
from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_model import ModelChain
from tests.support.channel_parties import Payer, a_key
from tests.support.channel_rivals import Answer, Ours, Theirs
from tests.support.channel_till import DELAY, FLOOR, WINDOW, ChannelTill, a_channel_till
from tests.support.paying import PAYEE, a_payer, a_sale
from xbyte_live.devnet.chain import Devnet
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.evm.keys import Authorizer
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.gate import Sale

SEQUENCES, STEPS = 200, 7
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One payment, how both answered it, and what is known of the channel it names.

    ``repeats``: we served the same before; ``together``: it came at once with another;
    ``unknown``: neither server knows the channel; ``moved``: the chain changed
    unseen; ``leaving``: its payer takes it out, and half of the time is over.
    """

    step: str
    document: Document
    ours: Answer
    theirs: Answer
    facts: frozenset[str]

    def __str__(self) -> str:
        return f"{self.step} {sorted(self.facts)}\n  ours {self.ours}\n  theirs {self.theirs}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference we mean, and why."""

    why: str
    is_one: Callable[[Case], bool]


def _but(answer: Answer, name: str) -> Answer:
    """An answer without one thing that it says of the channel."""
    return replace(answer, state={k: v for k, v in (answer.state or {}).items() if k != name})


LISTED: dict[str, Difference] = {
    "a retry re-serves": Difference(
        "what was paid for is delivered again within the retry window (money rule 4)",
        lambda c: (
            "repeats" in c.facts
            and c.ours.good
            and c.theirs.verdict in ("cumulative_amount_mismatch", "channel_busy")
        ),
    ),
    "a refund asked for again is told again": Difference(
        "the same request pays once and has the same answer, where the SDK pays it twice",
        lambda c: "repeats" in c.facts and c.step == "refund again" and c.ours.good,
    ),
    "requests of one channel need not wait": Difference(
        "the SDK takes one at a time; for us a voucher that follows on the last is good",
        lambda c: (
            "together" in c.facts
            and (c.ours.good or c.ours.verdict.startswith("cumulative_"))
            and c.ours.verdict != c.theirs.verdict  # whichever of two came first
        ),
    ),
    "an unknown channel begins at what was claimed": Difference(
        "so the specification says; the SDK believes the payer, who so skips what it owes",
        lambda c: (
            "unknown" in c.facts
            and c.ours.verdict in ("cumulative_amount_mismatch", "cumulative_below_claimed")
            and c.ours.verdict != c.theirs.verdict
        ),
    ),
    "a malformed payload is a bad request": Difference(
        "400 says what is wrong; the SDK says its own state is unavailable, or crashes",
        lambda c: c.ours.verdict == "malformed" and not c.theirs.good,
    ),
    "small deposits are refused": Difference(
        "a deposit costs us gas; the SDK can only be told to enforce the hint",
        lambda c: c.ours.verdict == "deposit_below_min_deposit" and c.theirs.good,
    ),
    "who is leaving buys no more": Difference(
        "once half of the delay is over a charge might not be claimed in time",
        lambda c: (
            "leaving" in c.facts
            and c.ours.verdict == "cumulative_exceeds_balance"
            and c.theirs.good
        ),
    ),
    "minDeposit is a hint": Difference(
        "an offer with another hint is the same offer (money rule 8); the SDK compares it",
        lambda c: c.step == "hint" and c.theirs.verdict == "no_offer",
    ),
    "what was accepted has the fields we offered": Difference(
        "one that we did not offer may mean a term we do not keep; the SDK drops it unread",
        lambda c: c.step == "more terms" and c.ours.verdict == "no_offer",
    ),
    "only signatures that can be claimed": Difference(
        "the contract takes neither a high s nor 0 or 1 for the recovery byte; the SDK does",
        lambda c: c.step == "odd signature" and c.ours.verdict == "voucher_signature",
    ),
    "a channel that nobody opened is not found": Difference(
        "the SDK corrects the payer of a channel it does not know, before it asks the chain",
        lambda c: (
            c.ours.verdict == "channel_not_found"
            and c.theirs.verdict == "cumulative_amount_mismatch"
        ),
    ),
    "less than was claimed is corrected too": Difference(
        "the SDK's client mends both codes, and its server tells the state with one of them",
        lambda c: (
            c.ours.verdict == c.theirs.verdict == "cumulative_below_claimed"
            and c.ours.state is not None
            and c.theirs.state is None
        ),
    ),
    "a refund claims nothing": Difference(
        "what was charged stays in the channel and is claimed with others; the SDK claims it now",
        lambda c: (
            c.document["payload"].get("type") == "refund"
            and _but(c.ours, "totalClaimed") == _but(c.theirs, "totalClaimed")
            and c.ours.good
        ),
    ),
    "a drained channel is remembered": Difference(
        "vouchers go on from what was charged; the SDK forgets it, and then believes the payer",
        lambda c: False,  # it shows in the books, not in an answer
    ),
    "what a refund asks for is read first": Difference(
        "an amount that is none is told before anything is looked up",
        lambda c: c.ours.verdict == "refund_amount_invalid" and not c.theirs.good,
    ),
}


@dataclass
class Rivals:
    """Both sides, and what an observer knows."""

    ours: Ours
    theirs: Theirs
    chains: tuple[Any, Any]
    payers: Callable[[], Any]
    seen: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    number: int = 0

    @property
    def till(self) -> ChannelTill:
        return self.ours.till

    def sale(self, price: int = 1000) -> Sale:
        """Something that was never sold before."""
        self.number += 1
        return a_sale(f"/hls/plasma/source/{self.number}.ts", price=price, deposit=4000)

    def move(self, channel_id: str, **changes: int) -> None:
        """Something happens on both chains."""
        for chain in self.chains:
            chain.move(channel_id, **changes)


def _without_mirror(answer: Answer) -> Answer:
    """An answer but for what it says of the chain."""
    state = answer.state and {
        name: answer.state[name] for name in ("channelId", "chargedCumulativeAmount")
    }
    return replace(answer, state=state)


def document_id(document: Document) -> str:
    """The channel a payment names, whatever it holds."""
    voucher = document["payload"].get("voucher")
    found = voucher.get("channelId") if isinstance(voucher, dict) else None
    return found.lower() if isinstance(found, str) else ""


class Sequence:
    """One payer and its channel, before both servers."""

    def __init__(self, rivals: Rivals, seed: int, steps: int, kinds: list[str] | None) -> None:
        self._rivals = rivals
        self._rng = random.Random(seed)
        self._left = steps
        self._kinds = kinds
        self._payer: Payer = rivals.payers()
        self._paid: list[tuple[Document, Sale, float]] = []
        self._refund: tuple[Document, Sale, float, int] | None = None
        self._facts: set[str] = set()
        self._parted = False
        self._leaves_at: float | None = None

    async def run(self) -> None:
        await self._step("deposit" if self._rng.random() < 0.85 else self._pick())
        while self._left and not self._parted:
            self._left -= 1
            await self._step(self._pick())

    def _pick(self) -> str:
        return self._rng.choice(self._kinds or list(STEPS_BY_NAME))

    async def _step(self, name: str) -> None:
        await STEPS_BY_NAME[name](self, name)

    # What is known

    @property
    def now(self) -> float:
        return self._rivals.till.time()

    async def _charged(self) -> int:
        return await self._rivals.ours.charged(self._payer.channel_id) or 0

    async def _room(self) -> int:
        channel = await self._rivals.till.channels.find(self._payer.channel_id)
        return 0 if channel is None else channel.spendable - channel.charged

    def _voucher(self, sale: Sale, ceiling: int, kind: str = "voucher", **more: Any) -> Document:
        return self._rivals.till.voucher(self._payer, sale, max(0, ceiling), kind, **more)

    # Sending

    async def _ask(self, name: str, document: Document, sale: Sale, *facts: str) -> Case:
        if await self._rivals.ours.charged(document_id(document)) is None:
            facts = (*facts, "unknown")
        ours = await self._rivals.ours.ask(copy.deepcopy(document), sale)
        theirs = await self._rivals.theirs.ask(copy.deepcopy(document), sale)
        return await self._compare(name, document, sale, ours, theirs, *facts)

    async def _compare(
        self, name: str, document: Document, sale: Sale, ours: Answer, theirs: Answer, *facts: str
    ) -> Case:
        known = self._facts | set(facts)
        if self._leaves_at is not None and self.now > self._leaves_at:
            known.add("leaving")
        case = Case(name, document, ours, theirs, frozenset(known))
        self._rivals.asked += 1
        agree = ours == theirs
        if (
            "moved" in case.facts and name != "refund again"
        ):  # either may have looked at the chain later than the other
            agree = _without_mirror(ours) == _without_mirror(theirs)
        if not agree:
            names = [name for name, listed in LISTED.items() if listed.is_one(case)]
            assert names, f"an unlisted difference: {case}"
            self._rivals.seen[names[0]] += 1
        if ours.good:
            self._paid.append((document, sale, self.now))
        charged = [
            await side.charged(self._payer.channel_id)
            for side in (self._rivals.ours, self._rivals.theirs)
        ]
        if charged[1] is None and "refund" in name and theirs.good:
            self._rivals.seen["a drained channel is remembered"] += 1
            self._parted = True
            return case
        same = (charged[0] or 0) == (charged[1] or 0) or name == "forgotten"
        if (
            name == "refund"
            and ours.good
            and theirs.good
            and hasattr(self._rivals.chains[0], "move")
        ):
            self._rivals.move(self._payer.channel_id, claimed=charged[0] or 0)  # as we shall
            self._facts.add("moved")
        states = [
            (await chain.states([self._payer.channel_id]))[self._payer.channel_id]
            for chain in self._rivals.chains
        ]
        if not same or states[0] != states[1]:
            assert not agree or "together" in facts, f"the same answer, other books: {case}"
            self._parted = True
        if not ours.good and not theirs.good and ours.verdict == theirs.verdict:
            self._rivals.seen[f"both: {ours.verdict}"] += 1
        if agree and ours.good:
            self._rivals.seen["both: ok"] += 1
        return case

    # Steps

    async def _deposit(self, name: str) -> None:
        rng, sale = self._rng, self._rivals.sale()
        ceiling = await self._charged() + 1000
        amount = rng.choice([1000, 2500, 4000, 9000])
        short = await self._room() + amount < 1000
        assert not short
        document = self._rivals.till.deposit(self._payer, sale, amount, ceiling)
        await self._ask(name, document, sale)

    async def _bad_deposit(self, name: str) -> None:
        rng, sale = self._rng, self._rivals.sale()
        ceiling, amount = await self._charged() + 1000, 3000
        kind = rng.choice(["stale", "late", "early", "forged", "much", "method", "short", "salt"])
        ceiling += 500 if kind == "stale" else 0
        amount = {"much": 10**8, "short": 900 - await self._room()}.get(kind, amount)
        if amount < FLOOR:
            return
        document = self._rivals.till.deposit(self._payer, sale, amount, ceiling)
        deposit = document["payload"]["deposit"]
        authorization = deposit["authorization"]["erc3009Authorization"]
        if kind == "late":
            authorization["validBefore"] = "1700000000"
        if kind == "early":
            authorization["validAfter"] = str(int(self.now) + 10**6)
        if kind == "forged":
            deposit["amount"] = str(amount + 1)
        if kind == "salt":
            authorization["salt"] = "0x" + rng.randbytes(32).hex()
        if kind == "method":
            deposit["authorization"] = {}
        await self._ask(name, document, sale)

    async def _small_deposit(self, name: str) -> None:
        sale = self._rivals.sale(10)
        document = self._rivals.till.deposit(
            self._payer, sale, FLOOR - 1, await self._charged() + 10
        )
        await self._ask(name, document, sale)

    async def _pay(self, name: str) -> None:
        sale = self._rivals.sale(self._rng.choice([1, 10, 1000, 1000, 3000]))
        amount = int(self._rivals.till.offer(sale)["amount"])
        await self._ask(name, self._voucher(sale, await self._charged() + amount), sale)

    async def _stale(self, name: str) -> None:
        sale = self._rivals.sale()
        off = self._rng.choice([-2000, -1000, -1, 1, 1000, 10**9, 2**62])
        await self._ask(name, self._voucher(sale, await self._charged() + 1000 + off), sale)

    async def _forged(self, name: str) -> None:
        sale, thief = self._rivals.sale(), a_payer()
        good = self._voucher(sale, await self._charged() + 1000)
        voucher = good["payload"]["voucher"]
        other = Payer(thief, USDC, PAYEE, self._rivals.till.authorizer.address)
        other.channel_id = self._payer.channel_id
        ceiling = int(voucher["maxClaimableAmount"])
        voucher["signature"] = self._rng.choice(
            [
                other.voucher(ceiling).signature,
                self._payer.voucher(ceiling + 1).signature,
                "0x" + self._rng.randbytes(65).hex(),
                "0x" + self._rng.randbytes(64).hex(),
                "0x" + "00" * 65,
            ]
        )
        await self._ask(name, good, sale)

    async def _odd_signature(self, name: str) -> None:
        sale = self._rivals.sale()
        good = self._voucher(sale, await self._charged() + 1000)
        voucher = good["payload"]["voucher"]
        raw = bytes.fromhex(voucher["signature"][2:])
        voucher["signature"] = "0x" + (raw[:64] + bytes([raw[64] - 27])).hex()
        await self._ask(name, good, sale)

    async def _config(self, name: str) -> None:
        """Another config with the id that belongs to it, or with the old one."""
        rng, sale = self._rng, self._rivals.sale()
        change: dict[str, Any] = rng.choice(
            [
                {"receiver": "0x" + "01" * 20},
                {"receiver_authorizer": "0x" + "01" * 20},
                {"token": "0x" + "01" * 20},
                {"withdraw_delay": 901},
                {"withdraw_delay": 1},
                {"salt": "0x" + "07" * 32},
            ]
        )
        payer = Payer(
            self._payer.account, USDC, PAYEE, self._rivals.till.authorizer.address, **change
        )
        ceiling = await self._charged() + 1000
        document = self._rivals.till.voucher(payer, sale, ceiling)
        if rng.random() < 0.4:
            document["payload"]["voucher"]["channelId"] = self._payer.channel_id
        elif rng.random() < 0.3:
            document["payload"]["voucher"]["channelId"] = payer.channel_id[:-1]
        await self._ask(name, document, sale)

    async def _mutated(self, name: str) -> None:
        """A field is missing, or holds what it should not."""
        rng, sale = self._rng, self._rivals.sale()
        payload = self._voucher(sale, await self._charged() + 1000)["payload"]
        if rng.random() < 0.3:
            payload = self._rivals.till.deposit(
                self._payer, sale, 3000, await self._charged() + 1000
            )["payload"]
        inner = payload
        while True:
            key = rng.choice(list(inner))
            if not isinstance(inner[key], dict) or rng.random() < 0.15:
                break
            inner = inner[key]
        if rng.random() < 0.3:
            del inner[key]
        else:
            inner[key] = rng.choice([None, "", "x", "0x", -1, 1.5, [], {}, "0x12", "voucher", "-1"])
        document = {"x402Version": 2, "accepted": self._rivals.till.offer(sale), "payload": payload}
        await self._ask(name, document, sale)

    async def _upper(self, name: str) -> None:
        sale = self._rivals.sale()
        document = self._voucher(sale, await self._charged() + 1000)
        config = document["payload"]["channelConfig"]
        config["salt"] = "0x" + config["salt"][2:].upper()
        config["payer"] = self._payer.account.address
        await self._ask(name, document, sale)

    async def _accepted(self, name: str) -> None:
        sale = self._rivals.sale()
        document = self._voucher(sale, await self._charged() + 1000)
        accepted = document["accepted"]
        key, value = self._rng.choice(
            [
                ("amount", "999"),
                ("asset", "0x" + "01" * 20),
                ("payTo", "0x" + "01" * 20),
                ("maxTimeoutSeconds", 299),
                ("network", "eip155:8453"),
                ("scheme", "exact"),
                ("extra", {}),
                ("extra", {**accepted["extra"], "withdrawDelay": 901}),
                ("extra", {**accepted["extra"], "receiverAuthorizer": "0x" + "01" * 20}),
                ("extra", {**accepted["extra"], "name": "USD"}),
            ]
        )
        accepted[key] = value
        if key != "scheme":  # which is another scheme's affair
            await self._ask(name, document, sale)

    async def _hint(self, name: str) -> None:
        sale = self._rivals.sale(1)
        document = self._voucher(sale, await self._charged() + 1)
        document["accepted"]["extra"]["minDeposit"] = "1"
        await self._ask(name, document, sale)

    async def _more_terms(self, name: str) -> None:
        sale = self._rivals.sale(1)
        document = self._voucher(sale, await self._charged() + 1)
        document["accepted"]["more"] = True
        await self._ask(name, document, sale)

    async def _again(self, name: str) -> None:
        if not self._paid:
            return
        document, sale, at = self._rng.choice(self._paid)
        if document["payload"]["type"] == "refund":
            return
        fresh = self.now - at <= WINDOW
        await self._ask(name, document, sale, *(["repeats"] if fresh else []))

    async def _elsewhere(self, name: str) -> None:
        if self._paid and (document := self._paid[-1][0])["payload"]["type"] != "refund":
            await self._ask(name, document, self._rivals.sale())

    async def _same_at_once(self, name: str) -> None:
        sale = self._rivals.sale()
        document = self._voucher(sale, await self._charged() + 1000)
        await self._at_once(name, [(document, sale), (document, sale)])

    async def _two_at_once(self, name: str) -> None:
        sales = [self._rivals.sale(), self._rivals.sale()]
        charged = await self._charged()
        asked = [(self._voucher(sale, charged + 1000 * n), sale) for n, sale in enumerate(sales, 1)]
        self._rng.shuffle(asked)
        await self._at_once(name, asked)

    async def _at_once(self, name: str, asked: list[tuple[Document, Sale]]) -> None:
        ours = await asyncio.gather(*(self._rivals.ours.ask(d, s) for d, s in asked))
        theirs = await asyncio.gather(*(self._rivals.theirs.ask(d, s) for d, s in asked))
        for (document, sale), mine, other in zip(asked, ours, theirs, strict=True):
            await self._compare(name, document, sale, mine, other, "together")

    async def _reordered(self, name: str) -> None:
        sales = [self._rivals.sale(), self._rivals.sale()]
        charged = await self._charged()
        for n in (2, 1):
            await self._ask(name, self._voucher(sales[n - 1], charged + 1000 * n), sales[n - 1])

    async def _refunded(self, name: str) -> None:
        sale, room = self._rivals.sale(), await self._room()
        charged = await self._charged()
        amounts: list[Any] = [None, "1", str(room), str(room + 1), "0", "x", str(max(1, room // 2))]
        amount = self._rng.choice(amounts)
        ceiling = charged + self._rng.choice([0, 0, 0, 0, 0, 1, -1])
        more = {} if amount is None else {"amount": amount}
        document = self._voucher(sale, ceiling, "refund", **more)
        case = await self._ask(name, document, sale)
        self._rivals.till.time.now += 1
        if case.ours.good:
            self._refund = (document, sale, self.now, charged)

    async def _refund_again(self, name: str) -> None:
        if self._refund is None:
            return
        document, sale, at, charged = self._refund
        same = self.now - at < WINDOW - 1 and charged == await self._charged()
        if same:
            await self._ask(name, document, sale, "repeats")

    async def _forged_refund(self, name: str) -> None:
        sale = self._rivals.sale()
        document = self._voucher(sale, await self._charged(), "refund")
        document["payload"]["voucher"]["signature"] = self._payer.voucher(77).signature
        await self._ask(name, document, sale)

    async def _time(self, name: str) -> None:
        """What is known of the chain grows old, and retries are over."""
        self._rivals.till.time.now += 400
        self._rivals.theirs.age(400)

    async def _claim(self, name: str) -> None:
        """The server claims some of what it charged."""
        charged = await self._charged()
        state = self._rivals.chains[0].channels.get(self._payer.channel_id)
        if state is not None and charged > state.claimed:
            self._rivals.move(
                self._payer.channel_id, claimed=self._rng.randint(state.claimed, charged)
            )
            self._facts.add("moved")

    async def _leave(self, name: str) -> None:
        """The payer wants its money back by itself; both look at the chain after that."""
        if self._payer.channel_id in self._rivals.chains[0].channels:
            at = int(self.now) - self._rng.choice([0, DELAY])
            self._rivals.move(self._payer.channel_id, withdraw_requested_at=at)
            await self._time(name)
            self._leaves_at = at + DELAY / 2
            self._facts.add("moved")

    async def _forgotten(self, name: str) -> None:
        """A channel that only the chain knows: the servers lost their books, or never had any."""
        payer = self._payer = self._rivals.payers()
        self._paid, self._refund, self._facts, self._leaves_at = [], None, set(), None
        claimed = self._rng.choice([0, 2000])
        self._rivals.move(payer.channel_id, balance=9000, claimed=claimed)
        sale = self._rivals.sale()
        ceiling = self._rng.choice([claimed + 1000, 1000, 2000, 5000, 10_000])
        kind = self._rng.choice(["voucher", "voucher", "refund"])
        await self._ask(name, self._voucher(sale, ceiling, kind), sale)
        self._parted = True  # from here on each has its own idea of what was charged

    async def _no_channel(self, name: str) -> None:
        payer, sale = self._rivals.payers(), self._rivals.sale()
        kind = self._rng.choice(["voucher", "refund"])
        ceiling = 1000 if kind == "voucher" else 0
        await self._ask(name, self._rivals.till.voucher(payer, sale, ceiling, kind), sale)


STEPS_BY_NAME: dict[str, Any] = {
    "deposit": Sequence._deposit,
    "bad deposit": Sequence._bad_deposit,
    "small deposit": Sequence._small_deposit,
    "pay": Sequence._pay,
    "stale": Sequence._stale,
    "forged": Sequence._forged,
    "odd signature": Sequence._odd_signature,
    "config": Sequence._config,
    "mutated": Sequence._mutated,
    "upper case": Sequence._upper,
    "accepted": Sequence._accepted,
    "hint": Sequence._hint,
    "more terms": Sequence._more_terms,
    "again": Sequence._again,
    "elsewhere": Sequence._elsewhere,
    "same at once": Sequence._same_at_once,
    "two at once": Sequence._two_at_once,
    "reordered": Sequence._reordered,
    "refund": Sequence._refunded,
    "refund again": Sequence._refund_again,
    "forged refund": Sequence._forged_refund,
    "time": Sequence._time,
    "claim": Sequence._claim,
    "leave": Sequence._leave,
    "forgotten": Sequence._forgotten,
    "no channel": Sequence._no_channel,
}
STATEFUL = ["pay", "pay", "pay", "deposit", "again", "refund", "claim", "time", "stale"]
REFUNDS = ["pay", "refund", "refund again", "refund again", "deposit", "forged refund"]
AGREED = [
    "cumulative_amount_mismatch",
    "cumulative_exceeds_balance",
    "voucher_signature",
    "channel_id_mismatch",
    "channel_id_invalid",
    "channel_not_found",
    "receiver_mismatch",
    "receiver_authorizer_mismatch",
    "token_mismatch",
    "withdraw_delay_mismatch",
    "refund_no_balance",
    "refund_amount_invalid",
    "payload_type",
    "payload_authorization_valid_before",
    "payload_authorization_valid_after",
    "receive_authorization_signature",
    "insufficient_balance",
    "no_offer",
    "ok",
]


@asynccontextmanager
async def on_models(url: str) -> AsyncIterator[Rivals]:
    key = a_key()
    async with a_channel_till(url, authorizer=Authorizer(key)) as till:
        chains = (till.chain, ModelChain())

        def payers() -> Payer:
            payer = till.payer(10**7)
            chains[1].tokens[payer.config.payer] = 10**7
            return payer

        yield Rivals(Ours(till), Theirs(chains[1], key, till.offer), chains, payers)


async def test_we_and_the_sdk_agree_but_where_we_mean_not_to(sqlite_url: str) -> None:
    async with on_models(sqlite_url) as rivals:
        for seed in range(SEQUENCES):
            kinds = (STATEFUL, REFUNDS, None, None)[seed % 4]
            await Sequence(rivals, seed, STEPS, kinds).run()

    assert rivals.asked > 4 * SEQUENCES
    never = [name for name in LISTED if not rivals.seen[name]]
    assert not never, f"listed, and never seen: {never}"
    unseen = [code for code in AGREED if not rivals.seen[f"both: {code}"]]
    assert not unseen, f"never given by both: {unseen}; {rivals.seen}"


@asynccontextmanager
async def on_chains(url: str, devnet: SharedDevnet, folder: Path) -> AsyncIterator[Rivals]:
    """The same over two real chains, one for each side."""
    key, gas = a_key(), a_key()
    async with Devnet(folder) as other:
        senders = []
        for rpc_url, fund in ((devnet.rpc_url, None), (other.rpc_url, other.chain.fund)):
            address = Account.from_key(gas).address
            if fund is None:
                devnet.fund(address, wei=10 * ETHER)
            else:
                await fund(address, 0, 10 * ETHER)
            senders.append(
                TransactionSender(gas, RpcNode(rpc_url, timeout=20), confirmation_timeout=10)
            )
        mine = ChannelChain(RpcNode(devnet.rpc_url, timeout=5))
        rival = ChannelChain(RpcNode(other.rpc_url, timeout=5))
        fates = ChainReader(RpcNode(devnet.rpc_url, timeout=5))
        local = LocalFacilitator({USDC.network: senders[0]}, {})
        accounts = []
        for _ in range(6):
            accounts.append(Account.create())
            devnet.fund(accounts[-1].address, usdc=10**7)
            await other.chain.fund(accounts[-1].address, 10**7, 0)
        async with a_channel_till(
            url, mine, facilitator=local, fates=fates, authorizer=Authorizer(key), settle_wait=10
        ) as till:

            def payers() -> Payer:
                return Payer(accounts.pop(), USDC, PAYEE, till.authorizer.address)

            theirs = Theirs(senders[1], key, till.offer)
            yield Rivals(Ours(till), theirs, (mine, rival), payers)
        await local.close()
        for reader in (mine, rival, fates):
            await reader.node.close()


@pytest.mark.parametrize("seed", range(3))
async def test_we_agree_over_real_chains(
    sqlite_url: str, devnet: SharedDevnet, tmp_path: Path, seed: int
) -> None:
    kinds = ["pay", "pay", "deposit", "bad deposit", "stale", "forged", "refund", "again"]
    async with on_chains(sqlite_url, devnet, tmp_path) as rivals:
        for number in range(2):
            await Sequence(rivals, 1000 * number + seed, 6, kinds).run()

    assert rivals.seen["both: ok"] > 1

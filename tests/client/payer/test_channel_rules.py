"""A payer's channels under every mishap: nothing is signed, charged or forgotten that should not.

The server here is a model of an honest one, in memory, that takes a voucher only for exactly what
it has charged and the price; what goes wrong between the two is drawn.
"""

import asyncio
import base64
import contextlib
import json
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import Web3
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.client.voucher import sign_voucher
from x402.mechanisms.evm.batch_settlement.constants import RECEIVE_AUTHORIZATION_TYPES
from x402.mechanisms.evm.batch_settlement.encoding import (
    build_erc3009_collector_data,
    build_erc3009_deposit_nonce,
)
from x402.mechanisms.evm.batch_settlement.facilitator.utils import to_contract_channel_config
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig as SdkConfig
from x402.mechanisms.evm.signers import EthAccountSigner

from tests.support.paid_site import ASSET, KEY, NETWORK, PAYEE, encoded
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import QUOTED, PayingTransport
from xbyte_live.client.payer import chain
from xbyte_live.client.payer.budget import Budget, TooSoon
from xbyte_live.client.payer.channel import ChannelOnChain, Open, PayerChannel, deposit_for
from xbyte_live.client.payer.channel_lock import ChannelStore, MemoryChannelStore
from xbyte_live.client.payer.channel_store import FileChannelStore
from xbyte_live.client.payer.exact import ExactPayer
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import KNOWN_ASSETS, Quoted, read_challenge
from xbyte_live.client.payer.vouchers import VoucherSigner, sign_deposit
from xbyte_live.errors import (
    BudgetExceeded,
    ConfigError,
    DeliveryFailed,
    PaymentPending,
    PaymentRefused,
    StoreError,
    TermsRefused,
)
from xbyte_live.evm import channels as codes
from xbyte_live.evm.channels import (
    COLLECTOR,
    ChannelConfig,
    Deposit,
    channel_id_of,
    read_channel_payment,
    signed_by_key,
)

ACCOUNT = Account.from_key(KEY)
CHAIN_ID = 84532
EXTRA: dict[str, Any] = {
    "name": "USDC",
    "version": "2",
    "receiverAuthorizer": "0x" + "aa" * 20,
    "withdrawDelay": 86_400,
    "minDeposit": "1000",
}
QUICK = Patience(tries=3, first_wait=0.001, pending=1)


def offer(amount: int, **extra: Any) -> dict[str, Any]:
    return {
        "scheme": "batch-settlement",
        "network": NETWORK,
        "asset": ASSET,
        "amount": str(amount),
        "payTo": PAYEE,
        "maxTimeoutSeconds": 300,
        "extra": EXTRA | extra,
    }


@dataclass
class Model(httpx2.AsyncBaseTransport):
    """An honest server, and the way to it: ``faults`` are used up by paid requests, one each."""

    serves_again: bool
    faults: deque[str]
    charged: int = 0
    ceiling: int = 0
    signature: str = ""
    balance: int = 0
    claimed: int = 0
    channel_id: str = ""
    deposits: set[str] = field(default_factory=set)
    deliveries: dict[tuple[int, str], str] = field(default_factory=dict)
    charges: list[str] = field(default_factory=list)
    highest: int = 0
    busy: int = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        paid = "payment-signature" in request.headers
        self.busy += paid
        assert self.busy <= 1  # one voucher at a time
        try:
            await asyncio.sleep(0)
            return await self._handle(request)
        finally:
            self.busy -= paid

    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        amount = price_of(str(request.url))
        header = request.headers.get("payment-signature")
        if header is None:
            return self._asked(amount, "payment_required")
        document = json.loads(base64.b64decode(header))
        payment = read_channel_payment(document["payload"])
        self.highest = max(self.highest, payment.voucher.ceiling)
        fault = self.faults.popleft() if self.faults else "ok"
        if fault == "drop":
            raise httpx2.ReadTimeout("lost on the way")
        if fault == "503":
            return httpx2.Response(503, headers={"retry-after": "0"})
        if fault == "404":
            return httpx2.Response(404)
        if fault == "forget":  # the server comes back from an older copy of its books
            self.charged = self.claimed
            self.deliveries.clear()
        if fault == "claim":
            self.claimed = self.charged
        if fault == "refund":
            self.claimed, self.balance = self.charged, self.charged
        answer = self._take(str(request.url), amount, payment)
        if fault == "lost":
            raise httpx2.ReadError("lost on the way back")
        if fault == "charge503":
            return httpx2.Response(503, headers={"retry-after": "0"})
        return answer

    def _take(self, url: str, amount: int, payment: Any) -> httpx2.Response:
        voucher = payment.voucher
        assert signed_by_key(voucher, ACCOUNT.address.lower(), CHAIN_ID)
        assert payment.config.payer == ACCOUNT.address.lower()
        self.channel_id = voucher.channel_id
        key = (voucher.ceiling, voucher.signature)
        if self.serves_again and self.deliveries.get(key) == url:
            return self._delivered(amount, voucher.ceiling)
        if voucher.ceiling != self.charged + amount:
            return self._asked(amount, codes.AMOUNT_MISMATCH)
        if payment.deposit is not None:
            nonce = payment.deposit.salt
            if nonce in self.deposits and not self.serves_again:
                return self._asked(amount, "invalid_batch_settlement_evm_deposit_payload")
            if nonce not in self.deposits:
                self.deposits.add(nonce)
                self.balance += payment.deposit.amount
        if voucher.ceiling > self.balance:
            return self._asked(amount, codes.EXCEEDS_BALANCE)
        self.charged, self.ceiling = voucher.ceiling, voucher.ceiling
        self.signature = voucher.signature
        self.deliveries[key] = url
        self.charges.append(url)
        return self._delivered(amount, self.charged)

    def _delivered(self, amount: int, charged: int) -> httpx2.Response:
        state = self._state(charged)
        extra = {"chargedAmount": str(amount), "channelState": state}
        document = {"success": True, "transaction": "", "network": NETWORK, "extra": extra}
        return httpx2.Response(200, headers={"payment-response": encoded(document)}, content=b"x")

    def _asked(self, amount: int, error: str) -> httpx2.Response:
        extra: dict[str, Any] = {}
        if error == codes.AMOUNT_MISMATCH and self.signature:
            proof = {"signedMaxClaimable": str(self.ceiling), "signature": self.signature}
            extra = {"channelState": self._state(self.charged), "voucherState": proof}
        document = {"x402Version": 2, "error": error, "accepts": [offer(amount, **extra)]}
        return httpx2.Response(402, headers={"payment-required": encoded(document)})

    def _state(self, charged: int) -> dict[str, Any]:
        return {
            "channelId": self.channel_id,
            "balance": str(self.balance),
            "totalClaimed": str(self.claimed),
            "withdrawRequestedAt": 0,
            "refundNonce": "0",
            "chargedCumulativeAmount": str(charged),
        }

    async def read(self, network: str, channel_id: str) -> ChannelOnChain:
        assert network == NETWORK
        return ChannelOnChain(self.balance, self.claimed)


def price_of(url: str) -> int:
    return 1 + int(url.rpartition("-")[2])


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


MISHAPS = ["ok", "ok", "drop", "lost", "503", "charge503", "404", "claim"]
UNDECIDED = (PaymentPending, DeliveryFailed, PaymentRefused)


async def fetch(client: httpx2.AsyncClient, url: str) -> int | Exception:
    quoted = Quoted("http://127.0.0.1/item", amount=price_of(url))
    try:
        return (await client.get(url, extensions={QUOTED: quoted})).status_code
    except UNDECIDED as error:
        return error


def a_client(model: Model, payer: Payer, **how: Any) -> httpx2.AsyncClient:
    transport = PayingTransport(payer, model, patience=QUICK, sleep=no_sleep, **how)
    return httpx2.AsyncClient(transport=transport)


@given(
    prices=st.lists(st.integers(0, 400), min_size=1, max_size=8),
    faults=st.lists(st.sampled_from(MISHAPS), max_size=25),
    serves_again=st.booleans(),
    rpc=st.booleans(),
    parallel=st.booleans(),
)
@settings(max_examples=120)
def test_an_honest_server_is_paid_once_for_each_delivery_whatever_happens(
    prices: list[int], faults: list[str], serves_again: bool, rpc: bool, parallel: bool
) -> None:
    model = Model(serves_again, deque(faults))
    payer = Payer(ACCOUNT, Budget(10**6))
    urls = [f"http://127.0.0.1/item/{n}-{price}" for n, price in enumerate(prices)]
    answers: dict[str, int | Exception] = {}
    lost: list[str] = []

    async def run() -> None:
        async with a_client(model, payer, read_channel=model.read if rpc else None) as client:
            for _ in range(30):
                left = [url for url in urls if answers.get(url) != 200]
                if not left:
                    break
                if parallel:
                    found = await asyncio.gather(*(fetch(client, url) for url in left))
                else:
                    found = [await fetch(client, url) for url in left]
                answers.update(zip(left, found, strict=True))
                for url, answer in zip(left, found, strict=True):
                    if isinstance(answer, PaymentRefused) and answer.code == "charged_before":
                        lost.append(url)
                _check(model, payer)

    asyncio.run(run())
    assert all(answers[url] == 200 for url in urls)
    for url in urls:  # twice only after it was said that the first one was lost
        assert model.charges.count(url) <= 1 + lost.count(url) + faults.count("404")
    if serves_again:  # of two of one price and unknown outcome none can tell which was charged
        assert not lost or len(set(prices)) < len(prices)
        assert sorted(model.charges) == sorted(urls)
    (channel,) = payer.channels.values()
    assert not channel.fault
    assert channel.charged == model.charged


def _check(model: Model, payer: Payer) -> None:
    for channel in payer.channels.values():
        assert channel.signed == model.highest == payer.budget.signed
        assert model.charged <= channel.signed
        assert model.balance <= payer.budget.deposited <= payer.budget.total
        assert not channel.fault


@given(
    total=st.integers(0, 3000),
    cap=st.integers(0, 3000),
    per_item=st.none() | st.integers(0, 3000),
    prices=st.lists(st.integers(0, 900), min_size=1, max_size=10),
    faults=st.lists(st.sampled_from([*MISHAPS, "refund"]), max_size=20),
)
@settings(max_examples=120)
def test_no_limit_is_passed_by_vouchers_or_deposits(
    total: int, cap: int, per_item: int | None, prices: list[int], faults: list[str]
) -> None:
    model = Model(True, deque(faults))
    payer = Payer(ACCOUNT, Budget(total, per_item=per_item), deposit_cap=cap)

    async def run() -> None:
        async with a_client(model, payer) as client:
            for n, price in enumerate(prices):
                with contextlib.suppress(BudgetExceeded):
                    await fetch(client, f"http://127.0.0.1/item/{n}-{price}")
                assert model.highest <= min(total, total if per_item is None else per_item)
                assert model.highest == payer.budget.signed
                assert payer.budget.deposited <= total
                for channel in payer.channels.values():
                    assert channel.locked <= cap

    asyncio.run(run())


@given(
    prices=st.lists(st.integers(0, 400), min_size=2, max_size=10),
    faults=st.lists(st.sampled_from([*MISHAPS, "forget", "refund"]), max_size=20),
    restarts=st.sets(st.integers(0, 9)),
    keeps=st.booleans(),
    rpc=st.booleans(),
)
@settings(max_examples=120)
def test_restarts_and_lost_books_on_either_side(
    prices: list[int], faults: list[str], restarts: set[int], keeps: bool, rpc: bool
) -> None:
    """With its state on disk a payer signs on from where it was; without, it finds out."""
    model = Model(True, deque(faults))

    async def run(folder: Path) -> None:
        payer, signed = Payer(ACCOUNT, Budget(10**6)), 0
        for n, price in enumerate(prices):
            if n in restarts:
                payer, signed = Payer(ACCOUNT, Budget(10**6)), signed + payer.budget.signed
            store: ChannelStore = FileChannelStore(folder) if keeps else MemoryChannelStore()
            how: dict[str, Any] = {"store": store, "read_channel": model.read if rpc else None}
            async with a_client(model, payer, **how) as client:
                for _ in range(20):
                    if await fetch(client, f"http://127.0.0.1/item/{n}-{price}") == 200:
                        break
                else:
                    raise AssertionError("never delivered")
            if keeps:
                assert signed + payer.budget.signed == model.highest
        assert len(payer.channels) == 1

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


# What is signed.


def a_channel(**change: Any) -> PayerChannel:
    config = ChannelConfig(
        payer=ACCOUNT.address.lower(),
        payer_authorizer=ACCOUNT.address.lower(),
        receiver=PAYEE.lower(),
        receiver_authorizer="0x" + "aa" * 20,
        token=ASSET.lower(),
        withdraw_delay=86_400,
        salt="0x" + "07" * 32,
    )
    return replace(PayerChannel(channel_id_of(config, CHAIN_ID), NETWORK, config), **change)


class Keyless:
    """A signer that shows no key, as a hardware wallet would."""

    address = ACCOUNT.address

    def sign_typed_data(self, *args: Any, **how: Any) -> Any:
        return ACCOUNT.sign_typed_data(*args, **how)


def test_vouchers_are_the_sdks_whoever_signs_them() -> None:
    channel = a_channel()
    theirs = sign_voucher(EthAccountSigner(ACCOUNT), channel.channel_id, 716, NETWORK)
    for signer in (VoucherSigner(ACCOUNT), VoucherSigner(Keyless())):
        assert signer.voucher(channel, 716).wire() == theirs.to_dict()


def test_a_deposit_is_what_the_token_checks() -> None:
    channel, asset = a_channel(), next(a for a in KNOWN_ASSETS if a.network == NETWORK)
    order = sign_deposit(ACCOUNT, asset, channel.channel_id, 5000, valid_before=99, salt=b"s" * 32)
    message = {
        "from": ACCOUNT.address,
        "to": COLLECTOR,
        "value": 5000,
        "validAfter": 0,
        "validBefore": 99,
        "nonce": build_erc3009_deposit_nonce(channel.channel_id, order.salt),
    }
    domain = {
        "name": asset.name,
        "version": asset.version,
        "chainId": CHAIN_ID,
        "verifyingContract": asset.address,
    }
    typed = encode_typed_data(domain, RECEIVE_AUTHORIZATION_TYPES, message)
    assert Account.recover_message(typed, signature=order.signature) == ACCOUNT.address


def test_calls_are_as_the_contracts_abi_has_them() -> None:
    contract = Web3().eth.contract(abi=BATCH_SETTLEMENT_ABI)
    channel = a_channel()
    theirs = to_contract_channel_config(SdkConfig.from_dict(channel.config.wire()))
    order = Deposit(7, 1, 2, "0x" + "0a" * 32, "0x" + "0b" * 65)
    data = build_erc3009_collector_data("1", "2", order.salt, order.signature)
    pairs = [
        (chain.initiate_withdraw_call(channel.config, 9), "initiateWithdraw", theirs, 9),
        (chain.finalize_withdraw_call(channel.config), "finalizeWithdraw", theirs),
        (chain.channels_call(channel.channel_id), "channels", channel.channel_id),
        (
            chain.pending_withdrawals_call(channel.channel_id),
            "pendingWithdrawals",
            channel.channel_id,
        ),
        (
            chain.deposit_call(channel.config, order),
            "deposit",
            theirs,
            7,
            Web3.to_checksum_address(COLLECTOR),
            data,
        ),
    ]
    for ours, name, *args in pairs:
        assert ours == contract.encode_abi(name, args)


@pytest.mark.parametrize(
    ("change", "amount", "limits", "expected", "deposit"),
    [
        ({}, 100, (1000, 5000), None, 1000),  # as the server likes it
        ({}, 2000, (1000, 5000), None, 2000),  # what is needed, at least
        ({}, 100, (1000, 300), None, 300),  # as much as is allowed
        ({"balance": 1000}, 100, (1000, 5000), None, 0),  # there is enough
        ({"balance": 1000, "charged": 750}, 100, (1000, 5000), None, 1000),  # soon there is not
        ({"balance": 1000, "charged": 750}, 100, (1000, 999), None, 0),  # it can wait
        ({"balance": 1000, "charged": 750}, 100, (1000, 5000), 150, 0),  # that is all of it
        ({"balance": 1000, "charged": 950}, 100, (1000, 999), None, 999),
        ({"deposit": Deposit(500, 0, 200, "0x", "0x")}, 100, (1000, 5000), None, 500),
        ({"deposit": Deposit(500, 0, 99, "0x", "0x")}, 100, (1000, 5000), None, 1000),
    ],
)
def test_how_much_is_deposited(
    change: dict[str, Any],
    amount: int,
    limits: tuple[int, int],
    expected: int | None,
    deposit: int,
) -> None:
    target, most = limits
    channel = a_channel(**change)
    assert deposit == deposit_for(
        channel, amount, target=target, most=most, expected=expected, now=100
    )


def test_a_deposit_beyond_the_limits_is_not_made() -> None:
    with pytest.raises(BudgetExceeded, match="deposit"):
        deposit_for(a_channel(), 100, target=1000, most=99, expected=None, now=0)
    under_way = a_channel(deposit=Deposit(50, 0, 200, "0x", "0x"))
    with pytest.raises(BudgetExceeded, match="under way"):
        deposit_for(under_way, 100, target=1000, most=9999, expected=None, now=100)


def test_a_channel_is_preferred_and_exact_is_what_is_left() -> None:
    exact = {**offer(700), "scheme": "exact"}
    terms = read_challenge(encoded({"x402Version": 2, "accepts": [exact, offer(700)]}), b"")
    item = Quoted("http://127.0.0.1/item")
    assert Payer(ACCOUNT, Budget(10_000)).choose(terms, item).scheme == "batch-settlement"
    assert (
        Payer(ACCOUNT, Budget(10_000), schemes=(ExactPayer,)).choose(terms, item).scheme == "exact"
    )
    poor = Payer(ACCOUNT, Budget(10_000))
    poor.budget.deposit(9_500)  # all but so much is deposited elsewhere
    assert poor.choose(terms, item).scheme == "exact"
    only = read_challenge(encoded({"x402Version": 2, "accepts": [offer(700)]}), b"")
    with pytest.raises(BudgetExceeded, match="deposit"):
        poor.choose(only, item)
    with pytest.raises(TermsRefused, match="way"):
        Payer(ACCOUNT, Budget(10_000), schemes=(ExactPayer,)).choose(only, item)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"receiverAuthorizer": "0x" + "00" * 20}, "nobody"),
        ({"receiverAuthorizer": None}, "nobody"),
        ({"withdrawDelay": 899}, "withdrawals"),
        ({"withdrawDelay": 2_592_001}, "withdrawals"),
        ({"withdrawDelay": "86400"}, "withdrawal"),
        ({"withdrawDelay": True}, "withdrawal"),
        ({"assetTransferMethod": "permit2"}, "EIP-3009"),
    ],
)
def test_channels_that_are_never_opened(extra: dict[str, Any], why: str) -> None:
    terms = read_challenge(encoded({"x402Version": 2, "accepts": [offer(7, **extra)]}), b"")
    with pytest.raises(TermsRefused, match=why):
        Payer(ACCOUNT, Budget(10_000)).choose(terms, Quoted("i"))


# The pace.


def test_a_minute_has_its_limit() -> None:
    budget = Budget(10_000, per_minute=100)
    budget.take(60, "i", 1000.0)
    budget.take(40, "i", 1030.0)
    with pytest.raises(TooSoon) as soon:
        budget.check_pace(50, 1040.0)
    assert soon.value.wait == pytest.approx(20)
    with pytest.raises(TooSoon) as later:
        budget.check_pace(70, 1040.0)
    assert later.value.wait == pytest.approx(50)
    budget.check_pace(60, 1060.0)
    with pytest.raises(BudgetExceeded, match="one minute"):
        budget.check_delivery(101, size=None)


# On disk.


async def kept(folder: Path, *channels: PayerChannel) -> None:
    store = FileChannelStore(folder)
    for channel in channels:
        await store.take(channel.channel_id)
        await store.keep(channel, sync=True)
        store.give(channel.channel_id)


async def test_a_channel_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    full = a_channel(
        charged=7,
        signed=9,
        balance=100,
        open=(Open("x:1", 9, 2, 50),),
        gone=("x:0",),
        deposit=Deposit(50, 0, 99, "0x" + "01" * 32, "0x" + "02" * 65),
        fault="it lied",
    )
    await kept(tmp_path, a_channel(), full)
    assert FileChannelStore(tmp_path).load() == {full.channel_id: full}
    assert await FileChannelStore(tmp_path).take(full.channel_id) == full
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


async def test_a_line_torn_by_a_crash_was_never_presented(tmp_path: Path) -> None:
    await kept(tmp_path, a_channel(charged=1), a_channel(charged=2))
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    assert FileChannelStore(tmp_path).load()[a_channel().channel_id].charged == 1
    await kept(tmp_path, a_channel(charged=3))
    assert len(path.read_bytes().splitlines()) == 2
    path.write_bytes(b"{}\n")
    with pytest.raises(ConfigError, match="not the state of a channel"):
        FileChannelStore(tmp_path).load()


async def test_a_long_file_is_begun_anew(tmp_path: Path) -> None:
    store, other = FileChannelStore(tmp_path), FileChannelStore(tmp_path)
    channel = a_channel()
    largest = 0
    for charged in range(1500):
        channel = replace(channel, charged=charged)
        await store.take(channel.channel_id)
        await store.keep(channel, sync=False)
        store.give(channel.channel_id)
        if charged % 100 == 0:
            assert await other.take(channel.channel_id) == channel
            other.give(channel.channel_id)
        (path,) = tmp_path.glob("*.jsonl")
        largest = max(largest, path.stat().st_size)
    assert 250_000 < largest < 300_000
    assert path.stat().st_size < largest
    assert FileChannelStore(tmp_path).load()[channel.channel_id].charged == 1499


async def test_others_wait_until_a_turn_is_over(tmp_path: Path) -> None:
    first, second = FileChannelStore(tmp_path), FileChannelStore(tmp_path)
    channel = a_channel()
    assert await first.take(channel.channel_id) is None
    waiting = asyncio.create_task(second.take(channel.channel_id))
    await first.keep(replace(channel, charged=5), sync=True)
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    first.give(channel.channel_id)
    found = await waiting
    assert found is not None
    assert found.charged == 5


async def test_a_disk_that_refuses_stops_before_anything_is_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        FileChannelStore(tmp_path / "file" / "channels")


# Deposits that were signed and refused stay good until they expire.


@dataclass
class Stubborn(httpx2.AsyncBaseTransport):
    """A server that takes no deposit in front of the payer, and may put each on chain later.

    With ``delivers`` it hands over what is paid out of ``balance`` and says no word of deposits.
    """

    delivers: bool = False
    balance: int = 0
    charged: int = 0
    orders: dict[str, Deposit] = field(default_factory=dict)
    handed: int = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        amount = price_of(str(request.url))
        header = request.headers.get("payment-signature")
        if header is None:
            return self._asks(amount, "payment_required")
        payment = read_channel_payment(json.loads(base64.b64decode(header))["payload"])
        if payment.deposit is not None:
            self.handed += 1
            self.orders[payment.deposit.salt] = payment.deposit
        if self.delivers and payment.voucher.ceiling <= self.balance:
            self.charged = payment.voucher.ceiling
            state = {
                "channelId": payment.voucher.channel_id,
                "balance": str(self.balance),
                "totalClaimed": "0",
                "chargedCumulativeAmount": str(self.charged),
            }
            extra = {"chargedAmount": str(amount), "channelState": state}
            document = {"success": True, "transaction": "", "network": NETWORK, "extra": extra}
            return httpx2.Response(
                200, headers={"payment-response": encoded(document)}, content=b"x"
            )
        if payment.deposit is not None:
            return self._asks(amount, "invalid_batch_settlement_evm_deposit_payload")
        return self._asks(amount, codes.EXCEEDS_BALANCE)

    def _asks(self, amount: int, error: str) -> httpx2.Response:
        document = {"x402Version": 2, "error": error, "accepts": [offer(amount)]}
        return httpx2.Response(402, headers={"payment-required": encoded(document)})

    def valid(self, now: float) -> int:
        """What the payer's signatures would move if all of them were put on chain."""
        return sum(order.amount for order in self.orders.values() if now < order.valid_before)


async def test_a_refused_deposit_is_handed_over_again_until_it_expires() -> None:
    server, now = Stubborn(), 1_000_000.0
    payer = Payer(ACCOUNT, Budget(10**6), deposit_cap=1500)
    async with a_client(server, payer, clock=lambda: now) as client:
        for n in range(6):
            with pytest.raises(PaymentRefused):
                await client.get(f"http://127.0.0.1/item/{n}-99")
            assert len(server.orders) == 1
            assert server.valid(now) <= 1500
            now += 20
        assert server.handed > 2
        now += 600  # nobody can take the first one any more
        with pytest.raises(PaymentRefused):
            await client.get("http://127.0.0.1/item/6-99")
        assert len(server.orders) == 2


async def test_deposits_that_a_server_keeps_to_itself_count_against_the_limit() -> None:
    server, now = Stubborn(delivers=True, balance=1000), 1_000_000.0
    payer = Payer(ACCOUNT, Budget(10**6), deposit_cap=2500)
    async with a_client(server, payer, clock=lambda: now) as client:
        await fetch(client, "http://127.0.0.1/item/first-0")
        server.orders.clear()  # what the server says lies in the channel now
        for n, price in enumerate([99] * 8 + [9] * 15):  # low: a deposit with each for the next
            with contextlib.suppress(BudgetExceeded):
                await fetch(client, f"http://127.0.0.1/item/{n}-{price}")
            (channel,) = payer.channels.values()
            assert channel.balance - channel.charged + server.valid(now) <= 2500
        assert server.charged > 900
        assert server.orders


async def test_a_deposit_of_an_earlier_run_counts_until_it_expires(tmp_path: Path) -> None:
    server, now = Stubborn(), 1_000_000.0
    first = Payer(ACCOUNT, Budget(10_000), deposit_cap=800)
    store = FileChannelStore(tmp_path)
    async with a_client(server, first, store=store, clock=lambda: now) as client:
        with pytest.raises(PaymentRefused):
            await client.get("http://127.0.0.1/item/0-99")
    assert server.valid(now) == 900
    second = Payer(ACCOUNT, Budget(1000), salt="0x" + "02" * 32)  # another channel, a small budget
    async with a_client(Stubborn(), second, store=FileChannelStore(tmp_path)) as client:
        terms = read_challenge(encoded({"x402Version": 2, "accepts": [offer(200)]}), b"")
        with pytest.raises(BudgetExceeded, match="deposit"):
            second.choose(terms, Quoted("http://127.0.0.1/item"), now)
        assert second.choose(terms, Quoted("http://127.0.0.1/item"), now + 600).amount == 200

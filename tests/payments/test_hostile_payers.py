"""What payers send to get more than they paid for, or to stop others from paying."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from tests.fakes import USDC
from tests.support.facilitator_double import facilitator_double
from tests.support.paying import (
    PaymentParts,
    a_payer,
    a_sale,
    a_till,
    offered,
    payment_headers,
    sign,
)
from xbyte_live.errors import (
    FacilitatorUnavailable,
    PaymentMalformed,
    PaymentPending,
    PaymentRefused,
)
from xbyte_live.payments.facilitators.remote import (
    Refused,
    RemoteFacilitator,
    Settled,
    SignedPayment,
    Unknown,
)
from xbyte_live.payments.ledger.charge import Charge, Exposure
from xbyte_live.payments.x402.requirements import Sale

OPTIMISTIC = Exposure(cap=5000, new_payer_cap=5000)
USED = "invalid_exact_evm_nonce_already_used"

# JSON that we read, and that no facilitator's JSON library has to.
UNWRITABLE = '{"nul": "\\u0000", "deep": ' + "[" * 99 + "]" * 99 + "}"
NO_JSON = ["1e999", '"\\ud800"', "NaN", "[" * 2000 + "]" * 2000]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def with_riders(till: PaymentParts, payer: LocalAccount, sale: Sale) -> dict[str, str]:
    """A good payment that carries what nobody asked for."""
    accepted = offered(till.gate, sale)
    payload = sign(payer, accepted, now=till.time())
    payload |= {"permit2Authorization": {"from": payer.address}, "more": "MORE"}
    payload["authorization"]["more"] = "MORE"
    document = {"x402Version": 2, "accepted": accepted, "payload": payload, "extensions": "MORE"}
    text = json.dumps(document | {"resource": "MORE"}).replace('"MORE"', UNWRITABLE)
    return {"PAYMENT-SIGNATURE": base64.b64encode(text.encode()).decode()}


async def the_charge(
    till: PaymentParts, payer: LocalAccount, sale: Sale, headers: dict[str, str]
) -> Charge:
    document = json.loads(base64.b64decode(headers["PAYMENT-SIGNATURE"]))
    nonce = document["payload"]["authorization"]["nonce"]
    charge = await till.ledger.find(
        USDC.network, USDC.address.lower(), payer.address.lower(), nonce
    )
    assert charge is not None
    return charge


async def refusal(till: PaymentParts, headers: dict[str, str], sale: Sale) -> str:
    with pytest.raises(PaymentRefused) as refused:
        await till.gate.charge(headers, sale)
    return refused.value.code


async def states(till: PaymentParts) -> dict[str, int]:
    return {total.state: total.count for total in await till.ledger.totals()}


async def until(till: PaymentParts, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the settlement's own loop until something is so."""
    running = asyncio.create_task(till.settlement.run())
    try:
        async with asyncio.timeout(20):
            while not await done():
                assert not running.done(), "the settlement ended"
                await asyncio.sleep(0)
        await till.settlement.drain()
    finally:
        running.cancel()


async def test_only_what_was_checked_goes_to_a_facilitator(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, sale = a_payer(), a_sale()
        headers = with_riders(till, payer, sale)
        await till.gate.charge(headers, sale)
        charge = await the_charge(till, payer, sale, headers)
        assert set(charge.document) == {"x402Version", "accepted", "payload", "resource"}
        assert set(charge.document["payload"]) == {"authorization", "signature"}
        assert len(charge.document["payload"]["authorization"]) == 6
        assert charge.document["accepted"] == charge.requirements == offered(till.gate, sale)
        assert charge.document["resource"]["url"] == sale.url


@pytest.mark.parametrize("rider", NO_JSON, ids=["infinity", "half a pair", "nan", "deep"])
async def test_what_json_cannot_say_is_no_payment(url: str, rider: str) -> None:
    async with a_till(url) as till:
        text = '{"x402Version": 2, "rider": ' + rider + "}"
        value = base64.b64encode(text.encode()).decode()
        with pytest.raises(PaymentMalformed):
            await till.gate.charge({"PAYMENT-SIGNATURE": value}, a_sale())


async def test_whatever_a_payment_carries_can_be_sent_to_a_real_facilitator(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till, facilitator_double() as double:
        payer, sale = a_payer(), a_sale()
        headers = with_riders(till, payer, sale)
        await till.gate.charge(headers, sale)
        charge = await the_charge(till, payer, sale, headers)
        remote = RemoteFacilitator([double.url], timeout=5)
        outcome = await remote.settle(SignedPayment(2, charge.document, charge.requirements))
        await remote.close()
        assert isinstance(outcome, Settled)


async def test_a_payment_with_riders_is_the_payment_without_them(url: str) -> None:
    async with a_till(url) as till:
        payer, sale = a_payer(), a_sale()
        headers = with_riders(till, payer, sale)
        first = await till.gate.charge(headers, sale)
        document = json.loads(base64.b64decode(headers["PAYMENT-SIGNATURE"]))
        plain = await the_charge(till, payer, sale, headers)
        again = {"x402Version": 2, "accepted": document["accepted"]} | {
            "payload": plain.document["payload"]
        }
        value = base64.b64encode(json.dumps(again).encode()).decode()
        assert await till.gate.charge({"PAYMENT-SIGNATURE": value}, sale) == first
        assert len(till.facilitator.settled) == 1


async def test_a_version_1_payment_is_sent_as_it_was_checked_too(url: str) -> None:
    async with a_till(url) as till:
        payer, sale = a_payer(), a_sale()
        terms = offered(till.gate, sale, version=1)
        payload = sign(payer, terms, now=till.time()) | {"permit2Authorization": {}}
        document: dict[str, Any] = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}
        document |= {"payload": payload, "accepted": "MORE"}
        value = base64.b64encode(json.dumps(document).encode()).decode()
        await till.gate.charge({"X-PAYMENT": value}, sale)
        charge = await the_charge(till, payer, sale, {"PAYMENT-SIGNATURE": value})
        assert set(charge.document) == {"x402Version", "scheme", "network", "payload"}
        assert set(charge.document["payload"]) == {"authorization", "signature"}
        assert charge.requirements == terms


async def test_a_payment_for_few_bytes_does_not_open_many_under_the_same_name(url: str) -> None:
    """An object that was replaced by a larger one, say."""
    async with a_till(url) as till:
        small, large = a_sale("/objects/x"), a_sale("/objects/x", size=2**30, price=10**6)
        headers = till.pay(a_payer(), small)
        await till.gate.charge(headers, small)
        assert await refusal(till, headers, large) == USED
        await till.gate.charge(headers, small)


async def test_an_authorization_about_to_expire_is_settled_first(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, sale = a_payer(), a_sale()
        await till.gate.charge(till.pay(payer, sale, valid_for=149), sale)
        assert await states(till) == {"settled": 1}
        await till.gate.charge(till.pay(payer, sale, valid_for=151), sale)
        assert await states(till) == {"settled": 1, "queued": 1}


async def test_one_charge_that_cannot_be_settled_does_not_stop_the_others(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        for number in range(3):
            sale = a_sale(f"/{number}")
            await till.gate.charge(till.pay(a_payer(), sale), sale)
        till.facilitator.script = [RuntimeError("nobody thought of this")]

        async def two_settled() -> bool:
            return await states(till) == {"queued": 1, "settled": 2}

        await until(till, two_settled)
        till.time.now += 60

        async def all_settled() -> bool:
            return await states(till) == {"settled": 3}

        await until(till, all_settled)


async def test_an_unforeseen_failure_leaves_a_payment_in_doubt(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.script = [RuntimeError("nobody thought of this")]
        with pytest.raises(PaymentPending):
            await till.gate.charge(headers, sale)
        assert await states(till) == {"pending": 1}
        assert (await till.gate.charge(headers, sale)).amount == 1000
        assert len(till.facilitator.settled) == 1


async def test_a_full_queue_sells_nothing_more(url: str) -> None:
    """Under ``optimistic`` too: what cannot be settled before it expires is given away."""
    async with a_till(url, exposure=OPTIMISTIC, queue=20) as till:  # 16 of them at a time
        till.facilitator.gate.clear()
        for number in range(20):
            sale = a_sale(f"/{number}")
            await till.gate.charge(till.pay(a_payer(), sale), sale)

        async def is_full() -> bool:
            return not till.settlement.has_room

        await until_held(till, is_full)
        with pytest.raises(FacilitatorUnavailable):
            await till.gate.charge(till.pay(a_payer(), a_sale()), a_sale())
        assert await states(till) == {"queued": 20}


async def until_held(till: PaymentParts, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the settlement's loop until something is so, while nothing can settle."""
    running = asyncio.create_task(till.settlement.run())
    try:
        async with asyncio.timeout(20):
            while not await done():
                await asyncio.sleep(0)
    finally:
        running.cancel()


@pytest.mark.parametrize("outcome", [Refused("insufficient_funds"), Unknown("timeout")])
async def test_presenting_failed_payments_again_waits_for_room_too(
    url: str, outcome: Refused | Unknown
) -> None:
    async with a_till(url, settle_wait=2, queue=1) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.script = [outcome]
        with pytest.raises((PaymentRefused, PaymentPending)):
            await till.gate.charge(headers, sale)
        till.facilitator.gate.clear()
        with pytest.raises(PaymentPending):
            await till.gate.charge(till.pay(a_payer(), sale), sale)
        with pytest.raises((PaymentPending, FacilitatorUnavailable)):
            await till.gate.charge(headers, sale)
        till.facilitator.gate.set()
        await till.settlement.drain()
        assert len(till.facilitator.settled) == 1


async def test_what_was_paid_for_opens_again_though_the_queue_is_full(url: str) -> None:
    async with a_till(url, settle_wait=2, queue=1) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        first = await till.gate.charge(headers, sale)
        till.facilitator.gate.clear()
        with pytest.raises(PaymentPending):
            await till.gate.charge(till.pay(a_payer(), sale), sale)
        assert not till.settlement.has_room
        assert await till.gate.charge(headers, sale) == first


async def test_amounts_that_round_together_stay_apart(url: str) -> None:
    async with a_till(url) as till:
        sale, other = a_sale(price=10**15 - 1), a_sale(price=10**15 - 1)
        terms = offered(till.gate, sale)
        off_by_one = payment_headers(a_payer(), terms, now=till.time(), value=10**15)
        code = await refusal(till, off_by_one, other)
        assert code == "invalid_exact_evm_payload_authorization_value_mismatch"

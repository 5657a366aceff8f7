"""Money rules 2 to 5, 7 and 8 for the ``exact`` scheme, on a real ledger."""

import asyncio
import base64
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.paying import (
    a_payer,
    a_sale,
    a_till,
    offered,
    sign,
    v1_headers,
    v2_header,
)
from xbyte_live.errors import (
    FacilitatorMisbehaved,
    FacilitatorUnavailable,
    PaymentMalformed,
    PaymentPending,
    PaymentRefused,
)
from xbyte_live.money import Price
from xbyte_live.payments.facilitators.remote import Refused, Unknown
from xbyte_live.payments.ledger.charge import Exposure, debt_resource
from xbyte_live.pricing.quotes import Quote

USED = "invalid_exact_evm_nonce_already_used"
OPTIMISTIC = Exposure(cap=5000, new_payer_cap=5000)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def refusal(till, headers, sale) -> str:
    with pytest.raises(PaymentRefused) as refused:
        await till.gate.charge(headers, sale)
    return refused.value.code


async def states(till) -> dict[str, tuple[int, int]]:
    return {t.state: (t.count, t.amount) for t in await till.ledger.totals()}


async def test_a_payment_is_settled_before_the_bytes_open(url: str) -> None:
    async with a_till(url) as till:
        payer, sale = a_payer(), a_sale()
        receipt = await till.gate.charge(till.pay(payer, sale), sale)
        answer = json.loads(base64.b64decode(receipt.headers["PAYMENT-RESPONSE"]))
        assert answer["success"] is True
        assert answer["transaction"] == next(iter(till.chain.used.values()))
        assert answer["amount"] == "1000"
        assert answer["payer"] == payer.address.lower()
        assert receipt.amount == 1000
        assert await states(till) == {"settled": (1, 1000)}


async def test_a_version_1_payment_gets_a_version_1_answer(url: str) -> None:
    async with a_till(url) as till:
        payer, sale = a_payer(), a_sale()
        headers = v1_headers(payer, offered(till.gate, sale, version=1), now=till.time())
        receipt = await till.gate.charge(headers, sale)
        answer = json.loads(base64.b64decode(receipt.headers["X-PAYMENT-RESPONSE"]))
        assert answer["success"] is True
        assert answer["network"] == "base-sepolia"


async def test_no_payment_asks_for_one(url: str) -> None:
    async with a_till(url) as till:
        assert await refusal(till, {}, a_sale()) == "payment_required"


async def test_200_parallel_replays_are_one_charge_and_one_transfer(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.gate.clear()
        asked = [asyncio.create_task(till.gate.charge(headers, sale)) for _ in range(200)]
        await till.facilitator.begun.wait()
        till.facilitator.gate.set()
        receipts = await asyncio.gather(*asked)
        assert len({r.headers["PAYMENT-RESPONSE"] for r in receipts}) == 1
        assert len(till.facilitator.settled) == 1
        assert await states(till) == {"settled": (1, 1000)}


async def test_200_parallel_replays_for_200_resources_open_one(url: str) -> None:
    async with a_till(url) as till:
        sales = [a_sale(f"/hls/plasma/source/{n}.ts") for n in range(200)]
        headers = till.pay(a_payer(), sales[0])
        results = await asyncio.gather(
            *(till.gate.charge(headers, sale) for sale in sales), return_exceptions=True
        )
        codes = Counter(r.code if isinstance(r, PaymentRefused) else "open" for r in results)
        assert codes == {"open": 1, USED: 199}
        assert len(till.facilitator.settled) == 1


async def test_a_range_is_another_resource(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        await till.gate.charge(headers, sale)
        other = a_sale("/hls/plasma/source/0.ts#bytes=0-99")
        assert await refusal(till, headers, other) == USED


async def test_a_retry_is_free_within_the_window_and_refused_after_it(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        first = await till.gate.charge(headers, sale)
        till.time.now += 119
        assert await till.gate.charge(headers, sale) == first
        till.time.now += 2
        assert await refusal(till, headers, sale) == USED
        assert len(till.facilitator.settled) == 1


async def test_a_retry_after_a_restart_is_free(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        first = await till.gate.charge(headers, sale)
        chain, now = till.chain, till.time.now
    async with a_till(url, chain=chain, at=now + 60) as till:
        assert await till.gate.charge(headers, sale) == first
        assert till.facilitator.settled == []


async def test_the_retry_window_outlasts_the_authorization_and_a_price_change(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale, valid_for=30)
        first = await till.gate.charge(headers, sale)
        till.time.now += 60
        dearer = a_sale(price=9000)
        assert await till.gate.charge(headers, dearer) == first


async def test_somebody_elses_signature_over_a_used_nonce_opens_nothing(url: str) -> None:
    async with a_till(url) as till:
        payer, sale = a_payer(), a_sale()
        nonce = "0x" + "7a" * 32
        await till.gate.charge(till.pay(payer, sale, nonce=nonce), sale)
        forged = sign(a_payer(), offered(till.gate, sale), nonce=nonce, now=till.time())
        forged["authorization"]["from"] = payer.address
        document = {"x402Version": 2, "accepted": offered(till.gate, sale), "payload": forged}
        assert await refusal(till, v2_header(document), sale) == USED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": 999}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"value": 1001}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"to": "0x" + "11" * 20}, "invalid_exact_evm_payload_recipient_mismatch"),
        ({"validBefore": 1}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"validAfter": 2**40}, "invalid_exact_evm_payload_authorization_valid_after"),
        ({"from": "0x" + "22" * 20}, "invalid_exact_evm_payload_signature"),
    ],
)
async def test_an_authorization_for_other_terms_is_refused(url, changes, code) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        payload = sign(a_payer(), offered(till.gate, sale), now=till.time(), **changes)
        document = {"x402Version": 2, "accepted": offered(till.gate, sale), "payload": payload}
        assert await refusal(till, v2_header(document), sale) == code
        assert await states(till) == {}


@pytest.mark.parametrize("field", ["amount", "asset", "payTo", "maxTimeoutSeconds", "extra"])
async def test_accepted_must_equal_the_offer_in_every_field(url: str, field: str) -> None:
    async with a_till(url) as till:
        sale, payer = a_sale(), a_payer()
        accepted = offered(till.gate, sale)
        payload = sign(payer, accepted, now=till.time())
        altered = accepted | {field: {"amount": "1", "maxTimeoutSeconds": 1}.get(field, "0x0")}
        document = {"x402Version": 2, "accepted": altered, "payload": payload}
        assert await refusal(till, v2_header(document), sale) == "invalid_payment_requirements"


async def test_other_schemes_and_networks_are_refused(url: str) -> None:
    async with a_till(url) as till:
        sale, payer = a_sale(), a_payer()
        accepted = offered(till.gate, sale)
        payload = sign(payer, accepted, now=till.time())
        for change, code in (
            ({"scheme": "upto"}, "unsupported_scheme"),
            ({"network": "eip155:1"}, "network_mismatch"),
        ):
            document = {"x402Version": 2, "accepted": accepted | change, "payload": payload}
            assert await refusal(till, v2_header(document), sale) == code


async def test_rubbish_is_malformed_and_costs_nothing(url: str) -> None:
    async with a_till(url) as till:
        for value in ("x", "e30=", base64.b64encode(b"[" * 9000).decode(), "A" * 20000):
            with pytest.raises(PaymentMalformed):
                await till.gate.charge({"PAYMENT-SIGNATURE": value}, a_sale())
        assert await states(till) == {}


async def test_an_older_quote_still_pays_and_a_foreign_one_does_not(url: str) -> None:
    async with a_till(url) as till:
        was, now = a_sale(price=1000), a_sale(price=2000)
        headers = till.pay(a_payer(), was)
        assert await refusal(till, headers, now) == "invalid_payment_requirements"
        pay_to = was.quotes[0].pay_to
        both = a_sale(quotes=(Quote(2**20, Price(2000), pay_to), *was.quotes))
        assert (await till.gate.charge(headers, both)).amount == 1000


async def test_a_facilitator_that_cannot_be_asked_leaves_the_payment_good(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.script = [FacilitatorUnavailable("down"), FacilitatorMisbehaved("308")]
        with pytest.raises(FacilitatorUnavailable):
            await till.gate.charge(headers, sale)
        with pytest.raises(FacilitatorMisbehaved):
            await till.gate.charge(headers, sale)
        assert await states(till) == {"failed": (1, 1000)}
        assert (await till.gate.charge(headers, sale)).amount == 1000
        assert len(till.facilitator.settled) == 1


async def test_a_refused_settlement_is_a_402_with_its_code(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.script = [Refused("invalid_exact_evm_insufficient_balance")]
        code = await refusal(till, headers, sale)
        assert code == "invalid_exact_evm_insufficient_balance"
        assert (await till.gate.charge(headers, sale)).amount == 1000  # topped up meanwhile


async def test_a_lost_answer_is_looked_up_on_the_chain(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        till.facilitator.script = ["moved, silent"]
        receipt = await till.gate.charge(till.pay(a_payer(), sale), sale)
        assert receipt.amount == 1000
        assert await states(till) == {"settled": (1, 1000)}


async def test_an_unknown_outcome_is_pending_until_the_chain_answers(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.chain.answers = False
        till.facilitator.script = ["moved, silent"]
        with pytest.raises(PaymentPending):
            await till.gate.charge(headers, sale)
        with pytest.raises(PaymentPending):  # asked again: not sent a second time as new
            await till.gate.charge(headers, sale)
        till.chain.answers = True
        assert (await till.gate.charge(headers, sale)).amount == 1000
        assert len(till.facilitator.settled) == 1


async def test_a_doubtful_payment_is_void_only_once_it_has_expired(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale, valid_for=200)
        till.facilitator.script = [Unknown("timeout"), Refused("invalid_balance")]
        with pytest.raises(PaymentPending):
            await till.gate.charge(headers, sale)
        with pytest.raises(PaymentPending):  # a refusal proves nothing about the first attempt
            await till.gate.charge(headers, sale)
        till.time.now += 201
        till.chain.now = till.time.now
        assert await refusal(till, headers, sale) == "authorization_void"
        assert till.facilitator.settled == []


async def test_a_slow_chain_answers_pending_and_the_same_payment_opens_later(url: str) -> None:
    async with a_till(url, settle_wait=0.05) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.facilitator.gate.clear()
        with pytest.raises(PaymentPending):
            await till.gate.charge(headers, sale)
        till.facilitator.gate.set()
        await till.settlement.drain()
        assert (await till.gate.charge(headers, sale)).amount == 1000
        assert len(till.facilitator.settled) == 1


async def test_payments_that_wait_for_the_chain_are_bounded(url: str) -> None:
    async with a_till(url, settle_wait=0.05, queue=1) as till:
        till.facilitator.gate.clear()
        with pytest.raises(PaymentPending):
            await till.gate.charge(till.pay(a_payer(), a_sale()), a_sale())
        with pytest.raises(FacilitatorUnavailable):
            await till.gate.charge(till.pay(a_payer(), a_sale()), a_sale())


async def test_optimistic_bytes_open_before_the_chain_and_settle_later(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        till.facilitator.gate.clear()
        sale = a_sale()
        receipt = await till.gate.charge(till.pay(a_payer(), sale), sale)
        assert json.loads(base64.b64decode(receipt.headers["PAYMENT-RESPONSE"]))["success"] is True
        assert await states(till) == {"queued": (1, 1000)}
        till.facilitator.gate.set()
        await settle_all_due(till)
        assert await states(till) == {"settled": (1, 1000)}


async def test_a_queue_survives_a_restart(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer = a_payer()
        for n in range(3):
            sale = a_sale(f"/{n}")
            await till.gate.charge(till.pay(payer, sale), sale)
        chain = till.chain
    async with a_till(url, exposure=OPTIMISTIC, chain=chain) as till:
        await settle_all_due(till)
        assert await states(till) == {"settled": (3, 3000)}
        assert len(chain.used) == 3


async def test_exposure_is_capped_also_for_parallel_requests(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC, settle_wait=0.05) as till:
        till.facilitator.gate.clear()
        payer = a_payer()
        sales = [a_sale(f"/{n}") for n in range(20)]
        results = await asyncio.gather(
            *(till.gate.charge(till.pay(payer, sale), sale) for sale in sales),
            return_exceptions=True,
        )
        assert sum(not isinstance(r, BaseException) for r in results) == 5
        assert all(isinstance(r, PaymentPending) for r in results if isinstance(r, BaseException))
        assert (await states(till))["queued"] == (5, 5000)


async def test_a_new_payer_has_a_smaller_cap_until_a_payment_settles(url: str) -> None:
    exposure = Exposure(cap=5000, new_payer_cap=0)
    async with a_till(url, exposure=exposure) as till:
        payer, first, second = a_payer(), a_sale("/1"), a_sale("/2")
        await till.gate.charge(till.pay(payer, first), first)
        assert await states(till) == {"settled": (1, 1000)}
        await till.gate.charge(till.pay(payer, second), second)
        assert (await states(till))["queued"] == (1, 1000)


async def test_a_debtor_is_refused_until_it_has_made_good(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, first, second = a_payer(), a_sale("/1"), a_sale("/2")
        await till.gate.charge(till.pay(payer, first), first)
        till.facilitator.script = [Refused("invalid_exact_evm_insufficient_balance")]
        await settle_all_due(till)
        assert await states(till) == {"failed": (1, 1000)}
        assert await refusal(till, till.pay(payer, second), second) == "payer_owes"
        [debt] = await till.ledger.debts(payer.address.lower())
        assert debt.amount == 1000
        owed = a_sale(f"/debts/{payer.address.lower()}/{debt.pay_to}", settle_first=True)
        await till.gate.charge(till.pay(payer, owed), owed)
        assert await till.ledger.debts(payer.address.lower()) == []
        await till.gate.charge(till.pay(payer, second), second)


async def test_a_delivery_is_paid_once_whether_as_a_debt_or_by_its_own_payment(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, sale = a_payer(), a_sale()
        headers = till.pay(payer, sale)
        await till.gate.charge(headers, sale)
        till.facilitator.script = [Refused("invalid_exact_evm_insufficient_balance")]
        await settle_all_due(till)
        assert await refusal(till, headers, sale) == "payer_owes"
        [debt] = await till.ledger.debts(payer.address.lower())
        owed = a_sale(debt_resource(payer.address.lower(), debt.pay_to), settle_first=True)
        await till.gate.charge(till.pay(payer, owed), owed)
        assert (await till.gate.charge(headers, sale)).amount == 1000  # its bytes are paid for
        assert len(till.facilitator.settled) == 1


async def test_a_debt_paid_while_another_one_fails_still_counts(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, dear, cheap = a_payer(), a_sale("/dear", price=2000), a_sale("/cheap")
        address = payer.address.lower()
        await till.gate.charge(till.pay(payer, dear), dear)
        await till.gate.charge(till.pay(payer, cheap), cheap)
        first, second = await till.ledger.due(2)
        await till.ledger.fail(second, "insufficient")
        [debt] = await till.ledger.debts(address)
        owed = a_sale(debt_resource(address, debt.pay_to), price=debt.amount, settle_first=True)
        await till.ledger.fail(first, "insufficient")
        await till.gate.charge(till.pay(payer, owed), owed)
        assert [d.amount for d in await till.ledger.debts(address)] == [2000]


async def test_a_debtor_is_refused_however_soon_its_payment_expires(url: str) -> None:
    async with a_till(url, exposure=OPTIMISTIC) as till:
        payer, first, second = a_payer(), a_sale("/1"), a_sale("/2")
        await till.gate.charge(till.pay(payer, first), first)
        till.facilitator.script = [Refused("invalid_exact_evm_insufficient_balance")]
        await settle_all_due(till)
        soon = till.pay(payer, second, valid_for=60)
        assert await refusal(till, soon, second) == "payer_owes"


async def test_a_payment_that_came_to_nothing_is_no_option_on_an_old_price(url: str) -> None:
    async with a_till(url) as till:
        sale, payer = a_sale(), a_payer()
        headers = till.pay(payer, sale, valid_for=10**7)
        till.facilitator.script = [Refused("invalid_exact_evm_insufficient_balance")]
        await refusal(till, headers, sale)
        till.time.now += 10**6
        assert await refusal(till, headers, a_sale(price=10**6)) == "invalid_payment_requirements"
        assert await refusal(till, headers, a_sale(retry_only=True)) == "not_for_sale"
        assert till.facilitator.settled == []


async def test_the_retry_window_begins_when_the_bytes_are_first_had(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        headers = till.pay(a_payer(), sale)
        till.chain.answers = False
        till.facilitator.script = ["moved, silent"]
        with pytest.raises(PaymentPending):
            await till.gate.charge(headers, sale)
        till.chain.answers = True
        till.time.now += 30
        await settle_all_due(till)
        assert await states(till) == {"settled": (1, 1000)}
        till.time.now += 3600
        first = await till.gate.charge(headers, sale)
        till.time.now += 119
        assert await till.gate.charge(headers, sale) == first
        till.time.now += 2
        assert await refusal(till, headers, sale) == USED


async def test_an_undelivered_payment_is_never_sent_in_the_background(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale()
        till.facilitator.script = [Unknown("timeout")]
        with pytest.raises(PaymentPending):
            await till.gate.charge(till.pay(a_payer(), sale, valid_for=400), sale)
        till.time.now += 100
        await settle_all_due(till)
        assert till.facilitator.settled == []
        assert await states(till) == {"pending": (1, 1000)}
        till.time.now = till.chain.now = till.time.now + 500
        await settle_all_due(till)
        assert await states(till) == {"failed": (1, 1000)}


async def test_what_is_off_sale_takes_only_payments_that_were_charged_before(url: str) -> None:
    async with a_till(url) as till:
        sale, gone = a_sale(), a_sale(retry_only=True)
        headers = till.pay(a_payer(), sale)
        first = await till.gate.charge(headers, sale)
        assert await till.gate.charge(headers, gone) == first
        assert await refusal(till, till.pay(a_payer(), sale), gone) == "not_for_sale"
        till.time.now += 121
        assert await refusal(till, headers, gone) == USED
        assert await states(till) == {"settled": (1, 1000)}


async def test_a_receipt_opens_the_same_bytes_again_where_rewatching_is_free(url: str) -> None:
    async with a_till(url) as till:
        sale = a_sale(rewatch_free=True)
        receipt = await till.gate.charge(till.pay(a_payer(), sale), sale)
        answer = json.loads(base64.b64decode(receipt.headers["PAYMENT-RESPONSE"]))
        token = answer["extensions"]["xbyte-receipt"]["receipt"]
        till.time.now += 10**6
        assert (await till.gate.charge({"XBYTE-RECEIPT": token}, sale)).amount == 0
        part = a_sale("/hls/plasma/source/0.ts#bytes=0-9", rewatch_free=True)
        assert (await till.gate.charge({"XBYTE-RECEIPT": token}, part)).amount == 0
        other = a_sale("/hls/plasma/source/1.ts", rewatch_free=True)
        paying = {"XBYTE-RECEIPT": token} | till.pay(a_payer(), other)
        assert (await till.gate.charge(paying, other)).amount == 1000
        assert await refusal(till, {"XBYTE-RECEIPT": token}, other) == "invalid_receipt"
        assert await refusal(till, {"XBYTE-RECEIPT": token}, a_sale()) == "invalid_receipt"
        for forged in (token[:-1] + "x", "1." + "0" * 64, "٣.x", "9" * 30 + ".x", "é.x"):
            assert await refusal(till, {"XBYTE-RECEIPT": forged}, sale) == "invalid_receipt"


async def settle_all_due(till) -> None:
    """Run the settlement's own loop until nothing is due."""
    running = asyncio.create_task(till.settlement.run())
    try:
        async with asyncio.timeout(10):
            while await till.ledger.due(1):
                await asyncio.sleep(0)
            await till.settlement.drain()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

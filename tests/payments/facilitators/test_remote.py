"""What a remote facilitator's answer, or its silence, says about the payer's money.

Everything turns on one question: can a transaction be on its way? If so the outcome is
``Unknown``; an error is raised, or the next facilitator asked, only if surely not.
"""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from x402.mechanisms.evm import constants as sdk
from x402.schemas.responses import SettleRequest, VerifyRequest

from tests.support.facilitator_double import (
    Answer,
    Endless,
    FacilitatorDouble,
    HangUp,
    Held,
    Reply,
    Trickle,
    as_json,
    facilitator_double,
    invalid,
    redirect,
    refusal,
    refusing_url,
    rubbish,
    silent_url,
    success,
    valid,
)
from xbyte_live.errors import FacilitatorError, FacilitatorMisbehaved, FacilitatorUnavailable
from xbyte_live.payments.facilitators.remote import (
    MAX_ANSWER,
    REFUSALS,
    Refused,
    RemoteFacilitator,
    Settled,
    SignedPayment,
    Unknown,
    Verdict,
    read_settle_answer,
)

TX = "0x" + "ab" * 32
REQUIREMENTS = {
    "scheme": "exact",
    "network": "eip155:84532",
    "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    "amount": "716",
    "payTo": "0x00000000000000000000000000000000000000aa",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USDC", "version": "2"},
}
PAYMENT = SignedPayment(
    2,
    {"x402Version": 2, "accepted": REQUIREMENTS, "payload": {"signature": "0x00"}},
    REQUIREMENTS,
)
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"

# Not acted on: whoever answered so did not look at the payment.
TURNED_AWAY = [401, 403, 404, 405, 406, 413, 415, 429]
# Anything else that is no x402 answer may have come after the transaction left.
UNCLEAR = [201, 204, 300, 303, 304, 400, 402, 408, 409, 422, 425, 500, 502, 503, 504, 520, 529]

# What the reference facilitators say although a transaction may be on its way, or may not.
UNCLEAR_CODES = [
    "transaction_failed",
    "settlement_pending",
    "unexpected_settle_error",
    "unexpected_error",
    "invalid_transaction_state",
    "invalid_exact_evm_transaction_failed",
    "invalid_exact_evm_failed_to_get_receipt",
    "invalid_exact_evm_failed_to_execute_transfer",
    "invalid_exact_evm_nonce_already_used",
    "invalid_exact_evm_transfer_event_mismatch",
    "invalid_exact_evm_verification_failed",
    "invalid_payload",
    "settle_exact_failed_onchain",
    "settle_exact_node_failure",
    "settle_exact_evm_transaction_confirmation_timed_out",
    "something_new",
]


@pytest.fixture
async def double() -> AsyncIterator[FacilitatorDouble]:
    async with facilitator_double() as running:
        yield running


@pytest.fixture
async def spare() -> AsyncIterator[FacilitatorDouble]:
    async with facilitator_double() as running:
        yield running


def remote(*urls: str, timeout: float = 5.0) -> RemoteFacilitator:
    return RemoteFacilitator(urls, timeout=timeout)


async def settle(*urls: str, timeout: float = 5.0) -> Settled | Refused | Unknown:
    facilitator = remote(*urls, timeout=timeout)
    try:
        return await facilitator.settle(PAYMENT)
    finally:
        await facilitator.close()


async def verify(*urls: str, timeout: float = 5.0) -> Verdict:
    facilitator = remote(*urls, timeout=timeout)
    try:
        return await facilitator.verify(PAYMENT)
    finally:
        await facilitator.close()


async def check(*urls: str, timeout: float = 5.0) -> None:
    facilitator = remote(*urls, timeout=timeout)
    try:
        await facilitator.check()
    finally:
        await facilitator.close()


# What is sent


async def test_a_request_is_what_the_sdk_reads(double: FacilitatorDouble) -> None:
    facilitator = remote(double.url + "/")
    await facilitator.verify(PAYMENT)
    await facilitator.settle(PAYMENT)
    await facilitator.close()
    to_verify, to_settle = double.calls
    assert (to_verify.method, to_verify.operation) == ("POST", "verify")
    assert (to_settle.method, to_settle.operation) == ("POST", "settle")
    assert to_settle.headers["content-type"] == "application/json"
    for call, model in ((to_verify, VerifyRequest), (to_settle, SettleRequest)):
        request = model.model_validate(call.body)
        sent = request.model_dump(by_alias=True, exclude_none=True)
        assert sent == call.body
        assert call.body == {
            "x402Version": 2,
            "paymentPayload": PAYMENT.document,
            "paymentRequirements": PAYMENT.requirements,
        }


async def test_nothing_packed_is_asked_for(double: FacilitatorDouble) -> None:
    await settle(double.url)
    assert double.calls[0].headers["accept-encoding"] == "identity"


# Settle: the money moved, or surely did not


async def test_a_settlement_has_its_transaction(double: FacilitatorDouble) -> None:
    double.next("settle", success(TX))
    assert await settle(double.url) == Settled(TX)


@pytest.mark.parametrize("code", sorted(REFUSALS))
async def test_a_refusal_before_anything_is_sent(double: FacilitatorDouble, code: str) -> None:
    double.next("settle", refusal(code))
    assert await settle(double.url) == Refused(code)


@pytest.mark.parametrize("status", [400, 402, 422, 500])
async def test_a_refusal_may_come_with_any_error_status(
    double: FacilitatorDouble, status: int
) -> None:
    double.next("settle", refusal("insufficient_funds", status=status))
    assert await settle(double.url) == Refused("insufficient_funds")


def test_every_code_the_sdk_gives_before_it_sends_is_a_refusal() -> None:
    """So that a payer whose payment is at fault hears so at once, with our own facilitator."""
    sent = {
        sdk.ERR_TRANSACTION_FAILED,
        sdk.ERR_SETTLEMENT_PENDING,
        sdk.ERR_TRANSFER_EVENT_MISMATCH,
        sdk.ERR_NONCE_ALREADY_USED,  # by our own earlier attempt, perhaps
    }
    others = ("permit2", "upto", "erc20")
    codes = {
        value
        for name, value in vars(sdk).items()
        if name.startswith("ERR_") and not any(other in value for other in others)
    }
    for code in codes - sent:
        assert read_settle_answer({"success": False, "errorReason": code}) == Refused(code)
    for code in sent:
        assert read_settle_answer({"success": False, "errorReason": code}) == Unknown(code)


# Settle: it may have been sent


@pytest.mark.parametrize("code", UNCLEAR_CODES)
async def test_a_code_that_leaves_it_open(
    double: FacilitatorDouble, spare: FacilitatorDouble, code: str
) -> None:
    double.next("settle", refusal(code))
    assert await settle(double.url, spare.url) == Unknown(code)
    assert spare.calls == []


async def test_a_refusal_with_a_transaction_is_none(double: FacilitatorDouble) -> None:
    double.next("settle", refusal("invalid_exact_evm_insufficient_balance", TX))
    assert await settle(double.url) == Unknown("invalid_exact_evm_insufficient_balance", TX)


@pytest.mark.parametrize("code", [None, 7, "", {}, "¿"])
async def test_a_refusal_without_a_code_leaves_it_open(
    double: FacilitatorDouble, code: Any
) -> None:
    double.next("settle", refusal(code))
    assert await settle(double.url) == Unknown("unexpected_settle_error")


@pytest.mark.parametrize("tx", ["", "0x", "pending", TX[:-1], TX + "0", TX[2:], "0x" + "é" * 64])
async def test_a_success_without_a_transaction_is_not_believed(
    double: FacilitatorDouble, tx: str
) -> None:
    double.next("settle", success(tx))
    assert await settle(double.url) == Unknown("settled without a transaction")


@pytest.mark.parametrize("tx", [None, 7, [TX], {"hash": TX}])
async def test_a_transaction_that_is_no_text_is_not_believed(
    double: FacilitatorDouble, tx: Any
) -> None:
    double.next("settle", as_json({"success": True, "transaction": tx}))
    assert isinstance(await settle(double.url), Unknown)


async def test_a_success_with_an_error_status_is_not_believed(double: FacilitatorDouble) -> None:
    body = {"success": True, "transaction": TX, "network": "", "payer": ""}
    double.next("settle", as_json(body, status=500))
    assert isinstance(await settle(double.url), Unknown)


@pytest.mark.parametrize("status", UNCLEAR)
async def test_a_status_that_leaves_it_open(
    double: FacilitatorDouble, spare: FacilitatorDouble, status: int
) -> None:
    double.next("settle", Reply(status, b"" if status in (204, 304) else b'{"error":"x"}'))
    assert isinstance(await settle(double.url, spare.url), Unknown)
    assert spare.calls == []


@pytest.mark.parametrize(
    "answer",
    [
        rubbish(),
        Reply(200, b""),
        Reply(200, b"{"),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"[" * 100_000),
        Reply(200, b'{"success": ' + b"9" * 10_000 + b"}"),
        as_json([{"success": True}]),
        as_json(None),
        as_json({}),
        as_json({"success": "true", "transaction": TX}),
        as_json({"success": 1, "transaction": TX}),
        as_json({"success": None, "transaction": TX}),
        as_json({"isValid": True}),
        HangUp(),
        HangUp(b"HTTP/1.1 200 OK\r\n"),
        HangUp(CUT),
        HangUp(b"no HTTP at all\r\n\r\n"),
        HangUp(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        HangUp(b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=lambda answer: repr(answer)[:40],
)
async def test_no_answer_in_the_x402_form_leaves_it_open(
    double: FacilitatorDouble, spare: FacilitatorDouble, answer: Answer
) -> None:
    double.next("settle", answer)
    assert isinstance(await settle(double.url, spare.url), Unknown)
    assert double.count("settle") == 1
    assert spare.calls == []


async def test_a_slow_facilitator_leaves_it_open(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    double.next("settle", Held())
    assert isinstance(await settle(double.url, spare.url, timeout=0.2), Unknown)
    assert (double.count("settle"), spare.calls) == (1, [])


async def test_a_trickle_takes_no_longer_than_the_timeout(double: FacilitatorDouble) -> None:
    double.next("settle", Trickle(0.02))
    async with asyncio.timeout(5):
        assert isinstance(await settle(double.url, timeout=0.3), Unknown)


async def test_an_answer_without_end_is_cut_off(double: FacilitatorDouble) -> None:
    endless = Endless()
    double.next("settle", endless)
    assert await settle(double.url) == Unknown("a facilitator's answer is too long")
    assert endless.sent < 64 * MAX_ANSWER


async def test_a_packed_answer_is_not_unpacked(double: FacilitatorDouble) -> None:
    packed = gzip.compress(b" " * (64 * 2**20) + success(TX).body)
    assert len(packed) < MAX_ANSWER
    for body in (packed, gzip.compress(success(TX).body)):
        double.next("settle", Reply(200, body, {"content-encoding": "gzip"}))
        assert isinstance(await settle(double.url), Unknown)


# Settle: it surely was not sent


@pytest.mark.parametrize("status", TURNED_AWAY)
async def test_who_turns_us_away_has_sent_nothing(double: FacilitatorDouble, status: int) -> None:
    double.always("settle", Reply(status, b'{"error":"x"}'))
    with pytest.raises(FacilitatorUnavailable, match=str(status)):
        await settle(double.url)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(
    double: FacilitatorDouble, spare: FacilitatorDouble, status: int
) -> None:
    double.always("settle", redirect(spare.url + "/settle", status))
    with pytest.raises(FacilitatorMisbehaved, match="redirect"):
        await settle(double.url)
    assert spare.calls == []


async def test_a_refused_connection_is_no_answer() -> None:
    with refusing_url() as url, pytest.raises(FacilitatorUnavailable):
        await settle(url)


async def test_a_connection_nobody_takes_is_no_answer() -> None:
    with silent_url() as url, pytest.raises(FacilitatorUnavailable):
        await settle(url, timeout=0.5)


async def test_a_connection_nobody_takes_is_no_answer_however_late_the_loop_is() -> None:
    with silent_url() as url, pytest.raises(FacilitatorUnavailable):
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.6)  # past every deadline
        await settle(url, timeout=0.5)


async def test_a_name_nobody_knows_is_no_answer() -> None:
    with pytest.raises(FacilitatorUnavailable):
        await settle("http://facilitator.invalid")


async def test_without_any_facilitator_none_is_available() -> None:
    with pytest.raises(FacilitatorUnavailable):
        await settle()


# Failover


async def test_the_first_that_answers_is_the_only_one_asked(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    double.next("settle", success(TX))
    assert await settle(double.url, spare.url) == Settled(TX)
    assert spare.calls == []


async def test_the_next_is_asked_when_nothing_can_have_been_sent(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    double.next("settle", Reply(429), redirect("http://x.invalid"), Reply(404))
    spare.always("settle", success(TX))
    with refusing_url() as dead, silent_url() as silent:
        assert await settle(dead, spare.url) == Settled(TX)
        assert await settle(silent, spare.url, timeout=1) == Settled(TX)
        for _ in range(3):
            assert await settle(double.url, spare.url) == Settled(TX)
    assert double.count("settle") == 3
    assert spare.count("settle") == 5


async def test_facilitators_are_asked_in_their_order(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    double.always("settle", Reply(429))
    spare.always("settle", refusal("insufficient_funds"))
    assert await settle(double.url, spare.url) == Refused("insufficient_funds")
    assert await settle(spare.url, double.url) == Refused("insufficient_funds")
    assert (double.count("settle"), spare.count("settle")) == (1, 2)


async def test_a_refusal_is_final(double: FacilitatorDouble, spare: FacilitatorDouble) -> None:
    double.next("settle", refusal("insufficient_funds"))
    assert await settle(double.url, spare.url) == Refused("insufficient_funds")
    assert spare.calls == []


async def test_the_last_failure_is_told(double: FacilitatorDouble) -> None:
    double.always("settle", redirect("http://x.invalid"))
    with refusing_url() as dead:
        with pytest.raises(FacilitatorMisbehaved):
            await settle(dead, double.url)
        with pytest.raises(FacilitatorMisbehaved):
            await settle(double.url, dead)


# Verify: nothing is ever sent, so any failure leads to the next


async def test_a_verdict(double: FacilitatorDouble) -> None:
    double.next("verify", valid(), invalid("insufficient_funds"))
    assert await verify(double.url) == Verdict(True)
    assert await verify(double.url) == Verdict(False, "insufficient_funds")


async def test_a_no_may_come_with_an_error_status_but_not_a_yes(double: FacilitatorDouble) -> None:
    double.next("verify", invalid("insufficient_funds", 400), as_json({"isValid": True}, 400))
    assert await verify(double.url) == Verdict(False, "insufficient_funds")
    with pytest.raises(FacilitatorMisbehaved, match="400"):
        await verify(double.url)


@pytest.mark.parametrize("reason", ["x" * 5000, "a b\r\nset-cookie: c", "<script>", "naïve_code"])
async def test_a_reason_is_cut_to_a_code(double: FacilitatorDouble, reason: str) -> None:
    double.next("verify", invalid(reason))
    verdict = await verify(double.url)
    assert verdict.code is not None
    assert len(verdict.code) <= 100
    assert all(c.isascii() and (c.isalnum() or c in "_-.") for c in verdict.code)


@pytest.mark.parametrize("reason", [None, 7, "", "é", []])
async def test_a_reason_that_is_no_code_is_none(double: FacilitatorDouble, reason: Any) -> None:
    double.next("verify", invalid(reason))
    assert await verify(double.url) == Verdict(False, None)


@pytest.mark.parametrize(
    "answer",
    [
        rubbish(),
        as_json({}),
        as_json({"isValid": "true"}),
        as_json({"isValid": 1}),
        as_json([]),
        Reply(200, b""),
        Reply(500),
        Reply(429),
        Reply(204),
        redirect("http://x.invalid"),
        HangUp(),
        HangUp(CUT),
        Endless(),
        Held(),
    ],
    ids=lambda answer: repr(answer)[:40],
)
async def test_the_next_is_asked_to_verify_after_any_failure(
    double: FacilitatorDouble, spare: FacilitatorDouble, answer: Answer
) -> None:
    double.always("verify", answer)
    assert await verify(double.url, spare.url, timeout=0.5) == Verdict(True)
    with pytest.raises(FacilitatorError):
        await verify(double.url, timeout=0.5)
    assert (double.count("verify"), spare.count("verify")) == (2, 1)


async def test_silence_is_told_from_rubbish(double: FacilitatorDouble) -> None:
    double.next("verify", Held(), rubbish(), redirect("http://x.invalid"))
    with pytest.raises(FacilitatorUnavailable):
        await verify(double.url, timeout=0.2)
    for _ in range(2):
        with pytest.raises(FacilitatorMisbehaved):
            await verify(double.url)
    with refusing_url() as dead, pytest.raises(FacilitatorUnavailable):
        await verify(dead)


async def test_a_redirect_to_verify_elsewhere_is_not_followed(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    double.always("verify", redirect(spare.url + "/verify"))
    with pytest.raises(FacilitatorMisbehaved):
        await verify(double.url)
    assert spare.calls == []


# Check


async def test_a_facilitator_that_lists_what_it_supports_is_well(
    double: FacilitatorDouble,
) -> None:
    await check(double.url)
    assert [(call.method, call.operation) for call in double.calls] == [("GET", "supported")]


async def test_one_that_is_well_is_enough(double: FacilitatorDouble) -> None:
    with refusing_url() as dead:
        await check(dead, double.url)


@pytest.mark.parametrize(
    "answer",
    [rubbish(), as_json({"kinds": 1}), as_json([]), Reply(500), redirect("http://x.invalid")],
    ids=lambda answer: repr(answer)[:40],
)
async def test_one_that_does_not_say_so_is_not_well(
    double: FacilitatorDouble, answer: Answer
) -> None:
    double.next("supported", answer)
    with pytest.raises(FacilitatorMisbehaved):
        await check(double.url)


async def test_one_that_is_silent_or_says_too_much_is_not_well(double: FacilitatorDouble) -> None:
    endless = Endless()
    double.next("supported", Held(), endless)
    with pytest.raises(FacilitatorUnavailable):
        await check(double.url, timeout=0.2)
    with pytest.raises(FacilitatorMisbehaved):
        await check(double.url)
    assert endless.sent < 64 * MAX_ANSWER
    with refusing_url() as dead, pytest.raises(FacilitatorUnavailable):
        await check(dead)


# Many at once, and given up


async def test_each_payment_gets_its_own_answer(double: FacilitatorDouble) -> None:
    transactions = [f"0x{number:064x}" for number in range(1, 51)]
    double.next("settle", *map(success, transactions))
    facilitator = remote(double.url)
    outcomes = await asyncio.gather(*(facilitator.settle(PAYMENT) for _ in transactions))
    await facilitator.close()
    assert sorted(map(repr, outcomes)) == sorted(repr(Settled(tx)) for tx in transactions)


async def test_giving_up_leaves_the_client_usable(double: FacilitatorDouble) -> None:
    held = Held()
    double.next("settle", held, success(TX))
    facilitator = remote(double.url)
    waiting = asyncio.create_task(facilitator.settle(PAYMENT))
    await held.arrived.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await facilitator.settle(PAYMENT) == Settled(TX)
    await facilitator.close()


# The answer alone

answers = st.fixed_dictionaries(
    {"success": st.booleans()},
    optional={
        "transaction": st.sampled_from(["", TX, "0x", None, 7]) | st.text(max_size=70),
        "errorReason": st.sampled_from([*sorted(REFUSALS), *UNCLEAR_CODES, None]) | st.text(),
        "more": st.integers(),
    },
)


@given(answers)
def test_an_answer_is_settled_or_refused_only_when_it_is_plain(answer: dict[str, Any]) -> None:
    outcome = read_settle_answer(answer)
    sent = answer.get("transaction")
    match outcome:
        case Settled(tx_hash):
            assert answer["success"] and tx_hash == sent and len(tx_hash) == 66
        case Refused(code):
            assert not answer["success"] and not sent
            assert code in REFUSALS or code.startswith("invalid_exact_evm_payload_")
        case Unknown(reason, tx_hash):
            assert reason and (tx_hash is None or tx_hash == sent)
            assert not (answer["success"] and sent == TX)


async def test_after_an_unknown_outcome_the_others_are_asked_first(
    double: FacilitatorDouble, spare: FacilitatorDouble
) -> None:
    facilitator = remote(double.url, spare.url)
    double.next("settle", Reply(503))
    try:
        assert isinstance(await facilitator.settle(PAYMENT), Unknown)
        assert (double.count("settle"), spare.count("settle")) == (1, 0)
        assert isinstance(await facilitator.settle(PAYMENT), Settled)
        assert (double.count("settle"), spare.count("settle")) == (1, 1)
    finally:
        await facilitator.close()

"""Payment by channel at the gate: every refusal, correction, retry, deposit and refund."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.client.config import BatchSettlementEvmSchemeOptions
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import (
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    PaymentResponseContext,
    SettleResponse,
)

from tests.support.channel_model import ModelChain, a_wallet
from tests.support.channel_parties import Payer
from tests.support.channel_till import (
    DELAY,
    FLOOR,
    WINDOW,
    ChannelTill,
    a_channel_till,
    a_document,
    answer_of,
    challenge_of,
    corrected,
)
from tests.support.paying import PAYEE, a_sale, v2_header
from xbyte_live.errors import (
    ChainUnavailable,
    FacilitatorError,
    PaymentMalformed,
    PaymentPending,
    PaymentRefused,
    VoucherMismatch,
)
from xbyte_live.evm import channels as codes
from xbyte_live.evm.channels import ZERO_ADDRESS, Voucher
from xbyte_live.money import Price
from xbyte_live.payments.batch_settlement.offers import state_ttl
from xbyte_live.payments.gate import PaymentResponse, Sale
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS
from xbyte_live.pricing.quotes import Quote

SALE = a_sale()  # 1000 units
PRICE = 1000
SIZE = 2**20


@pytest.fixture
async def till(sqlite_url: str) -> AsyncIterator[ChannelTill]:
    async with a_channel_till(sqlite_url) as till:
        yield till


async def refused(till: ChannelTill, document: Any, sale: Sale = SALE) -> PaymentRefused:
    """The refusal of a payment."""
    before = till.chain.sent
    with pytest.raises(PaymentRefused) as caught:
        await till.pay(document, sale)
    assert till.chain.sent == before  # nobody's gas is spent on it
    return caught.value


def segment(number: int, **changes: Any) -> Sale:
    return a_sale(f"/hls/plasma/source/{number}.ts", **changes)


# A channel's life


async def test_a_deposit_a_hundred_vouchers_and_the_rest_back(till: ChannelTill) -> None:
    payer = till.payer(tokens=500_000)
    first = await till.pay(till.deposit(payer, SALE, 300_000, PRICE), SALE)
    for number in range(2, 102):
        sale = segment(number)
        receipt = await till.pay(till.voucher(payer, sale, number * PRICE), sale)
        assert receipt.amount == PRICE
    last = await till.pay(till.voucher(payer, SALE, 101 * PRICE, "refund"), SALE)

    assert answer_of(first)["amount"] == "300000"
    assert last.answer == {"message": "Refund acknowledged", "channelId": payer.channel_id}
    assert answer_of(last)["amount"] == str(300_000 - 101 * PRICE)
    assert till.chain.tokens[payer.config.payer] == 500_000 - 101 * PRICE
    channel = await till.found(payer)
    assert (channel.charged, channel.chain.balance, channel.reserved) == (101_000, 101_000, 0)
    assert till.chain.sent == 2


async def test_a_payment_response_is_what_the_contract_asks_for(till: ChannelTill) -> None:
    payer = till.payer()
    deposit = answer_of(await till.pay(till.deposit(payer, SALE, 5000, PRICE), SALE))
    sale = segment(1)
    voucher = answer_of(await till.pay(till.voucher(payer, sale, 2 * PRICE), sale))
    refund = answer_of(await till.pay(till.voucher(payer, SALE, 2 * PRICE, "refund"), SALE))

    state = {
        "channelId": payer.channel_id,
        "balance": "5000",
        "totalClaimed": "0",
        "withdrawRequestedAt": 0,
        "refundNonce": "0",
    }
    common = {"success": True, "network": "eip155:84532", "payer": payer.config.payer}
    assert deposit.pop("transaction").startswith("0x")
    assert deposit == common | {
        "amount": "5000",
        "extra": {
            "channelState": state | {"chargedCumulativeAmount": "1000"},
            "chargedAmount": "1000",
        },
    }
    assert voucher == common | {
        "amount": "",
        "transaction": "",
        "extra": {
            "channelState": state | {"chargedCumulativeAmount": "2000"},
            "chargedAmount": "1000",
        },
    }
    assert refund.pop("transaction").startswith("0x")
    after = {"balance": "2000", "refundNonce": "1", "chargedCumulativeAmount": "2000"}
    assert refund == common | {"amount": "3000", "extra": {"channelState": state | after}}


# What the SDK's client makes of it


class ReadingSigner(EthAccountSigner):
    """A payer's key that can also look at the chain."""

    def __init__(self, payer: Payer, chain: ModelChain) -> None:
        super().__init__(payer.account)
        self._chain = chain

    def read_contract(self, *args: Any) -> Any:
        return self._chain.read_contract(*args)


def sdk_client(till: ChannelTill, payer: Payer) -> BatchSettlementEvmScheme:
    signer = ReadingSigner(payer, till.chain)
    return BatchSettlementEvmScheme(signer, BatchSettlementEvmSchemeOptions(salt=payer.config.salt))


def sdk_offer(till: ChannelTill, sale: Sale) -> PaymentRequirements:
    return PaymentRequirements.model_validate(till.offer(sale))


async def sdk_pays(till: ChannelTill, client: BatchSettlementEvmScheme, sale: Sale) -> str:
    """Pay as the SDK's client does; what kind of payment it was."""
    offer = sdk_offer(till, sale)
    payload = client.create_payment_payload(offer)
    document = {"x402Version": 2, "accepted": till.offer(sale), "payload": payload}
    receipt = await till.pay(document, sale)
    client.scheme_hooks.on_payment_response(
        PaymentResponseContext(
            payment_payload=PaymentPayload.model_validate(document),
            requirements=offer,
            settle_response=SettleResponse.model_validate(answer_of(receipt)),
        )
    )
    return str(payload["type"])


def remembered(client: BatchSettlementEvmScheme, payer: Payer) -> tuple[Any, Any]:
    """The cumulative amount and balance the SDK's client has in mind."""
    context = client._storage.get(payer.channel_id)
    assert context is not None
    return context.charged_cumulative_amount, context.balance


async def test_the_sdks_client_keeps_step(till: ChannelTill) -> None:
    payer = till.payer()
    client = sdk_client(till, payer)

    kinds = [await sdk_pays(till, client, segment(number, deposit=5000)) for number in range(5)]
    found = remembered(client, payer)
    till.time.now += 1
    more = [await sdk_pays(till, client, segment(number, price=5000)) for number in range(5, 8)]

    assert kinds == ["deposit"] + ["voucher"] * 4
    assert found == ("5000", "5000")
    assert more.count("deposit") >= 1  # it topped up by itself
    assert remembered(client, payer)[0] == "20000"
    assert (await till.found(payer)).charged == 20_000


async def test_the_sdks_client_recovers_from_a_correction(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    for number in range(2, 5):
        sale = segment(number)
        await till.pay(till.voucher(payer, sale, number * PRICE), sale)
    client = sdk_client(till, payer)  # it has forgotten everything: what is claimed is 0

    offer, sale = sdk_offer(till, SALE), segment(9)
    payload = client.create_payment_payload(offer)
    assert payload["voucher"]["maxClaimableAmount"] == str(PRICE)
    document = {"x402Version": 2, "accepted": till.offer(sale), "payload": payload}
    error = await refused(till, document, sale)
    asked = PaymentRequired.model_validate(challenge_of(till.gate, sale, error))

    assert asked.error == codes.AMOUNT_MISMATCH
    assert client.process_corrective_payment_required(asked)
    assert remembered(client, payer) == ("4000", "100000")
    assert await sdk_pays(till, client, sale) == "voucher"


async def test_the_sdks_client_recovers_where_we_have_no_signature(till: ChannelTill) -> None:
    """A channel that we first see when much of it is claimed already (or after a restore)."""
    payer = till.payer()
    till.chain.move(payer.channel_id, balance=50_000, claimed=7000)
    client = sdk_client(till, payer)

    error = await refused(till, till.voucher(payer, SALE, 3000))
    offer = corrected(till.gate, SALE, error)
    asked = PaymentRequired.model_validate(challenge_of(till.gate, SALE, error))

    assert error.code == codes.BELOW_CLAIMED
    assert offer["extra"]["channelState"]["chargedCumulativeAmount"] == "7000"
    assert "voucherState" not in offer["extra"]
    assert client.process_corrective_payment_required(asked)
    assert remembered(client, payer) == ("7000", "50000")
    assert await sdk_pays(till, client, SALE) == "voucher"


async def test_the_sdks_client_recovers_after_our_ledger_was_restored(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    till.chain.move(payer.channel_id, claimed=30_000)  # by vouchers this ledger never saw
    till.time.now += state_ttl(DELAY) + 1
    client = sdk_client(till, payer)

    error = await refused(till, till.voucher(payer, segment(2), 2 * PRICE), segment(2))
    asked = PaymentRequired.model_validate(challenge_of(till.gate, SALE, error))

    assert client.process_corrective_payment_required(asked)
    assert await sdk_pays(till, client, segment(2)) == "voucher"
    assert (await till.found(payer)).charged == 31_000


async def test_a_correction_tells_all_a_payer_needs(till: ChannelTill) -> None:
    payer = await till.opened(SALE)

    error = await refused(till, till.voucher(payer, segment(2), 5 * PRICE), segment(2))

    assert isinstance(error, VoucherMismatch)
    asked = challenge_of(till.gate, segment(2), error)
    by_scheme = {offer["scheme"]: offer["extra"] for offer in asked["accepts"]}
    assert asked["error"] == codes.AMOUNT_MISMATCH
    assert by_scheme[SCHEME_CHANNELS]["channelState"] == {
        "channelId": payer.channel_id,
        "balance": "100000",
        "totalClaimed": "0",
        "withdrawRequestedAt": 0,
        "refundNonce": "0",
        "chargedCumulativeAmount": "1000",
    }
    assert by_scheme[SCHEME_CHANNELS]["voucherState"] == {
        "signedMaxClaimable": "1000",
        "signature": payer.voucher(PRICE).signature,
    }
    assert "channelState" not in by_scheme["exact"]


async def test_a_stranger_learns_nothing_of_a_channel_from_a_wrong_config(
    till: ChannelTill,
) -> None:
    payer, stranger = await till.opened(SALE), till.payer()
    document = till.voucher(stranger, segment(2), 5 * PRICE)
    document["payload"]["voucher"]["channelId"] = payer.channel_id

    error = await refused(till, document, segment(2))

    assert not isinstance(error, VoucherMismatch)
    assert error.code == codes.CHANNEL_ID_MISMATCH


# Each refusal


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"receiver": "0x" + "01" * 20}, codes.RECEIVER_MISMATCH),
        ({"receiver_authorizer": "0x" + "01" * 20}, codes.AUTHORIZER_MISMATCH),
        ({"token": "0x" + "01" * 20}, codes.TOKEN_MISMATCH),
        ({"withdraw_delay": 901}, codes.DELAY_MISMATCH),
    ],
)
async def test_a_channel_with_other_terms(
    till: ChannelTill, changes: dict[str, Any], code: str
) -> None:
    payer = till.payer(**changes)

    for document in (
        till.deposit(payer, SALE, 5000, PRICE),
        till.voucher(payer, SALE, PRICE),
        till.voucher(payer, SALE, 0, "refund"),
    ):
        assert (await refused(till, document)).code == code


async def test_a_forged_voucher(till: ChannelTill) -> None:
    payer, thief = await till.opened(SALE), till.payer()
    sale = segment(2)
    signed = Voucher(payer.channel_id, 2 * PRICE, thief.voucher(2 * PRICE).signature)

    voucher = a_document(till.offer(sale), payer, signed)
    refund = a_document(till.offer(sale), payer, replace(signed, ceiling=PRICE), "refund")
    deposit = till.deposit(payer, sale, 5000, 2 * PRICE)
    deposit["payload"]["voucher"] = signed.wire()

    for document in (voucher, refund, deposit):
        assert (await refused(till, document, sale)).code == codes.VOUCHER_SIGNATURE
    assert (await till.found(payer)).charged == PRICE


async def test_a_voucher_of_no_channel(till: ChannelTill) -> None:
    payer = till.payer()

    for document in (till.voucher(payer, SALE, PRICE), till.voucher(payer, SALE, 0, "refund")):
        assert (await refused(till, document)).code == codes.CHANNEL_NOT_FOUND
    assert await till.channels.find(payer.channel_id) is None


async def test_a_channel_that_holds_too_little(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=2 * PRICE - 1)
    sale = segment(2)

    error = await refused(till, till.voucher(payer, sale, 2 * PRICE), sale)
    short = await refused(
        till, till.deposit(payer, segment(2, price=5000), 150, 6000), segment(2, price=5000)
    )

    assert error.code == short.code == codes.EXCEEDS_BALANCE
    await till.pay(till.deposit(payer, sale, FLOOR, 2 * PRICE), sale)
    assert (await till.found(payer)).charged == 2 * PRICE


async def test_a_payer_that_is_leaving(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    requested = int(till.time())
    till.chain.move(payer.channel_id, withdraw_requested_at=requested)
    till.time.now = requested + DELAY / 2 - 5
    await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))
    till.time.now = requested + DELAY / 2 + 1

    error = await refused(till, till.voucher(payer, segment(3), 3 * PRICE), segment(3))

    assert error.code == codes.EXCEEDS_BALANCE


async def test_unknown_kinds_and_malformed_payloads(till: ChannelTill) -> None:
    payer = till.payer()
    good = till.voucher(payer, SALE, PRICE)
    kind = json.loads(json.dumps(good))
    kind["payload"]["type"] = "claim"
    bad = json.loads(json.dumps(good))
    del bad["payload"]["voucher"]

    assert (await refused(till, kind)).code == codes.PAYLOAD_TYPE
    with pytest.raises(PaymentMalformed):
        await till.pay(bad, SALE)


async def test_version_1_has_no_channels(till: ChannelTill) -> None:
    document = {
        "x402Version": 1,
        "scheme": SCHEME_CHANNELS,
        "network": "base-sepolia",
        "payload": till.voucher(till.payer(), SALE, PRICE)["payload"],
    }
    header = {"X-PAYMENT": base64.b64encode(json.dumps(document).encode()).decode()}

    with pytest.raises(PaymentRefused) as caught:
        await till.gate.charge(header, SALE)

    assert caught.value.code == "unsupported_scheme"


async def test_what_is_settled_first_is_not_sold_by_voucher(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    sale = segment(2, settle_first=True)
    document = till.voucher(payer, segment(2), 2 * PRICE)

    assert (await refused(till, document, sale)).code == "unsupported_scheme"
    offers = challenge_of(till.gate, sale, PaymentRefused("payment_required"))["accepts"]
    assert [offer["scheme"] for offer in offers] == ["exact"]


# Deposits


async def test_a_deposit_below_the_floor_costs_nothing(till: ChannelTill) -> None:
    payer = till.payer()
    sale = segment(1, price=10)

    error = await refused(till, till.deposit(payer, sale, FLOOR - 1, 10), sale)

    assert error.code == codes.DEPOSIT_BELOW_MINIMUM
    await till.pay(till.deposit(payer, sale, FLOOR, 10), sale)


@pytest.mark.parametrize(
    ("valid_for", "code"), [(5, codes.DEPOSIT_EXPIRED), (-60, codes.DEPOSIT_EXPIRED)]
)
async def test_a_deposit_that_is_too_late(till: ChannelTill, valid_for: float, code: str) -> None:
    document = till.deposit(till.payer(), SALE, 5000, PRICE, valid_for=valid_for)

    assert (await refused(till, document)).code == code


async def test_a_deposit_that_is_too_early(till: ChannelTill) -> None:
    document = till.deposit(till.payer(), SALE, 5000, PRICE)
    authorization = document["payload"]["deposit"]["authorization"]["erc3009Authorization"]
    authorization["validAfter"] = str(int(till.time()) + 60)

    assert (await refused(till, document)).code == codes.DEPOSIT_EARLY


async def test_a_deposit_by_permit2_is_not_taken(till: ChannelTill) -> None:
    document = till.deposit(till.payer(), SALE, 5000, PRICE)
    document["payload"]["deposit"]["authorization"] = {"permit2Authorization": {}}

    assert (await refused(till, document)).code == codes.DEPOSIT_METHOD


async def test_a_deposit_somebody_else_signed(till: ChannelTill) -> None:
    payer = till.payer()
    document = till.deposit(payer, SALE, 5000, PRICE)
    document["payload"]["deposit"]["amount"] = "5001"

    error = await refused(till, document)

    assert error.code == "invalid_batch_settlement_evm_receive_authorization_signature"
    assert await till.channels.find(payer.channel_id) is None


async def test_a_deposit_of_money_that_is_not_there(till: ChannelTill) -> None:
    payer = till.payer(tokens=4999)

    error = await refused(till, till.deposit(payer, SALE, 5000, PRICE))

    assert error.code == "invalid_batch_settlement_evm_insufficient_balance"
    till.chain.tokens[payer.config.payer] = 5000  # now it is, and the same payer comes again
    await till.pay(till.deposit(payer, SALE, 5000, PRICE), SALE)


async def test_a_first_deposit_with_a_voucher_for_more_or_less_costs_nothing(
    till: ChannelTill,
) -> None:
    """What the chain has claimed, nothing, is where a new channel begins."""
    for ceiling in (PRICE - 1, PRICE + 1, 4000):
        error = await refused(till, till.deposit(till.payer(), SALE, 5000, ceiling))
        assert error.code == codes.AMOUNT_MISMATCH


async def test_a_first_deposit_that_cannot_pay_for_its_voucher(till: ChannelTill) -> None:
    error = await refused(till, till.deposit(till.payer(), SALE, PRICE - 1, PRICE))

    assert error.code == codes.EXCEEDS_BALANCE


async def test_a_deposit_is_moved_and_charged_once_however_often_it_comes(
    till: ChannelTill,
) -> None:
    payer = till.payer()
    document = till.deposit(payer, SALE, 5000, PRICE)

    found = await asyncio.gather(*(till.pay(document, SALE) for _ in range(30)))
    till.time.now += WINDOW - 1
    found.append(await till.pay(document, SALE))

    assert till.chain.sent == 1
    assert len({receipt.headers["PAYMENT-RESPONSE"] for receipt in found}) == 1
    channel = await till.found(payer)
    assert (channel.charged, channel.chain.balance) == (PRICE, 5000)
    till.time.now += 2
    assert (await refused(till, document)).code == codes.AMOUNT_MISMATCH


async def test_a_deposit_for_another_resource_is_moved_and_charged_no_second_time(
    till: ChannelTill,
) -> None:
    payer = till.payer()
    document = till.deposit(payer, SALE, 5000, PRICE)
    await till.pay(document, SALE)

    assert (await refused(till, document, segment(7))).code == codes.AMOUNT_MISMATCH
    assert (await till.found(payer)).charged == PRICE


async def test_a_deposit_whose_outcome_is_unknown_is_pending_and_then_found(
    till: ChannelTill,
) -> None:
    payer = till.payer()
    document = till.deposit(payer, SALE, 5000, PRICE)
    till.chain.confirms = False
    known, till.chain.emitted = till.chain.emitted, _never
    landed, till.chain.landed = till.chain.landed, _unknown

    for _ in range(2):
        with pytest.raises(PaymentPending):  # never a request to sign again
            await till.pay(document, SALE)
    till.chain.emitted, till.chain.landed = known, landed
    receipt = await till.pay(document, SALE)

    assert till.chain.sent == 1
    assert answer_of(receipt)["extra"]["chargedAmount"] == str(PRICE)
    assert (await till.found(payer)).charged == PRICE


async def _never(*args: Any) -> bool:
    return False


async def _unknown(*args: Any) -> str:
    return "unknown"


async def test_without_a_chain_nothing_is_opened(till: ChannelTill) -> None:
    payer, other = await till.opened(SALE), till.payer()
    till.chain.is_up = False

    with pytest.raises(ChainUnavailable):
        await till.pay(till.deposit(other, SALE, 5000, PRICE), SALE)
    with pytest.raises(ChainUnavailable):
        await till.pay(till.voucher(other, SALE, PRICE), SALE)
    await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))  # it is fresh
    till.time.now += state_ttl(DELAY) + 1
    with pytest.raises(ChainUnavailable):
        await till.pay(till.voucher(payer, segment(3), 3 * PRICE), segment(3))
    assert (await till.found(payer)).charged == 2 * PRICE


# Freshness


@pytest.mark.parametrize(("delay", "ttl"), [(900, 300), (60, 30), (150, 50), (0, 30), (10**6, 300)])
def test_how_long_a_reading_is_fresh(delay: int, ttl: float) -> None:
    assert state_ttl(delay) == ttl


async def test_fresh_vouchers_ask_nobody(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    reads = till.chain.reads
    for number in range(2, 30):
        await till.pay(till.voucher(payer, segment(number), number * PRICE), segment(number))

    assert till.chain.reads == reads


async def test_a_stale_mirror_is_read_once_for_many(till: ChannelTill) -> None:
    payers = [await till.opened(SALE) for _ in range(20)]
    till.time.now += state_ttl(DELAY) + 1
    reads = till.chain.reads

    await asyncio.gather(
        *(till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2)) for payer in payers),
        *(till.pay(till.voucher(payers[0], segment(2), 2 * PRICE), segment(2)) for _ in range(30)),
    )

    assert 1 <= till.chain.reads - reads <= 3
    reads = till.chain.reads
    await till.pay(till.voucher(payers[3], segment(3), 3 * PRICE), segment(3))
    assert till.chain.reads == reads


async def test_another_process_knows_nothing_and_asks_once(sqlite_url: str) -> None:
    async with a_channel_till(sqlite_url) as till:
        payer = await till.opened(SALE)
        chain, authorizer = till.chain, till.authorizer
    async with a_channel_till(sqlite_url, chain, authorizer=authorizer) as other:
        reads = chain.reads
        receipt = await other.pay(other.voucher(payer, segment(2), 2 * PRICE), segment(2))
        again = await other.pay(other.deposit(payer, segment(3), 500, 3 * PRICE), segment(3))
        assert receipt.amount == again.amount == PRICE
        assert chain.reads <= reads + 1  # what the deposit changed; the ledger's row was fresh


# Smart wallets


async def test_a_smart_wallets_vouchers_are_judged_by_the_chain(till: ChannelTill) -> None:
    owner, wallet = a_wallet(till.chain)
    payer = Payer(
        owner,
        till.gate.methods[0].asset,
        PAYEE,
        till.authorizer.address,
        payer=wallet,
        payer_authorizer=ZERO_ADDRESS,
    )
    till.chain.move(payer.channel_id, balance=5000)
    thief = till.payer()

    receipt = await till.pay(till.voucher(payer, SALE, PRICE), SALE)
    forged = Voucher(payer.channel_id, 2 * PRICE, thief.voucher(2 * PRICE).signature)
    bad = a_document(till.offer(segment(2)), payer, forged)
    error = await refused(till, bad, segment(2))
    refund = await till.pay(till.voucher(payer, SALE, PRICE, "refund"), SALE)

    assert receipt.amount == PRICE
    assert error.code == codes.VOUCHER_SIGNATURE
    assert answer_of(refund)["amount"] == "4000"
    till.chain.is_up = False
    with pytest.raises(FacilitatorError):
        await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))


# What strangers may try


async def test_a_deposit_shown_again_opens_nothing_without_a_signed_voucher(
    till: ChannelTill,
) -> None:
    """Whoever leaves the judging to the chain is judged by it for each voucher."""
    payer = till.payer(payer_authorizer=ZERO_ADDRESS)
    document = till.deposit(payer, SALE, 100_000, PRICE)
    await till.pay(document, SALE)

    for number in (2, 3):
        sale = segment(number)
        forged = Voucher(payer.channel_id, number * PRICE, "0x" + "11" * 64 + "1b")
        payload = {**document["payload"], "voucher": forged.wire()}
        with pytest.raises(PaymentRefused):
            await till.pay({**document, "accepted": till.offer(sale), "payload": payload}, sale)

    assert (await till.found(payer)).charged == PRICE
    assert (await till.found(payer)).signature != forged.signature


async def test_a_stranger_is_not_told_the_last_voucher(till: ChannelTill) -> None:
    """It would open again what it paid for, and give the payer's rest back."""
    payer = await till.opened(SALE)
    forged = Voucher(payer.channel_id, 7 * PRICE, "0x" + "11" * 64 + "1b")
    nobody = till.payer(payer_authorizer=ZERO_ADDRESS)
    await till.pay(till.deposit(nobody, SALE, 5000, PRICE), SALE)
    again = till.deposit(nobody, SALE, 5000, 7 * PRICE)
    again["payload"]["voucher"]["signature"] = forged.signature

    for document in (a_document(till.offer(SALE), payer, forged), again):
        error = await refused(till, document)
        assert isinstance(error, VoucherMismatch)
        assert "channelState" in error.extra and "voucherState" not in error.extra
    owner = await refused(till, till.voucher(payer, SALE, 7 * PRICE))
    assert isinstance(owner, VoucherMismatch) and "voucherState" in owner.extra


async def test_an_old_deposit_is_no_fresh_look_at_the_chain(till: ChannelTill) -> None:
    payer = till.payer()
    document = till.deposit(payer, SALE, 100_000, PRICE)
    await till.pay(document, SALE)
    till.time.now += state_ttl(DELAY) + 1
    till.chain.is_up = False

    payload = {**document["payload"], "voucher": payer.voucher(2 * PRICE).wire()}
    with pytest.raises(ChainUnavailable):
        await till.pay({**document, "payload": payload}, segment(2))
    assert (await till.found(payer)).charged == PRICE


async def test_a_deposit_on_its_way_is_not_refused_for_its_age(till: ChannelTill) -> None:
    """Money rule 5: it was valid when it was sent."""
    payer = await till.opened(SALE)
    document = till.deposit(payer, segment(2), 50_000, 2 * PRICE, valid_for=300)
    till.chain.confirms = False
    known, till.chain.emitted = till.chain.emitted, _never
    landed, till.chain.landed = till.chain.landed, _unknown
    with pytest.raises(PaymentPending):
        await till.pay(document, segment(2))

    till.time.now += 290
    with pytest.raises(PaymentPending):
        await till.pay(document, segment(2))
    till.chain.emitted, till.chain.landed = known, landed

    assert (await till.pay(document, segment(2))).amount == PRICE
    assert till.chain.sent == 2


# What is accepted


async def test_an_older_quote_still_pays(till: ChannelTill) -> None:
    """Money rule 8; which of the two is in force is not the payer's to know."""
    payer = await till.opened(SALE)
    dearer = replace(segment(2), quotes=(Quote(SIZE, Price(9000), PAYEE), *SALE.quotes))
    document = till.voucher(payer, segment(2), 2 * PRICE)

    receipt = await till.pay(document, dearer)

    assert receipt.amount == PRICE
    sale = replace(segment(3), quotes=(Quote(SIZE, Price(9000), PAYEE),))
    wrong = till.voucher(payer, segment(3), 3 * PRICE)
    assert (await refused(till, wrong, sale)).code == "invalid_payment_requirements"


async def test_hints_are_no_terms(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    for number, hint in enumerate(
        [
            {"minDeposit": "1"},
            {"minDeposit": None},
            {"channelState": {"channelId": "x"}, "voucherState": {}},
            {"more": 5},
        ],
        2,
    ):
        document = till.voucher(payer, segment(number), number * PRICE)
        document["accepted"]["extra"] |= hint
        await till.pay(document, segment(number))
    document = till.voucher(payer, segment(9), 6 * PRICE)
    del document["accepted"]["extra"]["minDeposit"]
    await till.pay(document, segment(9))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "999"),
        ("amount", 1000),
        ("amount", "1000.0"),
        ("asset", "0x" + "01" * 20),
        ("payTo", "0x" + "01" * 20),
        ("maxTimeoutSeconds", 301),
        ("more", 1),
    ],
)
async def test_any_other_field_must_be_as_offered(
    till: ChannelTill, field: str, value: Any
) -> None:
    payer = await till.opened(SALE)
    document = till.voucher(payer, segment(2), 2 * PRICE)
    document["accepted"][field] = value

    assert (await refused(till, document, segment(2))).code == "invalid_payment_requirements"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("receiverAuthorizer", "0x" + "01" * 20),
        ("withdrawDelay", 901),
        ("withdrawDelay", "900"),
        ("name", "USD"),
        ("version", "1"),
        ("name", None),
    ],
)
async def test_any_other_term_must_be_as_offered(till: ChannelTill, field: str, value: Any) -> None:
    payer = await till.opened(SALE)
    document = till.voucher(payer, segment(2), 2 * PRICE)
    document["accepted"]["extra"][field] = value
    bare = json.loads(json.dumps(document))
    del bare["accepted"]["extra"]

    for wrong in (document, bare):
        assert (await refused(till, wrong, segment(2))).code == "invalid_payment_requirements"


async def test_other_networks_and_schemes(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    document = till.voucher(payer, segment(2), 2 * PRICE)
    document["accepted"]["network"] = "eip155:8453"
    assert (await refused(till, document, segment(2))).code == "network_mismatch"
    document["accepted"]["scheme"] = "upto"
    assert (await refused(till, document, segment(2))).code == "unsupported_scheme"


# One payment, one delivery


async def test_a_voucher_opens_the_same_bytes_again_and_no_others(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    sale = segment(2)
    document = till.voucher(payer, sale, 2 * PRICE)
    first = await till.pay(document, sale)

    assert await till.pay(document, sale) == first
    for other in (segment(3), replace(sale, resource=f"{sale.resource}#bytes=0-9")):
        error = await refused(till, document, other)
        assert isinstance(error, VoucherMismatch)
    till.time.now += WINDOW + 1
    assert (await refused(till, document, sale)).code == codes.AMOUNT_MISMATCH


async def test_a_retry_is_served_after_other_vouchers_too(till: ChannelTill) -> None:
    """Two requests under way at once: the payer's older one is repeated after the newer."""
    payer = await till.opened(SALE)
    second = till.voucher(payer, segment(2), 2 * PRICE)
    await till.pay(second, segment(2))
    await till.pay(till.voucher(payer, segment(3), 3 * PRICE), segment(3))

    again = answer_of(await till.pay(second, segment(2)))

    assert again["extra"]["channelState"]["chargedCumulativeAmount"] == "2000"
    assert (await till.found(payer)).charged == 3 * PRICE


async def test_300_parallel_requests_with_one_voucher(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    document = till.voucher(payer, segment(2), 2 * PRICE)

    found = await asyncio.gather(*(till.pay(document, segment(2)) for _ in range(300)))

    assert all(receipt == found[0] for receipt in found)
    assert (await till.found(payer)).charged == 2 * PRICE


async def test_parts_are_sold_for_their_own_price(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    quotes = (Quote(SIZE // 4, Price(1000), PAYEE),)
    part = a_sale("/objects/film#bytes=0-262143", size=SIZE // 4, quotes=quotes)
    other = replace(part, resource="/objects/film#bytes=1-262144")

    receipt = await till.pay(till.voucher(payer, part, PRICE + 250), part)

    assert receipt.amount == 250
    error = await refused(till, till.voucher(payer, part, PRICE + 250), other)
    assert error.code == codes.AMOUNT_MISMATCH


async def test_a_receipt_opens_the_same_bytes_again_and_its_parts(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    sale = segment(2, rewatch_free=True)
    paid = await till.pay(till.voucher(payer, sale, 2 * PRICE), sale)
    token = answer_of(paid)["extensions"]["xbyte-receipt"]["receipt"]
    till.time.now += 10 * WINDOW

    async def shown(what: str, of: Sale) -> PaymentResponse:
        return await till.gate.charge({"XBYTE-RECEIPT": what}, of)

    assert (await shown(token, sale)).amount == 0
    assert (
        await shown(token, replace(sale, resource=f"{sale.resource}#bytes=0-9"))
    ).charged is None
    digest = token.rpartition(".")[2]
    for bad, of in [
        (token, segment(3, rewatch_free=True)),
        (token, replace(sale, resource=sale.resource + "x")),
        (f"c9-0-2000.{digest}", sale),
        (f"1.{digest}", sale),
        (token[:-1] + ("0" if token[-1] != "0" else "1"), sale),
        (f"c.{digest}", sale),
        ("c\u00e9", sale),
    ]:
        with pytest.raises(PaymentRefused) as caught:
            await shown(bad, of)
        assert caught.value.code == "invalid_receipt"
    with pytest.raises(PaymentRefused):
        await shown(token, replace(sale, rewatch_free=False))


async def test_a_receipt_of_a_part_does_not_open_the_whole(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    part = segment(2, rewatch_free=True)
    part = replace(part, resource=f"{part.resource}#bytes=0-9")
    paid = await till.pay(till.voucher(payer, part, 2 * PRICE), part)
    token = answer_of(paid)["extensions"]["xbyte-receipt"]["receipt"]

    assert (await till.gate.charge({"XBYTE-RECEIPT": token}, part)).amount == 0
    with pytest.raises(PaymentRefused):
        await till.gate.charge({"XBYTE-RECEIPT": token}, segment(2, rewatch_free=True))


async def test_asking_what_it_costs_charges_nothing(till: ChannelTill) -> None:
    payer = await till.opened(SALE)

    with pytest.raises(PaymentRefused) as caught:
        await till.gate.charge({}, segment(2))

    assert caught.value.code == "payment_required"
    assert (await till.found(payer)).charged == PRICE


# Refunds


async def refund(
    till: ChannelTill, payer: Payer, ceiling: int, amount: Any = None, sale: Sale = SALE
) -> PaymentResponse:
    more = {} if amount is None else {"amount": amount}
    return await till.pay(till.voucher(payer, sale, ceiling, "refund", **more), sale)


async def test_a_refund_of_a_part_leaves_the_rest(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=10_000)

    receipt = await refund(till, payer, PRICE, "4000")

    assert answer_of(receipt)["amount"] == "4000"
    assert till.chain.channels[payer.channel_id].balance == 6000
    till.time.now += 1
    await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))
    till.time.now += 1
    with pytest.raises(PaymentRefused):
        await refund(till, payer, 2 * PRICE, "4001")
    await refund(till, payer, 2 * PRICE, "4000")
    assert till.chain.channels[payer.channel_id].balance == 2000


@pytest.mark.parametrize("amount", ["9001", str(2**62)])
async def test_a_refund_of_more_than_there_is(till: ChannelTill, amount: str) -> None:
    payer = await till.opened(SALE, deposit=10_000)
    document = till.voucher(payer, SALE, PRICE, "refund", amount=amount)

    assert (await refused(till, document)).code == codes.REFUND_NOTHING
    assert (await till.found(payer)).reserved == 0


@pytest.mark.parametrize("amount", ["0", "-1", "x", "1.5", "٣"])
async def test_a_refund_of_no_amount(till: ChannelTill, amount: str) -> None:
    payer = await till.opened(SALE, deposit=10_000)
    document = till.voucher(payer, SALE, PRICE, "refund", amount=amount)

    assert (await refused(till, document)).code == codes.REFUND_AMOUNT


async def test_a_refund_where_nothing_is_left(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=PRICE)

    document = till.voucher(payer, SALE, PRICE, "refund")

    assert (await refused(till, document)).code == codes.REFUND_NOTHING


async def test_a_refund_with_another_total_is_corrected(till: ChannelTill) -> None:
    payer = await till.opened(SALE)

    for ceiling in (0, PRICE - 1, PRICE + 1, 2 * PRICE):
        error = await refused(till, till.voucher(payer, SALE, ceiling, "refund"))
        assert isinstance(error, VoucherMismatch)


async def test_the_same_refund_again_pays_once(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=10_000)

    found = [await refund(till, payer, PRICE, "2000") for _ in range(3)]

    assert all(receipt == found[0] for receipt in found)
    assert till.chain.channels[payer.channel_id].balance == 8000
    till.time.now += WINDOW + 1  # so late, it is another one
    await refund(till, payer, PRICE, "2000")
    assert till.chain.channels[payer.channel_id].balance == 6000


async def test_the_same_refund_at_once_pays_once(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=10_000)

    found = await asyncio.gather(
        *(refund(till, payer, PRICE, "2000") for _ in range(20)), return_exceptions=True
    )

    assert till.chain.channels[payer.channel_id].balance == 8000
    assert {type(one) for one in found} <= {PaymentResponse, PaymentRefused, PaymentPending}
    assert all(one.code == codes.BUSY for one in found if isinstance(one, PaymentRefused))
    assert (await till.found(payer)).reserved == 0


async def test_a_refund_of_everything_again_is_told_again(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=10_000)

    first, again = await refund(till, payer, PRICE), await refund(till, payer, PRICE)

    assert first == again
    assert answer_of(first)["amount"] == "9000"
    till.time.now += WINDOW + 1
    with pytest.raises(PaymentRefused) as caught:
        await refund(till, payer, PRICE)
    assert caught.value.code == codes.REFUND_NOTHING


async def test_a_refund_of_a_channel_nothing_was_bought_with(till: ChannelTill) -> None:
    payer = till.payer()
    till.chain.move(payer.channel_id, balance=5000)

    first, again = await refund(till, payer, 0), await refund(till, payer, 0)

    assert first == again
    assert till.chain.channels[payer.channel_id].balance == 0
    assert till.chain.sent == 1


async def test_a_refund_after_a_purchase_is_another_one(till: ChannelTill) -> None:
    payer = await till.opened(SALE, deposit=10_000)
    await refund(till, payer, PRICE, "2000")
    till.time.now += 1
    await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))
    till.time.now += 1

    await refund(till, payer, 2 * PRICE, "2000")

    assert till.chain.channels[payer.channel_id].balance == 6000


async def test_a_refund_whose_outcome_is_unknown_is_pending_and_pays_once(
    till: ChannelTill,
) -> None:
    payer = await till.opened(SALE, deposit=10_000)
    till.chain.confirms = False
    states, till.chain.states = till.chain.states, _as_it_was(till)

    for amount in (None, None):
        with pytest.raises(PaymentPending):
            await refund(till, payer, PRICE, amount)
    with pytest.raises(PaymentRefused) as caught:  # nobody buys with what is being given back
        await till.pay(till.voucher(payer, segment(2), 2 * PRICE), segment(2))
    till.chain.states, till.chain.confirms = states, True
    receipt = await refund(till, payer, PRICE)

    assert caught.value.code == codes.EXCEEDS_BALANCE
    assert till.chain.sent == 2  # the deposit and one refund
    assert answer_of(receipt)["amount"] == "9000"
    channel = await till.found(payer)
    assert (channel.reserved, channel.chain.balance) == (0, PRICE)


def _as_it_was(till: ChannelTill) -> Any:
    """A node that is behind: it shows channels as they are now for ever."""
    seen = dict(till.chain.channels)

    async def states(channel_ids: Any) -> Any:
        return {channel_id: seen[channel_id] for channel_id in channel_ids}

    return states


async def test_a_refund_opens_no_bytes(till: ChannelTill) -> None:
    payer = await till.opened(SALE)

    receipt = await refund(till, payer, PRICE, sale=segment(2))

    assert receipt.answer is not None
    assert (receipt.amount, receipt.charged) == (0, None)
    assert (await till.found(payer)).charged == PRICE


# Money rule 2


async def test_without_a_database_nothing_is_admitted(till: ChannelTill) -> None:
    payer = await till.opened(SALE)
    document = till.voucher(payer, segment(2), 2 * PRICE)
    await till.database.stop()

    with pytest.raises(Exception, match="database") as caught:
        await till.gate.charge(v2_header(document), segment(2))

    assert not isinstance(caught.value, PaymentRefused)

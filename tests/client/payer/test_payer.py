"""The payer signs what its owner allows, and nothing else."""

import base64
import json
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st
from x402.http.utils import decode_payment_signature_header, encode_payment_required_header
from x402.schemas import PaymentPayload, PaymentRequired, PaymentRequirements, ResourceInfo
from x402.schemas.v1 import PaymentPayloadV1

from tests.support.paid_site import ASSET, KEY, NETWORK, PAYEE, encoded, signer_of
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import IssuedPayment, still_offered
from xbyte_live.client.payer.terms import (
    KNOWN_ASSETS,
    MAX_ACCEPTS,
    Offers,
    Quoted,
    item_of,
    plain,
    read_challenge,
    read_pricing,
    read_receipt,
    resource_of,
)
from xbyte_live.errors import BudgetExceeded, TermsRefused
from xbyte_live.money import MAX_AMOUNT, MIB, Asset, Price

ACCOUNT = Account.from_key(KEY)
ITEM = "http://shop/hls/plasma"
NOW = 1_800_000_000.5
GOOD: dict[str, Any] = {
    "scheme": "exact",
    "network": NETWORK,
    "asset": ASSET,
    "amount": "700",
    "payTo": PAYEE,
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USDC", "version": "2"},
}
GOOD_V1: dict[str, Any] = {
    "scheme": "exact",
    "network": "base-sepolia",
    "asset": ASSET,
    "maxAmountRequired": "700",
    "resource": "http://shop/hls/plasma/source/0.ts",
    "payTo": PAYEE,
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USDC", "version": "2"},
}


def a_payer(total: int = 10_000, **how: Any) -> Payer:
    limits = {k: how.pop(k) for k in ("per_item", "per_request", "max_price") if k in how}
    return Payer(ACCOUNT, Budget(total, **limits), **how)


def terms_of(*accepts: Any, **more: Any) -> Offers:
    document = {"x402Version": 2, "error": "payment_required", "accepts": list(accepts), **more}
    return read_challenge(encoded(document), b"")


def answer(payer: Payer, terms: Offers, quoted: Quoted | None = None) -> IssuedPayment:
    return payer.answer(terms, quoted or Quoted(ITEM), resource="http://shop/0.ts", now=NOW)


def document_of(payment: IssuedPayment) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(payment.value)))


def test_a_version_2_payment_is_what_the_sdk_reads() -> None:
    required = PaymentRequired(
        error="payment_required",
        resource=ResourceInfo(url="http://shop/0.ts", description="a segment"),
        accepts=[PaymentRequirements.model_validate(GOOD)],
        extensions={"bazaar": {"info": 1}},
    )
    terms = read_challenge(encode_payment_required_header(required), b"")
    payment = answer(a_payer(), terms)
    assert payment.header == "PAYMENT-SIGNATURE"
    payload = decode_payment_signature_header(payment.value)
    assert isinstance(payload, PaymentPayload)
    assert payload.accepted == required.accepts[0]
    assert payload.resource == required.resource
    assert payload.extensions == required.extensions
    authorization = payload.payload["authorization"]
    assert signer_of(payload.payload) == ACCOUNT.address == authorization["from"]
    assert (authorization["to"], authorization["value"]) == (PAYEE, "700")
    assert (authorization["validAfter"], authorization["validBefore"]) == ("0", "1800000300")
    assert (payment.amount, payment.valid_before) == (700, 1_800_000_300)


def test_what_is_accepted_is_repeated_in_every_field_even_unknown_ones() -> None:
    odd = GOOD | {"extra": {"name": "USDC", "version": "2", "more": [None, {"a": 1}]}, "new": "x"}
    assert document_of(answer(a_payer(), terms_of(odd)))["accepted"] == odd


def test_a_version_1_payment_is_what_the_sdk_reads() -> None:
    body = json.dumps({"x402Version": 1, "error": "x", "accepts": [GOOD_V1]}).encode()
    payment = answer(a_payer(), read_challenge(None, body))
    assert payment.header == "X-PAYMENT"
    payload = decode_payment_signature_header(payment.value)
    assert isinstance(payload, PaymentPayloadV1)
    assert (payload.scheme, payload.network) == ("exact", "base-sepolia")
    assert signer_of(payload.payload) == ACCOUNT.address
    assert payload.payload["authorization"]["validAfter"] == "1799999400"
    assert (payment.network, payment.amount) == (NETWORK, 700)


def test_the_digest_is_the_sdks() -> None:
    from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
    from x402.mechanisms.evm.types import ExactEIP3009Payload

    for asset in KNOWN_ASSETS:
        extra = {"name": asset.name, "version": asset.version}
        offer = GOOD | {"network": asset.network, "asset": asset.address, "extra": extra}
        document = document_of(answer(a_payer(), terms_of(offer)))
        payload = ExactEIP3009Payload.from_dict(document["payload"])
        digest = hash_eip3009_authorization(
            payload.authorization, asset.chain_id, asset.address, asset.name, asset.version
        )
        signature = bytes.fromhex(document["payload"]["signature"][2:])
        assert Account._recover_hash(digest, signature=signature) == ACCOUNT.address


def test_the_known_tokens_are_the_sdks() -> None:
    from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS

    for asset in KNOWN_ASSETS:
        if asset.network == "eip155:43113":  # Fuji has no default in the SDK
            continue
        (sdk,) = DEFAULT_ASSETS[asset.network]
        assert (sdk["asset"], sdk["name"], sdk["version"], sdk["decimals"]) == (
            asset.address,
            asset.name,
            asset.version,
            asset.decimals,
        )


def test_every_payment_has_a_nonce_of_its_own_from_the_given_source() -> None:
    payer = a_payer(nonces=lambda size: bytes(range(size)))
    assert answer(payer, terms_of(GOOD)).identity == "0x" + bytes(range(32)).hex()
    payer = a_payer()
    assert len({answer(payer, terms_of(GOOD)).identity for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scheme": "upto"}, "exact"),
        ({"scheme": None}, "exact"),
        ({"network": "eip155:1"}, "eip155:1"),
        ({"network": "base-sepolia"}, "base-sepolia"),
        ({"network": "eip155:8453"}, "token"),
        ({"network": ["eip155:84532"]}, "network"),
        ({"asset": "0x" + "11" * 20}, "token"),
        ({"asset": None}, "token"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "7.5"}, "amount"),
        ({"amount": " 700"}, "amount"),
        ({"amount": "0700"}, "amount"),
        ({"amount": "٧٠٠"}, "amount"),
        ({"amount": 700}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": str(MAX_AMOUNT + 1)}, "amount"),
        ({"amount": "9" * 100_0}, "amount"),
        ({"payTo": "0x" + "00" * 20}, "lost"),
        ({"payTo": ASSET}, "lost"),
        ({"payTo": "vitalik.eth"}, "address"),
        ({"payTo": None}, "address"),
        ({"maxTimeoutSeconds": 0}, "seconds"),
        ({"maxTimeoutSeconds": 10**9}, "seconds"),
        ({"maxTimeoutSeconds": "300"}, "whole number"),
        ({"maxTimeoutSeconds": True}, "whole number"),
        ({"maxTimeoutSeconds": 3e2}, "whole number"),
        ({"extra": {"name": "USD Coin", "version": "2"}}, "EIP-712"),
        ({"extra": {"name": "USDC", "version": "1"}}, "EIP-712"),
        ({"extra": {"name": "USDC", "version": 2}}, "EIP-712"),
        ({"extra": {"assetTransferMethod": "permit2"}}, "EIP-3009"),
        ({"extra": ["USDC"]}, "extra"),
    ],
)
def test_terms_that_are_never_signed(change: dict[str, Any], why: str) -> None:
    payer = a_payer(10**30)
    with pytest.raises(TermsRefused, match=why):
        answer(payer, terms_of(GOOD | change))
    assert payer.budget.signed == 0


@pytest.mark.parametrize(
    ("header", "body", "why"),
    [
        ("%%%%", b"", "base64"),
        ("é" * 10, b"", "base64"),
        (base64.b64encode(b"not json").decode(), b"", "JSON"),
        (base64.b64encode(b"[" * 49_000).decode(), b"", "JSON"),
        (None, b"[" * 65_000, "JSON"),
        (None, b'{"a":' * 13_000, "JSON"),
        (base64.b64encode(b"\xff\xfe").decode(), b"", "JSON"),
        (encoded([1]), b"", "object"),
        (encoded({"x402Version": 3, "accepts": [GOOD]}), b"", "version"),
        (encoded({"x402Version": 1, "accepts": [GOOD_V1]}), b"", "version"),
        (encoded({"x402Version": 2}), b"", "accepts"),
        (encoded({"x402Version": 2, "accepts": {}}), b"", "accepts"),
        (encoded({"x402Version": 2, "accepts": [GOOD] * 10_000}), b"", "larger|JSON"),
        ("A" * 10_000_000, b"", "larger"),
        (None, b"", "JSON"),
        (None, b"<html>", "JSON"),
        (None, b" " * 70_000, "JSON"),
        (None, json.dumps({"x402Version": 2, "accepts": [GOOD]}).encode(), "version"),
        (None, b'{"x402Version": 1, "accepts": [' + b"9" * 5000 + b"]}", "JSON"),
    ],
)
def test_a_402_that_is_not_x402(header: str | None, body: bytes, why: str) -> None:
    with pytest.raises(TermsRefused, match=why):
        read_challenge(header, body)


def test_nothing_offered_is_refused() -> None:
    for accepts in ([], ["exact", None, 7]):
        with pytest.raises(TermsRefused, match="no way to pay"):
            answer(a_payer(), terms_of(*accepts))


def test_only_so_many_offers_are_looked_at() -> None:
    foreign = GOOD | {"network": "eip155:1"}
    assert answer(a_payer(), terms_of(*[foreign] * (MAX_ACCEPTS - 1), GOOD))
    with pytest.raises(TermsRefused):
        answer(a_payer(), terms_of(*[foreign] * MAX_ACCEPTS, GOOD))


def test_the_first_offer_within_the_limits_is_taken() -> None:
    dear = GOOD | {"amount": "999"}
    payment = answer(a_payer(800), terms_of(GOOD | {"scheme": "batch-settlement"}, dear, GOOD))
    assert payment.amount == 700
    with pytest.raises(BudgetExceeded, match=r"\$0.000999.*\$0.0008"):
        answer(a_payer(800), terms_of(GOOD | {"network": "eip155:1"}, dear))


def test_another_token_is_signed_for_only_when_its_owner_allows_it() -> None:
    ours = Asset("eip155:31337", "0x" + "7a" * 20, "Our Dollar", "1", 6, "OUR")
    extra = {"name": "Our Dollar", "version": "1"}
    offer = GOOD | {"network": ours.network, "asset": "0x" + "7A" * 20, "extra": extra}
    with pytest.raises(TermsRefused):
        answer(a_payer(), terms_of(offer))
    payment = answer(a_payer(assets=[*KNOWN_ASSETS, ours]), terms_of(offer))
    assert (payment.asset, payment.amount) == (ours.address, 700)


def test_validity_is_cut_to_what_is_reasonable() -> None:
    payment = answer(a_payer(), terms_of(GOOD | {"maxTimeoutSeconds": 86_400}))
    assert payment.valid_before == int(NOW) + 600
    assert document_of(payment)["accepted"]["maxTimeoutSeconds"] == 86_400


def test_an_amount_above_the_quote_is_refused_and_a_lower_one_taken() -> None:
    for quoted in (Quoted(ITEM, amount=699), Quoted(ITEM, at_most=699), Quoted(ITEM, amount=0)):
        payer = a_payer()
        with pytest.raises(TermsRefused, match="quoted"):
            answer(payer, terms_of(GOOD), quoted)
        assert payer.budget.signed == 0
    for quoted in (Quoted(ITEM, amount=700), Quoted(ITEM, amount=701), Quoted(ITEM, at_most=700)):
        assert answer(a_payer(), terms_of(GOOD), quoted).amount == 700


def test_the_payee_of_an_item_may_not_change_under_way() -> None:
    payer = a_payer()
    answer(payer, terms_of(GOOD))
    other = terms_of(GOOD | {"payTo": "0x" + "99" * 20})
    with pytest.raises(TermsRefused, match="payee"):
        answer(payer, other)
    assert answer(payer, other, Quoted("http://shop/hls/other")).amount == 700
    assert answer(payer, terms_of(GOOD | {"payTo": PAYEE.lower()})).amount == 700
    free = a_payer(pin_payee=False)
    answer(free, terms_of(GOOD))
    assert answer(free, other).amount == 700


def test_limits_hold_before_signing() -> None:
    with pytest.raises(BudgetExceeded, match="one"):
        answer(a_payer(per_request=699), terms_of(GOOD))
    with pytest.raises(BudgetExceeded, match="per MB"):
        answer(a_payer(max_price=Price(699)), terms_of(GOOD), Quoted(ITEM, size=MIB))
    with pytest.raises(BudgetExceeded, match="size is not known"):
        answer(a_payer(max_price=Price(10**9)), terms_of(GOOD))
    assert answer(a_payer(max_price=Price(700)), terms_of(GOOD), Quoted(ITEM, size=MIB))
    payer = a_payer(per_item=1000)
    answer(payer, terms_of(GOOD))
    with pytest.raises(BudgetExceeded, match=r"\$0.0007, and \$0.0003 is left .* \$0.001"):
        answer(payer, terms_of(GOOD))
    assert answer(payer, terms_of(GOOD), Quoted("http://shop/hls/other")).amount == 700
    assert payer.budget.signed == 1400


@given(
    total=st.integers(0, 5000),
    per_item=st.none() | st.integers(0, 5000),
    per_request=st.none() | st.integers(0, 2000),
    max_price=st.none() | st.integers(0, 2000),
    wanted=st.lists(
        st.tuples(
            st.integers(1, 3000), st.sampled_from("abc"), st.integers(1, 3 * MIB), st.booleans()
        ),
        max_size=12,
    ),
)
@settings(max_examples=60, deadline=None)
def test_no_limit_is_ever_signed_beyond(
    total: int,
    per_item: int | None,
    per_request: int | None,
    max_price: int | None,
    wanted: list[tuple[int, str, int, bool]],
) -> None:
    payer = Payer(
        ACCOUNT,
        Budget(
            total,
            per_item=per_item,
            per_request=per_request,
            max_price=None if max_price is None else Price(max_price),
        ),
    )
    signed: list[IssuedPayment] = []
    for amount, item, size, ahead in wanted:
        quoted = Quoted(item, size=size, amount=amount)
        terms = terms_of(GOOD | {"amount": str(amount)})
        allowed = (
            amount + sum(p.amount for p in signed) <= total
            and (per_item is None or amount + _spent(signed, item) <= per_item)
            and (per_request is None or amount <= per_request)
            and (max_price is None or amount <= -(-size * max_price // MIB))
        )
        if ahead:
            payer.learn(item, terms)
        try:
            made = (
                payer.ahead(quoted, resource="r", now=NOW)
                if ahead
                else answer(payer, terms, quoted)
            )
        except BudgetExceeded:
            assert not allowed
        else:
            assert allowed
            assert made is not None
            assert made.amount == amount
            signed.append(made)
        assert payer.budget.signed == sum(p.amount for p in signed) <= total


def _spent(signed: list[IssuedPayment], item: str) -> int:
    return sum(p.amount for p in signed if p.item == item)


def test_what_was_signed_stays_spent() -> None:
    payer = a_payer(700)
    payment = answer(payer, terms_of(GOOD))
    with pytest.raises(BudgetExceeded):
        answer(payer, terms_of(GOOD))
    other = a_payer(700)
    other.adopt(payment)
    with pytest.raises(BudgetExceeded):
        answer(other, terms_of(GOOD))


def test_paying_ahead_takes_the_terms_of_the_item_with_the_quoted_amount() -> None:
    payer = a_payer()
    quoted = Quoted(ITEM, size=MIB, amount=900)
    assert payer.ahead(quoted, resource="r", now=NOW) is None
    answer(payer, terms_of(GOOD, resource={"url": "http://shop/0.ts"}))
    payment = payer.ahead(quoted, resource="r", now=NOW)
    assert payment is not None
    document = document_of(payment)
    assert document["accepted"] == GOOD | {"amount": "900"}
    assert "resource" not in document  # it is another one
    assert document["payload"]["authorization"]["value"] == "900"
    assert payer.ahead(Quoted(ITEM, amount=0), resource="r", now=NOW) is None
    assert payer.ahead(Quoted(ITEM), resource="r", now=NOW) is None
    assert payer.ahead(Quoted(ITEM, at_most=9), resource="r", now=NOW) is None
    with pytest.raises(BudgetExceeded):
        payer.ahead(Quoted(ITEM, amount=10_000), resource="r", now=NOW)


def test_paying_ahead_from_a_price_list() -> None:
    offer = {name: value for name, value in GOOD.items() if name != "amount"}
    terms = read_pricing(json.dumps({"accepts": [offer], "price_per_mb": "0.001"}).encode())
    assert terms is not None
    payer = a_payer()
    payer.learn(ITEM, terms)
    payment = payer.ahead(Quoted(ITEM, amount=716), resource="r", now=NOW)
    assert payment is not None
    assert document_of(payment)["accepted"] == GOOD | {"amount": "716"}
    for unusable in (b"", b"[]", b"{}", b'{"accepts": 7}'):
        assert read_pricing(unusable) is None
    foreign = read_pricing(json.dumps({"accepts": [offer | {"network": "eip155:1"}]}).encode())
    assert foreign is not None
    payer.learn(ITEM, foreign)
    assert payer.ahead(Quoted(ITEM, amount=716), resource="r", now=NOW) is None


def test_terms_of_many_items_are_bounded() -> None:
    payer = a_payer()
    for number in range(3000):
        payer.learn(f"item {number}", terms_of(GOOD))
    assert len(payer._terms) == 256
    assert payer.ahead(Quoted("item 2999", amount=1), resource="r", now=NOW) is not None


def test_whether_a_402_asks_for_what_was_given() -> None:
    payer = a_payer()
    terms = terms_of(GOOD)
    payment = answer(payer, terms)
    assert still_offered(terms, payment)
    assert not still_offered(terms_of(GOOD | {"amount": "701"}), payment)
    assert not still_offered(terms_of(GOOD | {"maxTimeoutSeconds": 301}), payment)
    body = json.dumps({"x402Version": 1, "accepts": [GOOD_V1]}).encode()
    first = answer(payer, read_challenge(None, body))
    assert still_offered(read_challenge(None, body), first)
    assert not still_offered(read_challenge(None, body.replace(b"700", b"701")), first)


def test_a_receipt_is_read_without_trust() -> None:
    good = {"success": True, "transaction": "0x" + "ab" * 32, "network": NETWORK, "payer": "0x1"}
    for name in ("PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"):
        receipt = read_receipt({name: encoded(good)})
        assert receipt is not None
        assert receipt.transaction == good["transaction"]
    queued = read_receipt({"PAYMENT-RESPONSE": encoded(good | {"transaction": ""})})
    assert queued is not None
    assert queued.transaction == ""
    nasty = read_receipt(
        {"PAYMENT-RESPONSE": encoded(good | {"transaction": "\x1b]0;x", "payer": "\x1b[2J" * 99})}
    )
    assert nasty is not None
    assert nasty.transaction == ""
    assert "\x1b" not in nasty.payer
    assert len(nasty.payer) <= 100
    for bad in ("", "%%", encoded([]), encoded(good | {"success": False})):
        assert read_receipt({"PAYMENT-RESPONSE": bad}) is None


@given(st.text())
def test_shown_text_is_plain(text: str) -> None:
    assert plain(text).isascii()
    assert all(" " <= c <= "~" for c in plain(text))
    assert plain(None) == ""


@given(st.binary(max_size=300), st.booleans())
def test_any_garbage_is_refused_by_the_one_error(data: bytes, in_header: bool) -> None:
    header = base64.b64encode(data).decode() if in_header else None
    try:
        read_challenge(header, b"" if in_header else data)
    except TermsRefused as error:
        assert str(error).isascii()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(field=st.sampled_from([*GOOD, "name", "version"]), value=JSON)
@settings(deadline=None)
def test_no_field_of_an_offer_can_break_the_payer(field: str, value: Any) -> None:
    offer = GOOD | {field: value}
    if field in ("name", "version"):
        offer = GOOD | {"extra": {"name": "USDC", "version": "2"} | {field: value}}
    payer = a_payer()
    try:
        payment = answer(payer, terms_of(offer))
    except (TermsRefused, BudgetExceeded):
        assert payer.budget.signed == 0
    else:
        assert payment.amount == payer.budget.signed
        assert signer_of(document_of(payment)["payload"]) == ACCOUNT.address


def test_items_and_resources_have_names() -> None:
    for path in ("index.m3u8", "source/index.m3u8", "source/7.ts", "pricing.json"):
        assert item_of(f"http://shop:8402/hls/plasma/{path}?q") == "http://shop:8402/hls/plasma"
    assert item_of("https://shop/cdn/hls/plasma/1.ts") == "https://shop/cdn/hls/plasma"
    assert item_of("https://shop/objects/book") == "https://shop/objects/book"
    assert item_of("https://shop/hls") == "https://shop/hls"
    assert resource_of("https://shop/objects/book") == "https://shop/objects/book"
    assert resource_of("https://shop/a", "bytes=0-9") == "https://shop/a#bytes=0-9"

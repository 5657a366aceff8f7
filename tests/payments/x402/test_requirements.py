"""The 402 as the official SDK reads it, version 2 in the header and version 1 in the body."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from x402.client import x402ClientSync
from x402.http.utils import decode_payment_required_header, detect_payment_required_version
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.schemas import PaymentPayload, PaymentRequired
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequiredV1

from tests.fakes import USDC, a_challenge
from tests.support.paying import PAYEE, a_sale
from xbyte_live.evm.eip3009 import read_authorization, signer_of
from xbyte_live.money import MIB, Asset, Price
from xbyte_live.payments.x402.headers import PAYMENT_SIGNATURE, X_PAYMENT, read_payment
from xbyte_live.payments.x402.requirements import (
    PAYMENT_REQUIRED,
    Challenge,
    PaymentMethod,
    Sale,
    requirements_v1,
    requirements_v2,
)
from xbyte_live.pricing.quotes import Quote

METHOD = PaymentMethod("exact", USDC, "base-sepolia")
FUJI = PaymentMethod(
    "exact",
    Asset("eip155:43113", "0x5425890298aed601595a70AB815c96711a31Bc65", "USD Coin", "2", 6, "USDC"),
    "avalanche-fuji",
)
UNNAMED = PaymentMethod(
    "exact", Asset("eip155:31337", "0x" + "12" * 20, "Test", "1", 6, "TUSD"), None
)


def ask(sale: Sale | None = None, *methods: PaymentMethod, error: str = "e") -> Challenge:
    return a_challenge(sale or a_sale(), methods or (METHOD,), error)


def v2_of(asked: Challenge) -> PaymentRequired:
    decoded = decode_payment_required_header(asked.headers[PAYMENT_REQUIRED])
    assert isinstance(decoded, PaymentRequired)
    return decoded


def v1_of(asked: Challenge) -> PaymentRequiredV1:
    return PaymentRequiredV1.model_validate_json(asked.body)


def test_version_2_reads_as_the_sale() -> None:
    asked = v2_of(ask(error="payment_required"))
    assert asked.x402_version == 2
    assert asked.error == "payment_required"
    assert asked.resource is not None
    assert asked.resource.url == "http://test/hls/plasma/source/0.ts"
    assert asked.resource.description == "a segment"
    assert asked.resource.mime_type == "video/mp2t"
    (terms,) = asked.accepts
    assert (terms.scheme, terms.network, terms.asset) == ("exact", "eip155:84532", USDC.address)
    assert (terms.amount, terms.pay_to, terms.max_timeout_seconds) == ("1000", PAYEE, 300)
    assert terms.extra == {"name": "USDC", "version": "2"}


def test_version_1_reads_as_the_sale() -> None:
    asked = v1_of(ask(error="payment_required"))
    assert asked.x402_version == 1
    assert asked.error == "payment_required"
    (terms,) = asked.accepts
    assert (terms.scheme, terms.network, terms.asset) == ("exact", "base-sepolia", USDC.address)
    assert (terms.max_amount_required, terms.pay_to) == ("1000", PAYEE)
    assert (terms.resource, terms.description) == (
        "http://test/hls/plasma/source/0.ts",
        "a segment",
    )
    assert (terms.mime_type, terms.max_timeout_seconds) == ("video/mp2t", 300)
    assert terms.extra == {"name": "USDC", "version": "2"}


def test_no_field_is_written_that_the_sdk_does_not_know() -> None:
    """What the SDK reads and writes again is what we wrote, field for field."""
    asked = ask()
    v2 = json.loads(base64.b64decode(asked.headers[PAYMENT_REQUIRED]))
    assert v2_of(asked).model_dump(by_alias=True, exclude_none=True) == v2
    assert v1_of(asked).model_dump(by_alias=True, exclude_none=True) == json.loads(asked.body)


def test_the_requirements_are_what_is_offered() -> None:
    sale = a_sale()
    asked = ask(sale)
    v2 = json.loads(base64.b64decode(asked.headers[PAYMENT_REQUIRED]))["accepts"]
    assert v2 == [requirements_v2(METHOD, sale.quotes[0], 300)]
    v1 = json.loads(asked.body)["accepts"]
    assert v1 == [requirements_v1(METHOD, sale.quotes[0], 300, sale)]


def test_the_sdk_sees_version_2_first_and_version_1_without_the_header() -> None:
    asked = ask()
    assert detect_payment_required_version(asked.headers, asked.body) == 2
    assert detect_payment_required_version({}, asked.body) == 1


def test_methods_are_offered_in_their_order() -> None:
    asked = ask(None, FUJI, METHOD)
    assert [terms.network for terms in v2_of(asked).accepts] == ["eip155:43113", "eip155:84532"]
    assert [terms.network for terms in v1_of(asked).accepts] == ["avalanche-fuji", "base-sepolia"]


def test_a_network_without_a_legacy_name_is_not_offered_to_version_1() -> None:
    asked = ask(None, UNNAMED, METHOD)
    assert [terms.network for terms in v2_of(asked).accepts] == ["eip155:31337", "eip155:84532"]
    assert [terms.network for terms in v1_of(asked).accepts] == ["base-sepolia"]
    assert v1_of(ask(None, UNNAMED)).accepts == []


def test_only_exact_is_offered_to_version_1() -> None:
    asked = ask(None, replace(METHOD, scheme="batch-settlement"), METHOD)
    assert [terms.scheme for terms in v2_of(asked).accepts] == ["batch-settlement", "exact"]
    assert [terms.scheme for terms in v1_of(asked).accepts] == ["exact"]


def test_the_quote_in_force_is_asked_for_not_an_older_one() -> None:
    quotes = (Quote(MIB, Price(2000), PAYEE), Quote(MIB, Price(1000), PAYEE))
    asked = ask(a_sale(quotes=quotes))
    assert [terms.amount for terms in v2_of(asked).accepts] == ["2000"]
    assert [terms.max_amount_required for terms in v1_of(asked).accepts] == ["2000"]


@given(st.integers(1, 2**40), st.integers(1, 10**6))
def test_the_amount_is_the_price_of_the_bytes(size: int, price: int) -> None:
    quote = Quote(size, Price(price), PAYEE)
    asked = ask(a_sale(size=size, quotes=(quote,)))
    assert v2_of(asked).accepts[0].amount == str(Price(price).amount_for(size))
    assert v1_of(asked).accepts[0].max_amount_required == str(Price(price).amount_for(size))


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_description_survives_the_header(description: str, mime_type: str) -> None:
    asked = ask(a_sale(description=description, mime_type=mime_type))
    assert asked.headers[PAYMENT_REQUIRED].isascii()
    assert "\n" not in asked.headers[PAYMENT_REQUIRED]
    decoded = json.loads(base64.b64decode(asked.headers[PAYMENT_REQUIRED]))
    assert decoded["resource"]["description"] == description
    assert json.loads(asked.body)["accepts"][0]["mimeType"] == mime_type


def sdk_client() -> tuple[x402ClientSync, str]:
    account = Account.create()
    client = x402ClientSync()
    register_exact_evm_client(client, account)
    return client, account.address.lower()


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_unmodified_sdk_signs_for_a_402_is_what_was_asked(version: int) -> None:
    asked = ask()
    client, payer = sdk_client()
    terms: Any = v2_of(asked) if version == 2 else v1_of(asked)
    signed = client.create_payment_payload(terms)
    assert isinstance(signed, PaymentPayload if version == 2 else PaymentPayloadV1)
    document = signed.model_dump_json(by_alias=True, exclude_none=True).encode()
    header = PAYMENT_SIGNATURE if version == 2 else X_PAYMENT
    payment = read_payment({header: base64.b64encode(document).decode()}, max_bytes=16384)
    assert payment is not None
    if version == 2:
        assert payment.accepted == requirements_v2(METHOD, a_sale().quotes[0], 300)
    authorization = read_authorization(payment.payload)
    assert (authorization.value, authorization.to) == (1000, PAYEE.lower())
    assert signer_of(authorization, USDC) == payer

"""Payment headers as x402 clients send them, and whatever else arrives under their names."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from x402.http.utils import (
    decode_payment_response_header,
    encode_payment_signature_header,
)
from x402.schemas import PaymentPayload, PaymentRequirements
from x402.schemas.v1 import PaymentPayloadV1

from xbyte_live.errors import PaymentMalformed
from xbyte_live.payments.x402.headers import (
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    X_PAYMENT,
    X_PAYMENT_RESPONSE,
    Payment,
    read_payment,
    response_headers,
)

LIMIT = 16384
PAYLOAD = {"signature": "0x00", "authorization": {}}
ACCEPTED = {
    "scheme": "exact",
    "network": "eip155:84532",
    "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    "amount": "716",
    "payTo": "0x00000000000000000000000000000000000000aa",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USDC", "version": "2"},
}
V2: dict[str, Any] = {"x402Version": 2, "accepted": ACCEPTED, "payload": PAYLOAD}
V1: dict[str, Any] = {
    "x402Version": 1,
    "scheme": "exact",
    "network": "base-sepolia",
    "payload": PAYLOAD,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def encoded(document: Any) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.b64encode(text).decode()


def read(header: str, value: str) -> Payment | None:
    return read_payment(Headers({header: value}), max_bytes=LIMIT)


def test_a_request_without_a_payment_carries_none() -> None:
    assert read_payment(Headers({"range": "bytes=0-1"}), max_bytes=LIMIT) is None
    assert read(PAYMENT_SIGNATURE, "") is None


def test_what_the_official_v2_client_sends() -> None:
    sent = PaymentPayload(
        payload=PAYLOAD, accepted=PaymentRequirements.model_validate(ACCEPTED), extensions={}
    )
    payment = read(PAYMENT_SIGNATURE, encode_payment_signature_header(sent))
    assert payment == Payment(2, "exact", "eip155:84532", ACCEPTED, PAYLOAD)


def test_what_the_official_v1_client_sends() -> None:
    sent = PaymentPayloadV1(scheme="exact", network="base-sepolia", payload=PAYLOAD)
    payment = read(X_PAYMENT, encode_payment_signature_header(sent))
    assert payment == Payment(1, "exact", "base-sepolia", None, PAYLOAD)


def test_header_names_are_read_in_any_case() -> None:
    assert read("payment-signature", encoded(V2)) == read("Payment-Signature", encoded(V2))
    assert read("x-payment", encoded(V1)) is not None


def test_a_version_2_payment_goes_before_a_version_1_payment() -> None:
    headers = Headers({X_PAYMENT: encoded(V1), PAYMENT_SIGNATURE: encoded(V2)})
    payment = read_payment(headers, max_bytes=LIMIT)
    assert payment is not None and payment.version == 2


def test_the_document_says_its_version_not_the_header() -> None:
    payment = read(X_PAYMENT, encoded(V2))
    assert payment is not None and payment.version == 2


def test_space_around_the_value_is_nothing() -> None:
    assert read(X_PAYMENT, f" {encoded(V1)} ") == read(X_PAYMENT, encoded(V1))


def test_a_header_has_a_limit() -> None:
    assert read_payment(Headers({X_PAYMENT: encoded(V1)}), max_bytes=len(encoded(V1)))
    with pytest.raises(PaymentMalformed, match="at most"):
        read_payment(Headers({X_PAYMENT: encoded(V1)}), max_bytes=len(encoded(V1)) - 1)


@pytest.mark.parametrize(
    "value",
    [
        "not base64!",
        encoded(V1).rstrip("=") + "!",
        encoded(V1)[:-1],
        encoded(b"\xff\xfe\xfd"),
        encoded(b" "),
        encoded(b"{"),
        encoded(b"[" * 5000),
        encoded(b'{"a":' * 2000),
        encoded(b'{"x402Version": ' + b"9" * 5000 + b"}"),
        encoded(b'{"x402Version": NaN}'),
        encoded(b'{"x402Version": 1, "a": Infinity}'),
        encoded([V2]),
        encoded("text"),
        encoded(None),
    ],
)
def test_what_is_no_json_object_is_malformed(value: str) -> None:
    with pytest.raises(PaymentMalformed):
        read(PAYMENT_SIGNATURE, value)


@pytest.mark.parametrize("version", [0, 3, -1, "2", "1", 1.0, 2.0, True, None, [2], {}])
@pytest.mark.parametrize("document", [V1, V2])
def test_other_versions_are_malformed(document: dict[str, Any], version: Any) -> None:
    with pytest.raises(PaymentMalformed, match="x402Version"):
        read(PAYMENT_SIGNATURE, encoded(document | {"x402Version": version}))


@pytest.mark.parametrize(
    "document",
    [
        {**V2, "payload": None},
        {**V2, "payload": [PAYLOAD]},
        {**V2, "accepted": None},
        {**V2, "accepted": [ACCEPTED]},
        {**V2, "accepted": {}},
        {**V2, "accepted": {**ACCEPTED, "scheme": 1}},
        {**V2, "accepted": {**ACCEPTED, "network": None}},
        {**V1, "x402Version": 2, "accepted": {}},  # a v1 payment is no v2 one with terms left out
        {**V1, "scheme": None},
        {**V1, "network": ["base-sepolia"]},
        {k: v for k, v in V1.items() if k != "network"},
        {},
    ],
)
def test_a_payment_that_lacks_a_part_is_malformed(document: dict[str, Any]) -> None:
    with pytest.raises(PaymentMalformed):
        read(PAYMENT_SIGNATURE, encoded(document))


@pytest.mark.parametrize("document", [V1, V2])
def test_every_cut_of_a_payment_is_malformed(document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    for end in range(1, len(text)):
        with pytest.raises(PaymentMalformed):
            read(PAYMENT_SIGNATURE, encoded(text[:end]))


@given(st.text(min_size=1, max_size=200))
def test_any_text_is_malformed_or_a_payment(value: str) -> None:
    try:
        payment = read_payment({PAYMENT_SIGNATURE: value}, max_bytes=LIMIT)
    except PaymentMalformed:
        return
    assert isinstance(payment, Payment)


@given(json_values)
def test_any_json_is_malformed_or_a_payment(document: Any) -> None:
    try:
        payment = read_payment({X_PAYMENT: encoded(document)}, max_bytes=LIMIT)
    except PaymentMalformed:
        return
    assert isinstance(payment, Payment)


@given(
    st.dictionaries(
        st.sampled_from(["x402Version", "scheme", "network", "accepted", "payload", "more"]),
        st.sampled_from([1, 2, "exact", "base", ACCEPTED, PAYLOAD, {}]) | json_values,
    )
)
def test_any_mixture_of_fields_is_malformed_or_typed(document: dict[str, Any]) -> None:
    try:
        payment = read_payment({X_PAYMENT: encoded(document)}, max_bytes=LIMIT)
    except PaymentMalformed:
        return
    assert payment is not None
    assert type(payment.version) is int
    assert isinstance(payment.scheme, str) and isinstance(payment.network, str)
    assert isinstance(payment.payload, dict)
    assert isinstance(payment.accepted, dict) == (payment.version == 2)


def test_what_is_wrong_is_said_without_repeating_it() -> None:
    with pytest.raises(PaymentMalformed) as raised:
        read(PAYMENT_SIGNATURE, encoded({**V2, "payload": "secret " * 100}))
    assert "secret" not in str(raised.value)


def a_response(version: int, transaction: str = "0x" + "ab" * 32, **more: Any) -> dict[str, str]:
    return response_headers(
        version,
        network="eip155:84532",
        payer="0x00000000000000000000000000000000000000bb",
        amount=716,
        transaction=transaction,
        **more,
    )


@pytest.mark.parametrize(("version", "header"), [(2, PAYMENT_RESPONSE), (1, X_PAYMENT_RESPONSE)])
def test_the_official_client_reads_our_response(version: int, header: str) -> None:
    (name, value), *rest = a_response(version).items()
    assert (name, rest) == (header, [])
    response = decode_payment_response_header(value)
    assert response.success
    assert response.transaction == "0x" + "ab" * 32
    assert response.network == "eip155:84532"
    assert response.payer == "0x00000000000000000000000000000000000000bb"
    assert response.amount == ("716" if version == 2 else None)


def test_a_settlement_to_come_has_no_transaction() -> None:
    response = decode_payment_response_header(a_response(2, transaction="")[PAYMENT_RESPONSE])
    assert response.success
    assert response.transaction == ""


def test_a_receipt_travels_as_an_extension() -> None:
    value = a_response(2, receipt="7.abc")[PAYMENT_RESPONSE]
    assert json.loads(base64.b64decode(value))["extensions"] == {
        "xbyte-receipt": {"receipt": "7.abc"}
    }
    assert decode_payment_response_header(value).success

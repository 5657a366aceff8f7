"""Who signed an authorization: the same answer as eth_account, the SDK and USDC itself."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_keys.constants import SECPK1_N
from hypothesis import given
from hypothesis import strategies as st
from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
from x402.mechanisms.evm.types import ExactEIP3009Authorization

from tests.fakes import USDC
from tests.support.paying import TYPES
from xbyte_live.errors import PaymentMalformed
from xbyte_live.evm.eip712 import domain_separator, recover, typed_digest
from xbyte_live.evm.eip3009 import (
    EXPIRY_MARGIN,
    Authorization,
    plain_payload,
    read_authorization,
    refusal,
    signer_of,
)
from xbyte_live.money import MAX_AMOUNT, Asset

PAYER = Account.from_key("0x" + "11" * 32)
OTHER = Account.from_key("0x" + "22" * 32)
PAYEE = "0x00000000000000000000000000000000000000Aa"
NOW = 1_760_000_000
NONCE = "0x" + "ab" * 32

addresses = st.binary(min_size=20, max_size=20).map(lambda data: "0x" + data.hex())
nonces = st.binary(min_size=32, max_size=32).map(lambda data: "0x" + data.hex())
words = st.integers(0, 2**256 - 1)
assets = st.builds(
    Asset,
    network=st.integers(1, 2**63).map(lambda chain: f"eip155:{chain}"),
    address=addresses,
    name=st.text(max_size=20),
    version=st.text(max_size=5),
    decimals=st.just(6),
    symbol=st.just("USDC"),
)


def unsigned(**changes: Any) -> Authorization:
    authorization = Authorization(
        payer=PAYER.address.lower(),
        to=PAYEE.lower(),
        value=716,
        valid_after=0,
        valid_before=NOW + 300,
        nonce=NONCE,
        signature=b"",
    )
    return replace(authorization, **changes)


def signed(
    authorization: Authorization | None = None, asset: Asset = USDC, account: Any = PAYER
) -> Authorization:
    """An authorization signed the way wallets do it, by eth_account's typed data."""
    authorization = authorization or unsigned()
    signature = account.sign_typed_data(
        {
            "name": asset.name,
            "version": asset.version,
            "chainId": asset.chain_id,
            "verifyingContract": asset.address,
        },
        TYPES,
        {
            "from": authorization.payer,
            "to": authorization.to,
            "value": authorization.value,
            "validAfter": authorization.valid_after,
            "validBefore": authorization.valid_before,
            "nonce": authorization.nonce,
        },
    ).signature
    return replace(authorization, signature=bytes(signature))


def a_payload(**changes: Any) -> dict[str, Any]:
    """A payload as clients send it, some of its fields changed."""
    signature = changes.pop("signature", "0x" + signed().signature.hex())
    fields = {
        "from": PAYER.address,
        "to": PAYEE,
        "value": "716",
        "validAfter": "0",
        "validBefore": str(NOW + 300),
        "nonce": NONCE,
    }
    return {"signature": signature, "authorization": fields | changes}


def test_the_signer_of_a_wallets_typed_data_is_the_wallet() -> None:
    assert signer_of(signed(), USDC) == PAYER.address.lower()
    assert signer_of(signed(account=OTHER), USDC) == OTHER.address.lower()


@given(addresses, words, words, words, nonces, assets)
def test_any_authorization_of_any_token_is_read_as_eth_account_signs_it(
    to: str, value: int, valid_after: int, valid_before: int, nonce: str, asset: Asset
) -> None:
    authorization = unsigned(
        to=to, value=value, valid_after=valid_after, valid_before=valid_before, nonce=nonce
    )
    assert signer_of(signed(authorization, asset), asset) == PAYER.address.lower()


@given(addresses, addresses, words, words, words, nonces, assets)
def test_the_digest_is_the_sdks(
    payer: str, to: str, value: int, after: int, before: int, nonce: str, asset: Asset
) -> None:
    theirs = hash_eip3009_authorization(
        ExactEIP3009Authorization(payer, to, str(value), str(after), str(before), nonce),
        asset.chain_id,
        asset.address,
        asset.name,
        asset.version,
    )
    ours = Authorization(payer, to, value, after, before, nonce, b"")
    signature = PAYER.unsafe_sign_hash(theirs).signature
    assert signer_of(replace(ours, signature=bytes(signature)), asset) == PAYER.address.lower()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "payer": addresses,
            "to": addresses,
            "value": words,
            "valid_after": words,
            "valid_before": words,
            "nonce": nonces,
        },
    )
)
def test_any_changed_field_changes_the_signer(changes: dict[str, Any]) -> None:
    original = signed()
    changed = replace(original, **changes)
    assert (signer_of(changed, USDC) == PAYER.address.lower()) == (changed == original)


@pytest.mark.parametrize(
    "asset",
    [
        replace(USDC, network="eip155:8453"),
        replace(USDC, address="0x" + "12" * 20),
        replace(USDC, name="USD Coin"),
        replace(USDC, version="1"),
    ],
)
def test_a_signature_for_another_token_is_anothers(asset: Asset) -> None:
    assert signer_of(signed(asset=asset), USDC) != PAYER.address.lower()
    assert signer_of(signed(), asset) != PAYER.address.lower()


def test_letter_case_of_the_contract_changes_nothing() -> None:
    lower = replace(USDC, address=USDC.address.lower())
    assert domain_separator(lower) == domain_separator(USDC)


@given(st.integers(0, 64), st.integers(1, 255))
def test_any_changed_byte_of_the_signature_changes_the_signer(index: int, flip: int) -> None:
    signature = bytearray(signed().signature)
    signature[index] ^= flip
    changed = replace(signed(), signature=bytes(signature))
    same_parity = index == 64 and signature[64] == signed().signature[64] - 27
    assert (signer_of(changed, USDC) == PAYER.address.lower()) == same_parity


@given(st.integers(0, 255))
def test_only_the_four_forms_of_the_recovery_byte_are_read(v: int) -> None:
    signature = signed().signature
    found = signer_of(replace(signed(), signature=signature[:64] + bytes([v])), USDC)
    right = {signature[64], signature[64] - 27}
    assert (found == PAYER.address.lower()) == (v in right)
    assert v in (0, 1, 27, 28) or found is None


def test_a_malleated_signature_has_no_signer() -> None:
    """USDC refuses a high s, so a payment with one can never settle."""
    signature = signed().signature
    s = int.from_bytes(signature[32:64], "big")
    high = signature[:32] + (SECPK1_N - s).to_bytes(32, "big") + bytes([55 - signature[64]])
    assert signer_of(replace(signed(), signature=high), USDC) is None


def test_the_highest_low_s_is_read_and_the_next_one_is_not() -> None:
    digest = b"\x01" * 32
    r = signed().signature[:32]
    half = SECPK1_N // 2
    assert recover(digest, r + half.to_bytes(32, "big") + b"\x1b") is not None
    assert recover(digest, r + (half + 1).to_bytes(32, "big") + b"\x1b") is None


@pytest.mark.parametrize("r", [0, SECPK1_N, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, SECPK1_N, 2**256 - 1])
def test_numbers_off_the_curve_have_no_signer(r: int, s: int) -> None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + b"\x1b"
    assert recover(b"\x01" * 32, signature) is None


def test_a_zero_s_has_no_signer() -> None:
    assert recover(b"\x01" * 32, signed().signature[:32] + bytes(32) + b"\x1b") is None


@given(st.binary(max_size=70))
def test_any_bytes_have_an_address_or_no_signer(signature: bytes) -> None:
    found = recover(b"\x01" * 32, signature)
    assert found is None or (len(signature) == 65 and len(found) == 42)


@pytest.mark.parametrize("length", [0, 1, 64, 66, 130])
def test_a_signature_of_another_length_is_no_plain_one(length: int) -> None:
    authorization = unsigned(signature=os.urandom(length))
    assert not authorization.is_plain
    assert signer_of(authorization, USDC) is None


def test_the_digest_has_the_prefix_of_eip_712() -> None:
    digest = typed_digest(domain_separator(USDC), bytes(32))
    signature = PAYER.unsafe_sign_hash(digest).signature
    assert recover(digest, bytes(signature)) == PAYER.address.lower()
    assert recover(bytes(32), bytes(signature)) != PAYER.address.lower()


def test_a_payload_is_read_with_lower_case_addresses() -> None:
    assert read_authorization(a_payload()) == signed()
    shouted = a_payload(
        nonce="0x" + NONCE[2:].upper(), **{"from": "0x" + PAYER.address[2:].upper()}
    )
    assert read_authorization(shouted) == signed()


def test_numbers_may_be_numbers() -> None:
    payload = a_payload(value=716, validAfter=0, validBefore=NOW + 300)
    assert read_authorization(payload) == signed()


@given(words)
def test_a_number_is_read_exactly(value: int) -> None:
    assert read_authorization(a_payload(value=str(value))).value == value


@pytest.mark.parametrize("field", ["value", "validAfter", "validBefore"])
@pytest.mark.parametrize(
    "value",
    [
        None, True, -1, 1.0, 2**256, 10**4000, [], {}, "", "-1", "+1", " 1", "1 ", "1.0", "1e3",
        "0x10", "1_0", "٣", "１", "1\n", "9" * 79, str(2**256),
    ],
)  # fmt: skip
def test_what_is_no_whole_number_of_256_bits_is_malformed(field: str, value: Any) -> None:
    with pytest.raises(PaymentMalformed, match=field):
        read_authorization(a_payload(**{field: value}))


@pytest.mark.parametrize("field", ["from", "to"])
@pytest.mark.parametrize(
    "value", [None, 1, "", "0x", "0x" + "1" * 39, "0x" + "1" * 41, "0x" + "g" * 40, "1" * 42, b"0x"]
)
def test_what_is_no_address_is_malformed(field: str, value: Any) -> None:
    with pytest.raises(PaymentMalformed, match=field):
        read_authorization(a_payload(**{field: value}))


@pytest.mark.parametrize(
    "value", [None, 7, "", "0x", "0x" + "1" * 63, "0x" + "1" * 65, "0x" + "1" * 64 + "\n"]
)
def test_what_is_no_nonce_is_malformed(value: Any) -> None:
    with pytest.raises(PaymentMalformed, match="nonce"):
        read_authorization(a_payload(nonce=value))


@pytest.mark.parametrize(
    "value", [None, 7, "", "0x", "0x1", "abcd", "0xzz", "0x" + "00" * 4097, "0X00"]
)
def test_what_is_no_signature_is_malformed(value: Any) -> None:
    with pytest.raises(PaymentMalformed, match="signature"):
        read_authorization(a_payload(signature=value))


@pytest.mark.parametrize("payload", [{}, {"signature": "0x00"}, {"authorization": []}])
def test_a_payload_without_an_authorization_is_malformed(payload: dict[str, Any]) -> None:
    with pytest.raises(PaymentMalformed):
        read_authorization(payload)


@pytest.mark.parametrize("field", ["from", "to", "value", "validAfter", "validBefore", "nonce"])
def test_a_missing_field_is_malformed(field: str) -> None:
    payload = a_payload()
    del payload["authorization"][field]
    with pytest.raises(PaymentMalformed, match=field):
        read_authorization(payload)


@given(st.dictionaries(st.sampled_from([*a_payload()["authorization"], "more"]), st.text() | words))
def test_any_fields_are_malformed_or_an_authorization(fields: dict[str, Any]) -> None:
    try:
        read = read_authorization({"signature": "0x00", "authorization": fields})
    except PaymentMalformed:
        return
    assert isinstance(read, Authorization)


def test_what_goes_on_has_no_more_than_was_read() -> None:
    payload = a_payload(value=716, rider="r")
    payload |= {"permit2Authorization": {}, "x": 1e999, "\ud800": "\ud800"}
    plain = plain_payload(payload)
    assert plain == a_payload()
    assert read_authorization(plain) == read_authorization(payload)
    json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()


def refused(authorization: Authorization, *, value: int = 716, now: float = NOW) -> str | None:
    return refusal(authorization, value=value, pay_to=PAYEE, now=now)


def test_an_authorization_for_this_sale_is_not_refused() -> None:
    assert refused(unsigned()) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": OTHER.address.lower()}, "invalid_exact_evm_payload_recipient_mismatch"),
        ({"value": 715}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"value": 717}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"value": 0}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"valid_before": NOW}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"valid_before": 0}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"valid_after": NOW + 1}, "invalid_exact_evm_payload_authorization_valid_after"),
        ({"valid_after": 2**256 - 1}, "invalid_exact_evm_payload_authorization_valid_after"),
    ],
)
def test_what_is_refused_has_the_x402_code(changes: dict[str, Any], code: str) -> None:
    assert refused(unsigned(**changes)) == code


def test_an_authorization_needs_a_little_time_left() -> None:
    last = unsigned(valid_before=NOW + EXPIRY_MARGIN)
    assert refused(last) is None
    assert refused(last, now=NOW + 0.001) == "invalid_exact_evm_payload_authorization_valid_before"


def test_an_amount_no_ledger_can_hold_is_refused() -> None:
    huge = unsigned(value=MAX_AMOUNT + 1)
    assert refused(huge, value=MAX_AMOUNT + 1) is not None
    assert refused(unsigned(value=MAX_AMOUNT), value=MAX_AMOUNT) is None

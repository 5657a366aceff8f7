"""What channels sign is what the SDK signs; no payload of any shape does more than be refused."""

import json
import string
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from x402.mechanisms.evm.batch_settlement import constants, errors, types
from x402.mechanisms.evm.batch_settlement.authorizer_signer import (
    LocalAuthorizerSigner,
    sign_claim_batch,
    sign_refund,
)
from x402.mechanisms.evm.batch_settlement.client.voucher import sign_voucher
from x402.mechanisms.evm.batch_settlement.encoding import build_erc3009_deposit_nonce
from x402.mechanisms.evm.batch_settlement.utils import (
    coerce_bytes32,
    compute_channel_id,
    get_batch_settlement_eip712_domain,
)
from x402.mechanisms.evm.signers import EthAccountSigner

from xbyte_live.errors import PaymentMalformed, PaymentRefused
from xbyte_live.evm import channels as ours
from xbyte_live.evm.channels import (
    ChannelConfig,
    Claim,
    Voucher,
    channel_id_of,
    claim_digest,
    config_refusal,
    deposit_nonce,
    read_channel_payment,
    refund_digest,
    signed_by_key,
    voucher_digest,
)
from xbyte_live.evm.eip712 import recover
from xbyte_live.money import MAX_AMOUNT

ACCOUNT = Account.from_key("0x" + "11" * 32)  # tests are named alike in every process
SIGNER = EthAccountSigner(ACCOUNT)
AUTHORIZER = LocalAuthorizerSigner(ACCOUNT)
UINT128 = st.integers(0, 2**128 - 1)
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
WORDS = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
CHAINS = st.sampled_from([1, 8453, 84532, 43114, 31337])
CONFIGS = st.builds(
    ChannelConfig,
    payer=ADDRESSES,
    payer_authorizer=ADDRESSES | st.just(ours.ZERO_ADDRESS),
    receiver=ADDRESSES,
    receiver_authorizer=ADDRESSES,
    token=ADDRESSES,
    withdraw_delay=st.integers(0, 2**40 - 1),
    salt=WORDS,
)


def sdk_config(config: ChannelConfig) -> types.ChannelConfig:
    return types.ChannelConfig.from_dict(config.wire())


def signer_of(digest: bytes, signature: str) -> str | None:
    return recover(digest, bytes.fromhex(signature.removeprefix("0x")))


# Digests


@given(config=CONFIGS, chain_id=CHAINS)
@settings(max_examples=40, deadline=None)
def test_a_channels_id_is_the_sdks(config: ChannelConfig, chain_id: int) -> None:
    assert channel_id_of(config, chain_id) == compute_channel_id(sdk_config(config), chain_id)


@given(channel_id=WORDS, ceiling=UINT128, chain_id=CHAINS)
@settings(max_examples=40, deadline=None)
def test_a_voucher_is_signed_as_the_sdk_signs_it(
    channel_id: str, ceiling: int, chain_id: int
) -> None:
    message = {"channelId": coerce_bytes32(channel_id), "maxClaimableAmount": ceiling}
    domain = get_batch_settlement_eip712_domain(chain_id)
    signable = encode_typed_data(domain, constants.VOUCHER_TYPES, message)
    digest = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert voucher_digest(channel_id, ceiling, chain_id) == digest

    signed = sign_voucher(SIGNER, channel_id, ceiling, f"eip155:{chain_id}")
    good = Voucher(channel_id, ceiling, signed.signature)
    assert signed_by_key(good, ACCOUNT.address.lower(), chain_id)
    assert not signed_by_key(good, ACCOUNT.address.lower(), chain_id + 1)
    assert not signed_by_key(replace(good, ceiling=ceiling ^ 1), ACCOUNT.address.lower(), chain_id)


@given(rows=st.lists(st.tuples(CONFIGS, UINT128, UINT128), min_size=1, max_size=5), chain_id=CHAINS)
@settings(max_examples=25, deadline=None)
def test_a_batch_of_claims_is_signed_as_the_sdk_signs_it(
    rows: list[tuple[ChannelConfig, int, int]], chain_id: int
) -> None:
    claims = [
        Claim(config, Voucher(channel_id_of(config, chain_id), ceiling, "0x11"), total)
        for config, ceiling, total in rows
    ]
    sdk = [types.VoucherClaim.from_dict(claim.wire()) for claim in claims]

    signature = sign_claim_batch(AUTHORIZER, sdk, f"eip155:{chain_id}")

    assert signer_of(claim_digest(claims, chain_id), signature) == ACCOUNT.address.lower()


@given(channel_id=WORDS, nonce=st.integers(0, 2**256 - 1), amount=UINT128, chain_id=CHAINS)
@settings(max_examples=40, deadline=None)
def test_a_refund_is_signed_as_the_sdk_signs_it(
    channel_id: str, nonce: int, amount: int, chain_id: int
) -> None:
    signature = sign_refund(AUTHORIZER, channel_id, amount, nonce, f"eip155:{chain_id}")

    digest = refund_digest(channel_id, nonce, amount, chain_id)
    assert signer_of(digest, signature) == ACCOUNT.address.lower()


@given(channel_id=WORDS, salt=WORDS)
@settings(max_examples=40, deadline=None)
def test_the_nonce_of_a_deposit_is_the_sdks(channel_id: str, salt: str) -> None:
    assert deposit_nonce(channel_id, salt) == build_erc3009_deposit_nonce(channel_id, salt)


def test_names_and_codes_are_the_sdks() -> None:
    assert ours.CONTRACT == constants.BATCH_SETTLEMENT_ADDRESS
    assert ours.COLLECTOR == constants.ERC3009_DEPOSIT_COLLECTOR_ADDRESS
    assert ours.LEAST_DELAY == constants.MIN_WITHDRAW_DELAY
    assert ours.LONGEST_DELAY == constants.MAX_WITHDRAW_DELAY
    known = {value for name, value in vars(errors).items() if name.startswith("ERR_")}
    codes = {v for v in vars(ours).values() if isinstance(v, str) and v.startswith("invalid_batch")}
    assert codes - {ours._PREFIX} <= known
    assert len(codes) > 15


# Payloads


CONFIG = ChannelConfig(
    payer=ACCOUNT.address.lower(),
    payer_authorizer=ACCOUNT.address.lower(),
    receiver="0x" + "aa" * 20,
    receiver_authorizer="0x" + "bb" * 20,
    token="0x" + "cc" * 20,
    withdraw_delay=900,
    salt="0x" + "01" * 32,
)
ID = channel_id_of(CONFIG, 84532)
SIGNATURE = "0x" + "ab" * 65


def a_payload(kind: str = "deposit") -> dict[str, Any]:
    """One with every field there is."""
    return {
        "type": kind,
        "channelConfig": CONFIG.wire(),
        "voucher": {"channelId": ID, "maxClaimableAmount": "1000", "signature": SIGNATURE},
        "deposit": {
            "amount": "5000",
            "authorization": {
                "erc3009Authorization": {
                    "validAfter": "0",
                    "validBefore": "2000000000",
                    "salt": "0x" + "02" * 32,
                    "signature": SIGNATURE,
                }
            },
        },
        "amount": "77",
    }


def paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to every field of a document."""
    if not isinstance(value, dict):
        return []
    here = [(*at, name) for name in value]
    return here + [path for name in value for path in paths(value[name], (*at, name))]


def changed(payload: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The payload with another value there."""
    document: dict[str, Any] = json.loads(json.dumps(payload))
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return document


def without(payload: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The payload without that field."""
    document: dict[str, Any] = changed(payload, path, None)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return document


FIELDS = paths(a_payload())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False)
    | st.text(max_size=80)
    | st.text("0123456789abcdefABCDEFx٣５²", max_size=70),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=6,
)
NASTY: list[Any] = [
    None,
    True,
    False,
    [],
    ["0x" + "aa" * 20],
    {},
    0,
    -1,
    1.0,
    1e300,
    2**128,
    2**256,
    10**400,
    "",
    " 1",
    "1 ",
    "+1",
    "-1",
    "1_000",
    "0x10",
    "1e3",
    "1.0",
    "9" * 39,
    "9" * 5000,
    "٣",
    "１",
    "1000\n",
    "\x00",
    "\ud800",
    "0X" + "aa" * 20,
    "0x" + "aa" * 20 + "\n",
    "0x" + "zz" * 32,
    "0x" + "a" * 63,
    "0x" + "aa" * 9000,
]


def reads(payload: dict[str, Any]) -> ours.ChannelPayment | None:
    """What is read of a payload; ``None`` if it is refused in the right way."""
    try:
        return read_channel_payment(payload)
    except (PaymentMalformed, PaymentRefused) as error:
        assert len(str(error)) < 200
        return None


def as_read(payment: ours.ChannelPayment) -> None:
    """Whatever is read is in range, in lower case, and is read the same again."""
    assert 0 <= payment.voucher.ceiling <= MAX_AMOUNT
    assert 0 <= payment.config.withdraw_delay < 2**40
    if payment.deposit is not None:
        assert 0 <= payment.deposit.amount <= MAX_AMOUNT
    if payment.refund is not None:
        assert 0 < payment.refund <= MAX_AMOUNT
    shown = json.dumps(payment.wire())
    assert shown == json.dumps(json.loads(shown))
    assert shown.replace("channelConfig", "").isascii()
    assert read_channel_payment(payment.wire()) == payment
    channel_id_of(payment.config, 84532)
    signed_by_key(payment.voucher, payment.config.voucher_key or "", 84532)
    requirements = {
        "payTo": CONFIG.receiver,
        "asset": CONFIG.token,
        "extra": {"receiverAuthorizer": CONFIG.receiver_authorizer, "withdrawDelay": 900},
    }
    config_refusal(payment, requirements, 84532)


@given(
    kind=st.sampled_from(["deposit", "voucher", "refund"]),
    field=st.sampled_from(FIELDS),
    value=JSON,
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_field_holds_a_payload_is_read_or_refused(
    kind: str, field: tuple[str, ...], value: Any
) -> None:
    payment = reads(changed(a_payload(kind), field, value))

    if payment is not None:
        as_read(payment)


@given(payload=st.dictionaries(st.sampled_from(["type", "channelConfig", "voucher", "x"]), JSON))
@settings(max_examples=150, deadline=None)
def test_whatever_a_payload_is_it_is_read_or_refused(payload: dict[str, Any]) -> None:
    assert reads(payload) is None


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_no_nasty_value_gets_through(field: tuple[str, ...]) -> None:
    for value in NASTY:
        payment = reads(
            changed(a_payload("refund" if field == ("amount",) else "deposit"), field, value)
        )
        if payment is None:
            continue
        as_read(payment)
        name = field[-1]
        if name == "signature":
            assert isinstance(value, str) and len(value) <= 2 + 2 * 4096, value
        elif name in ("payer", "salt", "channelId"):
            raise AssertionError(f"{name} took {value!r}")
        elif field == ("amount",):
            assert value is None, value
        elif name in ("maxClaimableAmount", "amount", "withdrawDelay", "validAfter", "validBefore"):
            assert type(value) is int or (isinstance(value, str) and value.isascii()), value
            assert int(value) >= 0


@pytest.mark.parametrize("kind", ["deposit", "voucher", "refund"])
def test_a_field_that_is_missing_is_told(kind: str) -> None:
    optional = (
        {("amount",)}
        if kind == "refund"
        else {("amount",), *[f for f in FIELDS if f[0] == "deposit"]}
    )
    if kind == "deposit":
        optional = {("amount",)}
    for field in FIELDS:
        if kind == "refund" and field[0] == "deposit":
            continue
        payment = reads(without(a_payload(kind), field))
        assert (payment is not None) == (field in optional), field


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("type",), "claim", ours.PAYLOAD_TYPE),
        (("type",), "Voucher", ours.PAYLOAD_TYPE),
        (("type",), None, ours.PAYLOAD_TYPE),
        (("type",), ["voucher"], ours.PAYLOAD_TYPE),
        (("voucher", "channelId"), "0x12", ours.CHANNEL_ID_INVALID),
        (("voucher", "channelId"), 5, ours.CHANNEL_ID_INVALID),
        (("voucher", "channelId"), ID[2:], ours.CHANNEL_ID_INVALID),
        (("deposit", "authorization"), {}, ours.DEPOSIT_METHOD),
        (("deposit", "authorization"), {"permit2Authorization": {}}, ours.DEPOSIT_METHOD),
        (("deposit", "authorization", "erc3009Authorization"), [], ours.DEPOSIT_METHOD),
    ],
)
def test_what_the_scheme_has_a_code_for_is_refused_with_it(
    path: tuple[str, ...], value: Any, code: str
) -> None:
    with pytest.raises(PaymentRefused) as refused:
        read_channel_payment(changed(a_payload(), path, value))

    assert refused.value.code == code


@pytest.mark.parametrize("value", ["0", 0, "-1", "x", "1.5", True, [], "9" * 60, "٣"])
def test_a_refund_of_no_amount_has_the_schemes_code(value: Any) -> None:
    with pytest.raises(PaymentRefused) as refused:
        read_channel_payment(changed(a_payload("refund"), ("amount",), value))

    assert refused.value.code == ours.REFUND_AMOUNT


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_letters_of_either_case_are_the_same_payment(data: st.DataObject) -> None:
    def mixed(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {k: mixed(v, k) for k, v in value.items()}
        if not isinstance(value, str) or not value.startswith("0x"):
            return value
        up = data.draw(st.integers(0, 2**16 - 1))
        return "0x" + "".join(
            c.upper() if up >> (i % 16) & 1 else c for i, c in enumerate(value[2:])
        )

    payload = a_payload()

    assert read_channel_payment(mixed(payload)) == read_channel_payment(payload)
    assert set(mixed(payload)["voucher"]["channelId"][2:]) <= set(string.hexdigits)


def test_numbers_may_be_texts_or_numbers() -> None:
    plain = changed(a_payload(), ("voucher", "maxClaimableAmount"), 1000)
    text = changed(a_payload(), ("channelConfig", "withdrawDelay"), "900")

    assert read_channel_payment(plain) == read_channel_payment(text)
    assert read_channel_payment(plain) == read_channel_payment(a_payload())


def test_checksummed_addresses_in_the_offer_are_the_same() -> None:
    payment = read_channel_payment(a_payload())
    requirements = {
        "payTo": to_checksum_address(CONFIG.receiver),
        "asset": to_checksum_address(CONFIG.token),
        "extra": {
            "receiverAuthorizer": to_checksum_address(CONFIG.receiver_authorizer),
            "withdrawDelay": 900,
        },
    }

    assert config_refusal(payment, requirements, 84532) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"receiver": "0x" + "01" * 20}, ours.RECEIVER_MISMATCH),
        ({"receiver_authorizer": "0x" + "01" * 20}, ours.AUTHORIZER_MISMATCH),
        ({"token": "0x" + "01" * 20}, ours.TOKEN_MISMATCH),
        ({"withdraw_delay": 901}, ours.DELAY_MISMATCH),
    ],
)
def test_a_channel_of_other_terms_pays_nothing(change: dict[str, Any], code: str) -> None:
    config = replace(CONFIG, **change)
    payment = read_channel_payment(a_payload("voucher"))
    moved = replace(payment, config=config)
    bound = replace(moved, voucher=replace(moved.voucher, channel_id=channel_id_of(config, 84532)))
    requirements = {
        "payTo": CONFIG.receiver,
        "asset": CONFIG.token,
        "extra": {"receiverAuthorizer": CONFIG.receiver_authorizer, "withdrawDelay": 900},
    }

    assert config_refusal(moved, requirements, 84532) == ours.CHANNEL_ID_MISMATCH
    assert config_refusal(bound, requirements, 84532) == code


@pytest.mark.parametrize("delay", [ours.LEAST_DELAY - 1, ours.LONGEST_DELAY + 1])
def test_a_delay_out_of_the_contracts_range_is_refused(delay: int) -> None:
    config = replace(CONFIG, withdraw_delay=delay)
    payment = read_channel_payment(a_payload("voucher"))
    voucher = replace(payment.voucher, channel_id=channel_id_of(config, 84532))
    requirements = {
        "payTo": CONFIG.receiver,
        "asset": CONFIG.token,
        "extra": {"receiverAuthorizer": CONFIG.receiver_authorizer, "withdrawDelay": delay},
    }

    found = config_refusal(replace(payment, config=config, voucher=voucher), requirements, 84532)

    assert found == ours.DELAY_OUT_OF_RANGE


@pytest.mark.parametrize("length", [1, 64, 66, 4096])
def test_a_signature_of_another_length_is_nobodys(length: int) -> None:
    voucher = Voucher(ID, 1000, "0x" + "01" * length)

    assert not signed_by_key(voucher, CONFIG.payer, 84532)


def test_a_high_s_and_odd_recovery_bytes_are_nobodys() -> None:
    signed = sign_voucher(SIGNER, ID, 1000, "eip155:84532").signature
    raw = bytes.fromhex(signed.removeprefix("0x"))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
    forged = raw[:32] + high + bytes([55 - raw[64]])

    assert signed_by_key(Voucher(ID, 1000, "0x" + raw.hex()), CONFIG.payer, 84532)
    parity = raw[:64] + bytes([raw[64] - 27])  # the contract would not take it
    ends = [raw[:64] + last for last in (b"\x1d", b"\xff")]
    for bad in (forged, parity, *ends, b"\0" * 65, b"\xff" * 65):
        assert not signed_by_key(Voucher(ID, 1000, "0x" + bad.hex()), CONFIG.payer, 84532)

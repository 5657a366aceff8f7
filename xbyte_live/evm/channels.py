"""Pure: the typed data of ``batch-settlement``: channels, vouchers, claim batches, refunds.

Source: x402 ``scheme_batch_settlement_evm``; the names on the wire are the specification's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from xbyte_live.errors import PaymentMalformed, PaymentRefused
from xbyte_live.evm.eip712 import (
    address_word,
    contract_separator,
    keccak,
    recover,
    typed_digest,
    word,
)
from xbyte_live.money import MAX_AMOUNT

CONTRACT = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
COLLECTOR = "0x4020806089470a89826cB9fB1f4059150b550004"  # pulls ERC-3009 deposits
LEAST_DELAY, LONGEST_DELAY = 900, 2_592_000  # seconds a withdrawal may take
ZERO_ADDRESS = "0x" + "0" * 40
NO_SIGNATURE = "0x"

_PREFIX = "invalid_batch_settlement_evm_"
PAYLOAD_TYPE = _PREFIX + "payload_type"
CHANNEL_NOT_FOUND = _PREFIX + "channel_not_found"
CHANNEL_ID_INVALID = _PREFIX + "channel_id_invalid"
CHANNEL_ID_MISMATCH = _PREFIX + "channel_id_mismatch"
RECEIVER_MISMATCH = _PREFIX + "receiver_mismatch"
AUTHORIZER_MISMATCH = _PREFIX + "receiver_authorizer_mismatch"
TOKEN_MISMATCH = _PREFIX + "token_mismatch"
DELAY_MISMATCH = _PREFIX + "withdraw_delay_mismatch"
DELAY_OUT_OF_RANGE = _PREFIX + "withdraw_delay_out_of_range"
VOUCHER_SIGNATURE = _PREFIX + "voucher_signature"
EXCEEDS_BALANCE = _PREFIX + "cumulative_exceeds_balance"
BELOW_CLAIMED = _PREFIX + "cumulative_below_claimed"
AMOUNT_MISMATCH = _PREFIX + "cumulative_amount_mismatch"
DEPOSIT_BELOW_MINIMUM = _PREFIX + "deposit_below_min_deposit"
DEPOSIT_FAILED = _PREFIX + "deposit_transaction_failed"
DEPOSIT_EXPIRED = _PREFIX + "payload_authorization_valid_before"
DEPOSIT_EARLY = _PREFIX + "payload_authorization_valid_after"
DEPOSIT_METHOD = _PREFIX + "erc3009_authorization_required"
REFUND_AMOUNT = _PREFIX + "refund_amount_invalid"
REFUND_NOTHING = _PREFIX + "refund_no_balance"
BUSY = _PREFIX + "channel_busy"

_CONFIG_TYPE = keccak(
    b"ChannelConfig(address payer,address payerAuthorizer,address receiver,"
    b"address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
)
_VOUCHER_TYPE = keccak(b"Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
_REFUND_TYPE = keccak(b"Refund(bytes32 channelId,uint256 nonce,uint128 amount)")
_ENTRY = b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
_ENTRY_TYPE = keccak(_ENTRY)
_BATCH_TYPE = keccak(b"ClaimBatch(ClaimEntry[] claims)" + _ENTRY)

_CONFIG_FIELDS = (
    "payer",
    "payerAuthorizer",
    "receiver",
    "receiverAuthorizer",
    "token",
    "withdrawDelay",
    "salt",
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_WORD = re.compile(r"0x[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,39}")
_SIGNATURE = re.compile(r"0x(?:[0-9a-fA-F]{2}){1,4096}")

Kind = Literal["deposit", "voucher", "refund"]


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """The terms of a channel, which never change.

    Addresses and ``salt`` are lower-case hex, the delay is in seconds.
    """

    payer: str
    payer_authorizer: str
    receiver: str
    receiver_authorizer: str
    token: str
    withdraw_delay: int
    salt: str

    @property
    def voucher_key(self) -> str | None:
        """The address whose key signs vouchers, or ``None`` where a contract judges (EIP-1271)."""
        return None if self.payer_authorizer == ZERO_ADDRESS else self.payer_authorizer

    def wire(self) -> dict[str, Any]:
        """Its form on the wire (``channelConfig``)."""
        return {
            "payer": self.payer,
            "payerAuthorizer": self.payer_authorizer,
            "receiver": self.receiver,
            "receiverAuthorizer": self.receiver_authorizer,
            "token": self.token,
            "withdrawDelay": self.withdraw_delay,
            "salt": self.salt,
        }


@dataclass(frozen=True, slots=True)
class Voucher:
    """A signed cumulative ceiling (``maxClaimableAmount``) of one channel."""

    channel_id: str
    ceiling: int
    signature: str

    @property
    def is_signed(self) -> bool:
        """Whether there is a signature: a channel begins with a ceiling that nobody signed."""
        return self.signature != NO_SIGNATURE

    def wire(self) -> dict[str, str]:
        """Its form on the wire (``voucher``)."""
        return {
            "channelId": self.channel_id,
            "maxClaimableAmount": str(self.ceiling),
            "signature": self.signature,
        }


@dataclass(frozen=True, slots=True)
class Deposit:
    """An ERC-3009 order to move ``amount`` from the payer into the channel."""

    amount: int
    valid_after: int
    valid_before: int
    salt: str
    signature: str

    def wire(self) -> dict[str, Any]:
        """Its form on the wire (``deposit``)."""
        return {
            "amount": str(self.amount),
            "authorization": {
                "erc3009Authorization": {
                    "validAfter": str(self.valid_after),
                    "validBefore": str(self.valid_before),
                    "salt": self.salt,
                    "signature": self.signature,
                }
            },
        }


@dataclass(frozen=True, slots=True)
class ChannelPayment:
    """A ``batch-settlement`` payload; ``refund`` is what a refund asks for, ``None`` being all."""

    kind: Kind
    config: ChannelConfig
    voucher: Voucher
    deposit: Deposit | None = None
    refund: int | None = None

    def wire(self) -> dict[str, Any]:
        """The payload rebuilt from the fields that were read, and nothing else."""
        document: dict[str, Any] = {
            "type": self.kind,
            "channelConfig": self.config.wire(),
            "voucher": self.voucher.wire(),
        }
        if self.deposit is not None:
            document["deposit"] = self.deposit.wire()
        if self.refund is not None:
            document["amount"] = str(self.refund)
        return document


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of a claim: the highest voucher of a channel, and the total that is claimed of it."""

    config: ChannelConfig
    voucher: Voucher
    total: int

    def wire(self) -> dict[str, Any]:
        """Its form on the wire (``claims[]``)."""
        return {
            "voucher": {
                "channel": self.config.wire(),
                "maxClaimableAmount": str(self.voucher.ceiling),
            },
            "signature": self.voucher.signature,
            "totalClaimed": str(self.total),
        }


def read_channel_payment(payload: Mapping[str, Any]) -> ChannelPayment:
    """Read a ``batch-settlement`` payload.

    Raises ``PaymentRefused`` for a type that does not exist, ``PaymentMalformed`` naming the
    field that is not in its form.
    """
    kind = payload.get("type")
    if kind not in ("deposit", "voucher", "refund"):
        raise PaymentRefused(PAYLOAD_TYPE)
    fields = _object(payload, "voucher")
    return ChannelPayment(
        kind=kind,
        config=read_config(_object(payload, "channelConfig")),
        voucher=Voucher(
            channel_id=_channel_id(fields),
            ceiling=_number(fields, "maxClaimableAmount", MAX_AMOUNT),
            signature=_text(fields, "signature", _SIGNATURE).lower(),
        ),
        deposit=_deposit(_object(payload, "deposit")) if kind == "deposit" else None,
        refund=_refund(payload) if kind == "refund" else None,
    )


@lru_cache(maxsize=4096)
def channel_id_of(config: ChannelConfig, chain_id: int) -> str:
    """The id of a channel: the EIP-712 digest of its configuration under the contract's domain."""
    struct = keccak(
        _CONFIG_TYPE
        + address_word(config.payer)
        + address_word(config.payer_authorizer)
        + address_word(config.receiver)
        + address_word(config.receiver_authorizer)
        + address_word(config.token)
        + word(config.withdraw_delay)
        + bytes.fromhex(config.salt[2:])
    )
    return "0x" + typed_digest(domain(chain_id), struct).hex()


@lru_cache(maxsize=64)
def domain(chain_id: int) -> bytes:
    """The EIP-712 domain separator of the contract on a chain."""
    return contract_separator("x402 Batch Settlement", "1", chain_id, CONTRACT)


def voucher_digest(channel_id: str, ceiling: int, chain_id: int) -> bytes:
    """The digest a payer signs for a voucher."""
    struct = keccak(_VOUCHER_TYPE + bytes.fromhex(channel_id[2:]) + word(ceiling))
    return typed_digest(domain(chain_id), struct)


def refund_digest(channel_id: str, nonce: int, amount: int, chain_id: int) -> bytes:
    """The digest the receiver's authorizer signs for a refund."""
    struct = keccak(_REFUND_TYPE + bytes.fromhex(channel_id[2:]) + word(nonce) + word(amount))
    return typed_digest(domain(chain_id), struct)


def claim_digest(claims: Iterable[Claim], chain_id: int) -> bytes:
    """The digest the receiver's authorizer signs for a batch of claims."""
    entries = b"".join(
        keccak(
            _ENTRY_TYPE
            + bytes.fromhex(claim.voucher.channel_id[2:])
            + word(claim.voucher.ceiling)
            + word(claim.total)
        )
        for claim in claims
    )
    return typed_digest(domain(chain_id), keccak(_BATCH_TYPE + keccak(entries)))


def deposit_nonce(channel_id: str, salt: str) -> str:
    """The EIP-3009 nonce of a deposit: ``keccak(channelId ‖ salt)``."""
    return "0x" + keccak(bytes.fromhex(channel_id[2:]) + word(int(salt, 16))).hex()


def signed_by_key(voucher: Voucher, key: str, chain_id: int) -> bool:
    """Whether the key of that lower-case address signed a voucher, so that it can be claimed.

    The contract takes 27 and 28 alone as the last byte, where others take 0 and 1 as well.
    """
    signature = bytes.fromhex(voucher.signature[2:])
    if signature[-1:] not in (b"\x1b", b"\x1c"):
        return False
    digest = voucher_digest(voucher.channel_id, voucher.ceiling, chain_id)
    return recover(digest, signature) == key


def config_refusal(
    payment: ChannelPayment, requirements: Mapping[str, Any], chain_id: int
) -> str | None:
    """The error code that keeps a channel from paying these requirements, if any does."""
    config, extra = payment.config, requirements["extra"]
    if channel_id_of(config, chain_id) != payment.voucher.channel_id:
        return CHANNEL_ID_MISMATCH
    if config.receiver != requirements["payTo"].lower():
        return RECEIVER_MISMATCH
    if config.receiver_authorizer != extra["receiverAuthorizer"].lower():
        return AUTHORIZER_MISMATCH
    if config.token != requirements["asset"].lower():
        return TOKEN_MISMATCH
    if config.withdraw_delay != extra["withdrawDelay"]:
        return DELAY_MISMATCH
    if not LEAST_DELAY <= config.withdraw_delay <= LONGEST_DELAY:
        return DELAY_OUT_OF_RANGE
    return None


def read_config(fields: Mapping[str, Any]) -> ChannelConfig:
    """Read a ``channelConfig``; raises ``PaymentMalformed``."""
    try:
        return _config(*(fields.get(name) for name in _CONFIG_FIELDS))
    except TypeError:
        raise PaymentMalformed("the payment's channelConfig holds what is no text") from None


@lru_cache(maxsize=4096)
def _config(*values: Any) -> ChannelConfig:
    """A configuration from its values on the wire; those of channels in use are not read twice."""
    fields = dict(zip(_CONFIG_FIELDS, values, strict=True))
    return ChannelConfig(
        payer=_text(fields, "payer", _ADDRESS).lower(),
        payer_authorizer=_text(fields, "payerAuthorizer", _ADDRESS).lower(),
        receiver=_text(fields, "receiver", _ADDRESS).lower(),
        receiver_authorizer=_text(fields, "receiverAuthorizer", _ADDRESS).lower(),
        token=_text(fields, "token", _ADDRESS).lower(),
        withdraw_delay=_number(fields, "withdrawDelay", 2**40 - 1),
        salt=_text(fields, "salt", _WORD).lower(),
    )


def _deposit(fields: Mapping[str, Any]) -> Deposit:
    authorization = _object(fields, "authorization").get("erc3009Authorization")
    if not isinstance(authorization, dict):
        raise PaymentRefused(DEPOSIT_METHOD)
    return Deposit(
        amount=_number(fields, "amount", MAX_AMOUNT),
        valid_after=_number(authorization, "validAfter", 2**128),
        valid_before=_number(authorization, "validBefore", 2**128),
        salt=_text(authorization, "salt", _WORD).lower(),
        signature=_text(authorization, "signature", _SIGNATURE).lower(),
    )


def _refund(payload: Mapping[str, Any]) -> int | None:
    if payload.get("amount") is None:
        return None
    try:
        return _number(payload, "amount", MAX_AMOUNT) or _refuse(REFUND_AMOUNT)
    except PaymentMalformed:
        return _refuse(REFUND_AMOUNT)


def _refuse(code: str) -> int:
    raise PaymentRefused(code)


def _channel_id(fields: Mapping[str, Any]) -> str:
    value = fields.get("channelId")
    if not isinstance(value, str) or _WORD.fullmatch(value) is None:
        raise PaymentRefused(CHANNEL_ID_INVALID)
    return value.lower()


def _object(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise PaymentMalformed(f"the payment has no {name}")
    return value


def _text(fields: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise PaymentMalformed(f"the payment's {name} is not in the form the scheme gives it")
    return value


def _number(fields: Mapping[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise PaymentMalformed(f"the payment's {name} is no whole number up to {most}")
    return value

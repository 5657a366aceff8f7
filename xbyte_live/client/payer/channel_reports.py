"""Pure: a server's offers, receipts and corrections of a payment channel, read without trust."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from xbyte_live.client.payer.terms import Offers, Requirement, read_header, read_requirement
from xbyte_live.errors import TermsRefused
from xbyte_live.evm.channels import LEAST_DELAY, LONGEST_DELAY
from xbyte_live.money import MAX_AMOUNT, Asset

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_WORD = re.compile(r"0x[0-9a-fA-F]{64}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}")


@dataclass(frozen=True, slots=True)
class ChannelOffer:
    """What a server asks of a channel; ``withdraw_delay`` in seconds.

    ``least_deposit`` is what it finds worth its gas, 0 if it does not say.
    """

    receiver_authorizer: str
    withdraw_delay: int
    least_deposit: int


@dataclass(frozen=True, slots=True)
class ChannelRequirement(Requirement):
    """One way to pay through a channel: ``channel`` is what the server asks of it."""

    channel: ChannelOffer


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """``channelState``: how a channel stands by its server; money in atomic units."""

    channel_id: str
    balance: int
    claimed: int
    charged: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What was charged for a delivery, and how the channel stands since."""

    charged: int
    report: ChannelReport | None


@dataclass(frozen=True, slots=True)
class ChannelCorrection:
    """A corrective 402: what the server has charged, and the voucher it proves that with."""

    report: ChannelReport
    signed: int
    signature: str


@dataclass(frozen=True, slots=True)
class Refund:
    """The answer to a refund: what went back, in which transaction."""

    amount: int
    transaction: str
    report: ChannelReport | None


def read_channel_requirement(
    terms: Offers, document: dict[str, Any], assets: Iterable[Asset], amount: int | None = None
) -> ChannelRequirement:
    """An offer of ``batch-settlement``, believed as ``read_requirement`` does; so raises it."""
    if terms.version != 2:
        raise TermsRefused("the server offers channels in the form of x402 version 1")
    found = read_requirement(terms, document, assets, amount)
    values = {name.name: getattr(found, name.name) for name in fields(found)}
    return ChannelRequirement(**values, channel=_channel(document.get("extra")))


def read_taken(headers: Mapping[str, str]) -> Taken | None:
    """What ``PAYMENT-RESPONSE`` says of a charge to a channel, or ``None`` if it does not."""
    document = _response(headers)
    extra = document.get("extra") if document else None
    if not isinstance(extra, dict):
        return None
    charged = _number(extra.get("chargedAmount"))
    return None if charged is None else Taken(charged, _report(extra.get("channelState")))


def read_refund(headers: Mapping[str, str]) -> Refund | None:
    """What ``PAYMENT-RESPONSE`` says of a refund, or ``None`` if it was none."""
    document = _response(headers)
    if not document:
        return None
    transaction, amount = document.get("transaction"), _number(document.get("amount"))
    if not isinstance(transaction, str) or not _WORD.fullmatch(transaction) or amount is None:
        return None
    extra = document.get("extra")
    return Refund(
        amount, transaction, _report(extra.get("channelState")) if isinstance(extra, dict) else None
    )


def read_correction(terms: Offers, channel_id: str) -> ChannelCorrection | None:
    """What a 402 says of that channel with a proof, or ``None`` if it does not."""
    for offer in terms.accepts:
        extra = offer.get("extra")
        if not isinstance(extra, dict):
            continue
        report, voucher = _report(extra.get("channelState")), extra.get("voucherState")
        if report is None or report.channel_id != channel_id or report.charged is None:
            continue
        if not isinstance(voucher, dict):
            continue
        signed, signature = _number(voucher.get("signedMaxClaimable")), voucher.get("signature")
        if signed is not None and isinstance(signature, str) and _SIGNATURE.fullmatch(signature):
            return ChannelCorrection(report, signed, signature)
    return None


def _channel(extra: object) -> ChannelOffer:
    if not isinstance(extra, dict):
        raise TermsRefused("the server does not say how its channels are")
    authorizer, delay = extra.get("receiverAuthorizer"), extra.get("withdrawDelay")
    if not isinstance(authorizer, str) or _ADDRESS.fullmatch(authorizer) is None:
        raise TermsRefused("the server names nobody who authorizes refunds of its channels")
    if int(authorizer, 16) == 0:
        raise TermsRefused("the server names nobody who authorizes refunds of its channels")
    if not isinstance(delay, int) or isinstance(delay, bool):
        raise TermsRefused("the server does not say how long a withdrawal takes")
    if not LEAST_DELAY <= delay <= LONGEST_DELAY:
        raise TermsRefused("the server wants withdrawals to take shorter or longer than may be")
    least = extra.get("minDeposit")
    known = isinstance(least, str) and _AMOUNT.fullmatch(least) is not None
    return ChannelOffer(authorizer.lower(), delay, min(int(str(least)), MAX_AMOUNT) if known else 0)


def _response(headers: Mapping[str, str]) -> dict[str, Any] | None:
    value = headers.get("PAYMENT-RESPONSE")
    if not value:
        return None
    try:
        document = read_header(value, "PAYMENT-RESPONSE header")
    except TermsRefused:
        return None
    return document if document.get("success") is True else None


def _report(value: object) -> ChannelReport | None:
    if not isinstance(value, dict):
        return None
    channel_id = value.get("channelId")
    balance, claimed = _number(value.get("balance")), _number(value.get("totalClaimed"))
    if not isinstance(channel_id, str) or not _WORD.fullmatch(channel_id):
        return None
    if balance is None or claimed is None:
        return None
    return ChannelReport(
        channel_id.lower(), balance, claimed, _number(value.get("chargedCumulativeAmount"))
    )


def _number(value: object) -> int | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_AMOUNT:
        return None
    return value

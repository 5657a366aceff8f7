"""Pure: the state of a channel after a refused voucher, as far as its server proves it.

Source: x402 ``scheme_batch_settlement_evm``, "Recovery After State Loss".
"""

from dataclasses import dataclass, replace

from xbyte_live.client.payer.channel import (
    MOST_GONE,
    ChannelOnChain,
    Open,
    PayerChannel,
    drained,
    landed,
    refused,
    synced,
    taken_as_landed,
)
from xbyte_live.client.payer.channel_reports import ChannelCorrection
from xbyte_live.client.payer.signing import Verdict
from xbyte_live.errors import ChannelDistrusted
from xbyte_live.evm.channels import (
    AMOUNT_MISMATCH,
    BELOW_CLAIMED,
    CHANNEL_NOT_FOUND,
    EXCEEDS_BALANCE,
    Voucher,
    signed_by_key,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 402 to a voucher.

    ``presented_before`` when it was handed over before without a decision. ``key`` is the
    address that signs vouchers.
    """

    code: str
    correction: ChannelCorrection | None
    identity: str
    presented_before: bool
    key: str
    chain_id: int


def after(
    channel: PayerChannel, refusal: Refusal, found: ChannelOnChain | None, *, now: float
) -> tuple[PayerChannel, Verdict]:
    """The channel after a refusal, and what became of the voucher.

    ``found`` is what the chain says, if it was asked. Raises ``ChannelDistrusted`` when the
    server claims what it cannot have earned.
    """
    if refusal.code in (AMOUNT_MISMATCH, BELOW_CLAIMED):
        if refusal.correction is not None:
            return _corrected(channel, refusal, refusal.correction, found)
        if found is not None:
            at = synced(_without_open(channel), found, now=now)
            return replace(at, charged=found.claimed), "again"
        return refused(channel, refusal.identity), "refused"
    if refusal.code in (EXCEEDS_BALANCE, CHANNEL_NOT_FOUND):
        return _drained(refused(channel, refusal.identity), found, now=now), "again"
    voucher = next((v for v in channel.open if v.identity == refusal.identity), None)
    if found is not None and found.balance > channel.balance:  # a deposit came in after all
        return synced(refused(channel, refusal.identity), found, now=now), "again"
    if found is None and voucher is not None and voucher.deposit and channel.shown > 1:
        return taken_as_landed(refused(channel, refusal.identity)), "again"
    if refusal.presented_before:
        return channel, "refused"
    return refused(channel, refusal.identity), "refused"


def _corrected(
    channel: PayerChannel, refusal: Refusal, said: ChannelCorrection, found: ChannelOnChain | None
) -> tuple[PayerChannel, Verdict]:
    """Adopt what the server has charged, once its proof is found to be our own signature."""
    charged = said.report.charged
    assert charged is not None
    proof = Voucher(channel.channel_id, said.signed, said.signature.lower())
    if not signed_by_key(proof, refusal.key, refusal.chain_id):
        if not charged and not said.signed and found is None and not channel.known:
            return refused(channel, refusal.identity), "refused"
        raise ChannelDistrusted("the server proves its charges with a voucher that was not signed")
    if charged > said.signed:
        raise ChannelDistrusted(
            f"the server says it has charged {charged} in all, and was given no more than "
            f"{said.signed}"
        )
    if found is not None and charged < found.claimed:
        raise ChannelDistrusted("the server claimed more on chain than it says it has charged")
    voucher = next((v for v in channel.open if v.identity == refusal.identity), None)
    if not _explained(channel, voucher, refusal, charged, said.signed > channel.signed):
        raise ChannelDistrusted(
            f"the server says it has charged {charged} in all, and it delivered {channel.charged}"
        )
    moved = charged > channel.charged or not channel.known
    maybe = [v for v in channel.open if moved and v.ceiling == said.signed]
    mine = voucher in maybe and refusal.presented_before
    gone = [v for v in channel.open if v not in maybe or (v is voucher and not mine)]
    brought = channel.deposit.amount if channel.deposit else 0
    with_it = any(v.deposit for v in maybe if v is not voucher or mine)
    if with_it or (channel.known and said.report.balance >= channel.balance + brought):
        channel = landed(channel, brought)
    balance = channel.balance if channel.known else said.report.balance
    if found is not None:
        balance = found.balance
    adopted = replace(
        channel,
        charged=charged,
        signed=max(channel.signed, said.signed),
        balance=balance,
        known=True,
        open=(),
        gone=(*channel.gone, *(v.identity for v in gone))[-MOST_GONE:],
    )
    return adopted, "charged" if mine else "again"


def _explained(
    channel: PayerChannel, voucher: Open | None, refusal: Refusal, charged: int, newer: bool
) -> bool:
    """Whether the server can have earned what it says it charged, as far as we know."""
    if not channel.known or charged <= channel.charged:
        return True
    if newer:
        return True  # signed by our key elsewhere: another program, or a copy of the wallet
    others = [v for v in channel.open if v is not voucher]
    if refusal.presented_before and voucher is not None:
        others.append(voucher)
    return any(charged <= v.ceiling for v in others)


def _drained(channel: PayerChannel, found: ChannelOnChain | None, *, now: float) -> PayerChannel:
    """The server says that there is not enough in the channel."""
    if found is not None:
        return synced(channel, found, now=now)
    return drained(channel, now)


def _without_open(channel: PayerChannel) -> PayerChannel:
    gone = (*channel.gone, *(voucher.identity for voucher in channel.open))
    return replace(channel, open=(), gone=gone[-MOST_GONE:])

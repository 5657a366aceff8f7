"""Part: the rules of one channel (money rule 6), held against its row and the chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xbyte_live.evm.channels import signed_by_key
from xbyte_live.payments.audit.findings import Findings
from xbyte_live.payments.ledger.channel import Channel, OnChain


@dataclass(frozen=True, slots=True)
class Trail:
    """The deliveries of a channel in their order: their sum, and where they do not join.

    ``first`` is where the first begins, ``last`` where the last ends (in ``epoch``); ``gaps``
    and ``backs`` sum the steps forward and back between neighbours, ``overlaps`` those back
    within one epoch.
    """

    count: int = 0
    amount: int = 0
    first: int = 0
    last: int = 0
    epoch: int = 0
    gaps: int = 0
    backs: int = 0
    overlaps: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """A channel with the sums of its rows elsewhere, all of one snapshot.

    ``returned`` by its sessions, ``held`` by the open ones, ``reserved`` by open refunds.
    """

    channel: Channel
    trail: Trail
    returned: int
    held: int
    reserved: int


class Change(NamedTuple):
    """What one event did to a channel on chain."""

    balance: int
    claimed: int
    nonce: int
    withdrawal: bool = False


def check_books(books: Books, found: Findings) -> None:
    """Everything that the database alone can show of a channel."""
    channel, trail = books.channel, books.trail
    about = f"channel {channel.channel_id}"
    total = channel.opening + channel.archived + trail.amount - books.returned
    if channel.charged != total:
        found.add(
            "channel.sum", about, total, channel.charged,
            "what it was charged is not what its deliveries add up to",
        )  # fmt: skip
    if channel.charged > channel.signed:
        found.add(
            "channel.ceiling", about, channel.signed, channel.charged,
            "it was charged more than its payer signed for",
        )  # fmt: skip
    if channel.charged > channel.chain.balance:
        found.add(
            "channel.balance", about, channel.chain.balance, channel.charged,
            "it was charged more than it holds, so the rest cannot be claimed",
        )  # fmt: skip
    if channel.chain.claimed > channel.claimable:
        found.add(
            "channel.claimed", about, channel.claimable, channel.chain.claimed,
            "more was claimed of it than was charged and may be kept",
        )  # fmt: skip
    if channel.held != books.held:
        found.add(
            "channel.held", about, books.held, channel.held,
            "what it holds back is not what its open sessions have left",
        )  # fmt: skip
    if channel.reserved != books.reserved:
        found.add(
            "channel.reserved", about, books.reserved, channel.reserved,
            "what it reserves is not what its open refunds ask for",
        )  # fmt: skip
    if not _is_signed(channel):
        found.add(
            "channel.voucher", about, channel.signed, 0,
            "its stored signature is not its payer's for what it says was signed",
        )  # fmt: skip
    _check_trail(books, about, found)


def _check_trail(books: Books, about: str, found: Findings) -> None:
    """The deliveries join without gap or overlap, but for what sessions gave back.

    A ledger that was restored from an old copy may step forward: ``opening`` grew by as much.
    """
    channel, trail = books.channel, books.trail
    if trail.overlaps:
        found.add(
            "deliveries.overlap", about, 0, trail.overlaps,
            "deliveries of it overlap: something was charged twice",
        )  # fmt: skip
    if not trail.count:
        return
    tail = channel.charged - trail.last
    begins = trail.first if not channel.archived else 0
    gaps = trail.gaps + max(0, tail)
    backs = trail.backs + (max(0, -tail) if trail.epoch < channel.epoch else 0)
    if gaps > max(0, channel.opening - begins) or begins > channel.opening:
        found.add(
            "deliveries.gap", about, 0, max(gaps, begins - channel.opening),
            "deliveries are missing between those it has",
        )  # fmt: skip
    if backs > books.returned or (tail < 0 and trail.epoch == channel.epoch):
        found.add(
            "deliveries.returned", about, books.returned, max(backs, -tail),
            "its charges went back by more than sessions returned",
        )  # fmt: skip


def _is_signed(channel: Channel) -> bool:
    """Whether the voucher is the payer's; a smart wallet's can only be judged on chain."""
    voucher, config = channel.voucher, channel.config
    if channel.opening and channel.signed == channel.charged == channel.chain.claimed:
        return True  # restored from an old copy: the chain has claimed all of it already
    if not voucher.is_signed:
        return channel.signed == channel.opening
    if config.voucher_key is None:
        return True
    chain_id = int(channel.network.removeprefix("eip155:"))
    try:
        return signed_by_key(voucher, config.voucher_key, chain_id)
    except ValueError:  # not even hexadecimal
        return False


def check_chain(before: Channel, chain: OnChain, after: Channel, found: Findings) -> bool:
    """A channel against the chain that was read between two looks at its row; whether it holds.

    What was charged before must be there; what is claimed must have been charged by now.
    """
    about, known = f"channel {before.channel_id}", len(found.kept) + found.more
    if before.charged > chain.balance:
        found.add(
            "chain.balance", about, before.charged, chain.balance,
            "the chain holds less for it than it was charged",
        )  # fmt: skip
    if chain.claimed > after.claimable:
        found.add(
            "chain.claimed", about, after.claimable, chain.claimed,
            "the chain shows more claimed of it than was charged and may be kept",
        )  # fmt: skip
    if chain.claimed > after.signed:
        found.add(
            "chain.signed", about, after.signed, chain.claimed,
            "the chain shows more claimed of it than the ledger knows to be signed",
        )  # fmt: skip
    return len(found.kept) + found.more == known


def is_mirrored(recorded: OnChain, chain: OnChain) -> bool:
    """Whether the ledger's picture of a channel is what the chain shows."""
    return (
        recorded.balance,
        recorded.claimed,
        recorded.refund_nonce,
        recorded.withdraw_requested_at,
    ) == (
        chain.balance,
        chain.claimed,
        chain.refund_nonce,
        chain.withdraw_requested_at,
    )


def check_mirror(
    channel: Channel, chain: OnChain, changes: Sequence[Change], found: Findings
) -> None:
    """The ledger's picture may only differ by events since it was taken, which are ``changes``.

    Those are in the order they happened; they may begin a little earlier and end a little later.
    """
    recorded, about = channel.chain, f"channel {channel.channel_id}"
    gap = (
        chain.balance - recorded.balance,
        chain.claimed - recorded.claimed,
        chain.refund_nonce - recorded.refund_nonce,
    )
    moved = recorded.withdraw_requested_at != chain.withdraw_requested_at
    if _explains(changes, gap) and (not moved or any(c.withdrawal for c in changes)):
        return
    for name, expected, seen in (
        ("balance", chain.balance, recorded.balance),
        ("claimed", chain.claimed, recorded.claimed),
        ("refund_nonce", chain.refund_nonce, recorded.refund_nonce),
        ("withdrawal", chain.withdraw_requested_at, recorded.withdraw_requested_at),
    ):
        if expected != seen:
            found.add(
                f"mirror.{name}", about, expected, seen,
                f"the ledger's copy of its {name} is not the chain's, and no event since then "
                "says why",
            )  # fmt: skip


def _explains(changes: Sequence[Change], gap: tuple[int, int, int]) -> bool:
    """Whether some run of neighbouring events adds up to the difference."""
    at = (0, 0, 0)
    seen = {at}
    if gap == at:
        return True
    for change in changes:
        at = (at[0] + change.balance, at[1] + change.claimed, at[2] + change.nonce)
        if (at[0] - gap[0], at[1] - gap[1], at[2] - gap[2]) in seen:
            return True
        seen.add(at)
    return False

"""Pure: the state of one payment channel as its payer knows it, after each response.

Source: x402 ``scheme_batch_settlement_evm``, "Client Verification Rules". All money is in atomic
units; nothing here signs.
"""

from dataclasses import dataclass, replace

from xbyte_live.client.payer.channel_reports import ChannelReport, Taken
from xbyte_live.errors import BudgetExceeded, ChannelDistrusted
from xbyte_live.evm.channels import ChannelConfig, Deposit

MOST_OPEN = 32  # vouchers of unknown outcome that are remembered
MOST_GONE = 32  # of those known never to have been charged
LOW_WATER = 5  # a channel is topped up when less than this part of a deposit is left in it


@dataclass(frozen=True, slots=True)
class Open:
    """A voucher that was handed over and whose outcome is not known; ``deposit`` came with it."""

    identity: str
    ceiling: int
    amount: int
    deposit: int = 0


@dataclass(frozen=True, slots=True)
class ChannelOnChain:
    """The state of a channel in the contract; a withdrawal was requested at ``withdraw_at``."""

    balance: int
    claimed: int
    withdrawing: int = 0
    withdraw_at: int = 0


@dataclass(frozen=True, slots=True)
class PayerChannel:
    """One channel as its payer knows it.

    ``charged`` is what the server was seen to have charged, ``signed`` the highest ceiling ever
    signed, which is what it may claim; ``balance`` what deposits have brought in, less what went
    back. ``open`` are vouchers of unknown outcome, newest last, ``gone`` the identities of those
    that were certainly not charged. ``deposit`` was signed, presented ``shown`` times, and not
    seen to arrive. ``doubtful`` is a deposit that was refused again and is believed to have
    arrived before, ``loose`` are those that came with a paid delivery and that its server does not
    count: both may still be taken until they expire. ``known`` is false until the state of the
    channel was seen. ``lent`` is set once something was paid for of which the server may give back
    a part. ``withdrawn_at`` (Unix seconds) is when a withdrawal that was asked for can be
    finished, ``fault`` why its server is not trusted.
    """

    channel_id: str
    network: str
    config: ChannelConfig
    url: str = ""
    charged: int = 0
    signed: int = 0
    balance: int = 0
    serial: int = 0
    known: bool = False
    open: tuple[Open, ...] = ()
    gone: tuple[str, ...] = ()
    deposit: Deposit | None = None
    shown: int = 0
    doubtful: Deposit | None = None
    loose: tuple[Deposit, ...] = ()
    lent: bool = False
    withdrawn_at: int = 0
    fault: str = ""

    @property
    def locked(self) -> int:
        """What lies in it beyond all that was signed, a deposit under way included."""
        return max(0, self.balance + (self.deposit.amount if self.deposit else 0) - self.signed)

    @property
    def refundable(self) -> int:
        """What the server can give back: all that it did not charge."""
        return max(0, self.balance - self.charged)

    @property
    def may_refund(self) -> bool:
        """Whether there is a reason to ask the server for money."""
        return self.refundable > 0 or not self.known or (self.lent and self.balance > 0)

    @property
    def state(self) -> str:
        """In one word, for people."""
        if self.fault:
            return "distrusted"
        if self.withdrawn_at:
            return "withdrawing"
        return "open" if self.refundable else "empty"

    def orders(self, now: float) -> list[Deposit]:
        """Every deposit that was signed and may still be taken."""
        signed = (self.deposit, self.doubtful, *self.loose)
        return [order for order in signed if order is not None and now < order.valid_before]

    def at_large(self, now: float) -> int:
        """What may still be taken besides ``balance`` and ``deposit``."""
        return sum(order.amount for order in self.loose if now < order.valid_before)

    def ceiling(self, amount: int) -> int:
        """What a voucher for ``amount`` more must be signed up to."""
        return self.charged + amount

    def at_stake(self, amount: int) -> int:
        """How much more than before the server may claim once it has that voucher."""
        return max(0, self.ceiling(amount) - self.signed)

    def is_open(self, identity: str) -> bool:
        """Whether the outcome of that voucher is not known."""
        return any(voucher.identity == identity for voucher in self.open)


def deposit_for(
    channel: PayerChannel, amount: int, *, target: int, most: int, expected: int | None, now: float
) -> int:
    """How much to deposit along with a voucher for ``amount``; 0 is nothing.

    ``target`` is a deposit the server finds worth its gas, ``most`` what the owner's limits
    allow, ``expected`` what will still be bought, if that is known. A deposit that was signed
    and is neither seen to arrive nor expired is not signed again in another size: it is what
    this returns when it is needed. Raises ``BudgetExceeded`` when what is needed is not allowed.
    """
    ceiling = channel.ceiling(amount)
    need = ceiling - channel.balance
    if under_way(channel, now):
        assert channel.deposit is not None
        if need <= 0:
            return 0
        if need <= channel.deposit.amount:
            return channel.deposit.amount
        raise BudgetExceeded("an earlier deposit is still under way; run this again in a while")
    want = max(target, need)
    if need > 0:
        if most < need:
            raise BudgetExceeded(
                "a channel would need a deposit above what the budget and the deposit limit allow"
            )
        return min(want, most)
    left = channel.balance - ceiling
    if left * LOW_WATER >= target or want > most or (expected is not None and expected <= left):
        return 0
    return want


def under_way(channel: PayerChannel, now: float) -> bool:
    """Whether a deposit was signed that may still be taken."""
    return channel.deposit is not None and now < channel.deposit.valid_before


def presented(
    channel: PayerChannel,
    voucher: Open,
    deposit: Deposit | None,
    url: str,
    home: str = "",
    *,
    now: float,
) -> PayerChannel:
    """The channel once a voucher is handed over; to be kept before it is.

    ``url`` is what it pays for; with a ``home`` to ask for a part of it back, that is kept.
    """
    again = deposit is None or deposit == channel.deposit
    return replace(
        channel,
        url=home or url,
        lent=channel.lent or home != "",
        signed=max(channel.signed, voucher.ceiling),
        serial=channel.serial + 1,
        open=(*channel.open, voucher)[-MOST_OPEN:],
        deposit=deposit or channel.deposit,
        loose=tuple(order for order in channel.loose if now < order.valid_before),
        shown=(channel.shown if again else 0) + (deposit is not None),
    )


def confirmed(channel: PayerChannel, identity: str, taken: Taken) -> PayerChannel:
    """The channel after a delivery, by what the server said of its charge.

    Raises ``ChannelDistrusted`` when that is not what was signed for (Client Verification Rules).
    """
    voucher = next(voucher for voucher in channel.open if voucher.identity == identity)
    base = voucher.ceiling - voucher.amount
    report = taken.report
    if taken.charged > voucher.amount:
        raise ChannelDistrusted(
            f"the server says it charged {taken.charged} for what costs {voucher.amount}"
        )
    if report is not None:
        _check(report, channel, base + taken.charged)
    others = [other for other in channel.open if other is not voucher]
    order = channel.deposit if voucher.deposit else None
    channel = landed(channel, voucher.deposit)
    balance = channel.balance if report is None else min(channel.balance, report.balance)
    counted = balance == channel.balance  # what is not went back, or never came in
    return replace(
        channel,
        charged=base + taken.charged,
        balance=balance,
        doubtful=None if counted and report is not None else channel.doubtful,
        loose=channel.loose if counted or order is None else (*channel.loose, order),
        known=True,
        open=(),
        gone=_gone(channel, others),
    )


def landed(channel: PayerChannel, amount: int) -> PayerChannel:
    """The channel after the deposit of ``amount`` came in, if it is under way."""
    if not amount or channel.deposit is None:
        return channel
    return replace(channel, balance=channel.balance + channel.deposit.amount, deposit=None)


def taken_as_landed(channel: PayerChannel) -> PayerChannel:
    """The channel whose deposit was refused again, as if it had come in before."""
    order = channel.deposit
    return channel if order is None else replace(landed(channel, order.amount), doubtful=order)


def drained(channel: PayerChannel, now: float) -> PayerChannel:
    """The channel after its server said that there is not enough in it, and the chain nothing.

    A deposit that was taken to have come in and had not is to be handed over again.
    """
    order = channel.doubtful
    if order is not None and channel.deposit is None and now < order.valid_before:
        channel = replace(channel, deposit=order, shown=max(1, channel.shown))
    balance = min(channel.balance, channel.charged)
    return replace(channel, balance=balance, doubtful=None, known=True)


def refused(channel: PayerChannel, identity: str) -> PayerChannel:
    """The channel after a voucher that was not taken."""
    ended = [voucher for voucher in channel.open if voucher.identity == identity]
    return replace(
        channel,
        open=tuple(voucher for voucher in channel.open if voucher.identity != identity),
        gone=_gone(channel, ended),
    )


def distrusted(channel: PayerChannel, why: str) -> PayerChannel:
    """The channel after its server was caught."""
    return replace(channel, fault=why)


def refunded(channel: PayerChannel, amount: int) -> PayerChannel:
    """The channel after ``amount`` went back to the payer."""
    return replace(channel, balance=max(channel.charged, channel.balance - amount))


def synced(channel: PayerChannel, found: ChannelOnChain, *, now: float) -> PayerChannel:
    """The channel as the chain has it, which is always right about deposits and claims."""
    expired = channel.deposit is not None and now > channel.deposit.valid_before
    arrived = channel.deposit is not None and (
        found.balance >= channel.balance + channel.deposit.amount
    )
    return replace(
        channel,
        balance=found.balance,
        charged=max(channel.charged, found.claimed),
        signed=max(channel.signed, found.claimed),
        deposit=None if expired or arrived else channel.deposit,
        known=True,
        withdrawn_at=found.withdraw_at and found.withdraw_at + channel.config.withdraw_delay,
    )


def _check(report: ChannelReport, channel: PayerChannel, charged: int) -> None:
    if report.channel_id != channel.channel_id:
        raise ChannelDistrusted("the server answered for another channel than it was paid through")
    if report.charged is not None and report.charged != charged:
        raise ChannelDistrusted(
            f"the server says it has charged {report.charged} in all, and it delivered {charged}"
        )
    if report.balance < charged or report.claimed > channel.signed:
        raise ChannelDistrusted("the server says of the channel what cannot be")


def _gone(channel: PayerChannel, ended: list[Open]) -> tuple[str, ...]:
    return (*channel.gone, *(voucher.identity for voucher in ended))[-MOST_GONE:]

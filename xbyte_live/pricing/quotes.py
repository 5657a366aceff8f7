"""Pure: which amounts are good for given bytes of an item, now."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.models import Item, Object, Offer, Segment
from xbyte_live.money import MIB, Price

_USUAL_RATE = 4_000_000  # bits a second, of a stream that has not said its own yet
_MOST_AHEAD = 4096 * MIB  # bytes a deposit is asked for at most


@dataclass(frozen=True, slots=True)
class Quote:
    """What ``size`` bytes cost at ``price``, paid to ``pay_to``."""

    size: int
    price: Price
    pay_to: str


def quotes_for(
    size: int,
    offers: Sequence[Offer],
    *,
    default_pay_to: str,
    now: float,
    quote_ttl: float,
    segment: Segment | None = None,
) -> tuple[Quote, ...]:
    """The quotes that hold at ``now``, the one in force first (money rule 8).

    ``offers`` are newest first. An older offer still holds while some playlist or 402 that
    named it may be younger than ``quote_ttl`` seconds, that is until ``quote_ttl`` after its
    successor came into force. A ``segment`` within an offer's preview is free by it, and one
    that was listed live keeps the offer it was listed at.
    """
    if segment is not None and segment.offer is not None:
        offers, now = (segment.offer,), max(now, segment.offer.since)
    held: list[Quote] = []
    successor_since: float | None = None
    for offer in offers:
        if offer.since > now:
            continue
        if successor_since is not None and successor_since + quote_ttl <= now:
            break
        free = segment is not None and in_preview(segment, offer.preview_us)
        price = Price(0) if free else offer.price
        quote = Quote(size, price, offer.pay_to or default_pay_to)
        if quote not in held:
            held.append(quote)
        successor_since = offer.since
    return tuple(held)


def quotes_at(
    item: Item, size: int, settings: Settings, now: float, segment: Segment | None = None
) -> tuple[Quote, ...]:
    """The quotes for ``size`` bytes of an item that hold at ``now``; never none.

    An item whose first offer another node has just made, by a clock ahead of ours, is sold at
    that offer.
    """
    return quotes_for(
        size,
        item.offers,
        default_pay_to=settings.pay_to,
        now=max(now, item.offers[-1].since),
        quote_ttl=settings.quote_ttl,
        segment=segment,
    )


def deposit_for(item: Item, price: Price, *, seconds: int, floor: int) -> int:
    """Atomic units a channel should be opened with to last so long, at least ``floor``.

    By the rate of the item's best rendition; a file is taken to be wanted whole.
    """
    if isinstance(item, Object):
        size = item.size
    else:
        rates = [rendition.average_bandwidth for rendition in item.renditions]
        size = max(rates, default=_USUAL_RATE) * seconds // 8
    return max(floor, price.amount_for(min(size, _MOST_AHEAD)))


def deposit_at(item: Item, quote: Quote, settings: Settings) -> int:
    """What a channel should be opened with to buy from an item at a quote."""
    seconds = settings.deposit_minutes * 60
    return deposit_for(item, quote.price, seconds=seconds, floor=settings.deposit_units)


def in_force(offers: Sequence[Offer], now: float) -> Offer:
    """The newest offer made by ``now``; the very first one if all are by a clock ahead of ours."""
    return next((offer for offer in offers if offer.since <= now), offers[-1])


def amount_of(segment: Segment, offer: Offer) -> int:
    """Atomic units that a segment costs whole, at the price it was listed at, else ``offer``'s."""
    terms = segment.offer or offer
    if in_preview(segment, terms.preview_us):
        return 0
    return terms.price.amount_for(segment.size)


def in_preview(segment: Segment, preview_us: int) -> bool:
    """Whether a segment is free because it starts within the item's preview."""
    return segment.start_us < preview_us

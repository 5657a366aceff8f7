"""Pure: quotes the amounts that are valid now for given bytes of an item."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.models import Item, Object, Offer, Segment
from xbyte_live.money import MIB, Price

_USUAL_RATE = 4_000_000  # bits a second, of a stream without segments
_MOST_AHEAD = 4096 * MIB  # bytes, at most, that a deposit pays for


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of ``size`` bytes, payable to ``pay_to``."""

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
    """The quotes valid at ``now``, the one in force first (money rule 8).

    ``offers`` are newest first. An older offer stays valid until ``quote_ttl`` seconds after its
    successor came into force, since a playlist or 402 that named it may be that young. A
    ``segment`` within an offer's preview is free, and a live one keeps the offer it was listed at.
    """
    if segment is not None and segment.offer is not None:
        offers, now = (segment.offer,), max(now, segment.offer.since)
    valid: list[Quote] = []
    successor_since: float | None = None
    for offer in offers:
        if offer.since > now:
            continue
        if successor_since is not None and successor_since + quote_ttl <= now:
            break
        free = segment is not None and in_preview(segment, offer.preview_us)
        price = Price(0) if free else offer.price
        quote = Quote(size, price, offer.pay_to or default_pay_to)
        if quote not in valid:
            valid.append(quote)
        successor_since = offer.since
    return tuple(valid)


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
    """The deposit, in atomic units, that pays for ``seconds`` of an item; at least ``floor``.

    It is computed for the best rendition; an object is paid for whole.
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
    """The newest offer made by ``now``; the first one if all were made by a clock ahead of ours."""
    return next((offer for offer in offers if offer.since <= now), offers[-1])


def amount_of(segment: Segment, offer: Offer) -> int:
    """The price of a whole segment in atomic units, as it was listed, else by ``offer``."""
    terms = segment.offer or offer
    if in_preview(segment, terms.preview_us):
        return 0
    return terms.price.amount_for(segment.size)


def in_preview(segment: Segment, preview_us: int) -> bool:
    """Whether a segment starts within the item's free preview."""
    return segment.start_us < preview_us

"""Pure: the cost of renditions by the minute and as a whole, in atomic units."""

from typing import Any

from xbyte_live.models import Offer, Rendition
from xbyte_live.money import PRICE_DECIMALS, Price, format_decimal
from xbyte_live.pricing.quotes import amount_of

MINUTE = 60  # seconds


def per_minute(rendition: Rendition, price: Price) -> int:
    """The cost of a minute of a rendition at its mean bit rate, rounded up."""
    return price.amount_for(-(-rendition.average_bandwidth * MINUTE // 8))


def dearest(renditions: tuple[Rendition, ...], price: Price) -> int | None:
    """The cost of a minute of the dearest rendition, if there is one."""
    return max((per_minute(rendition, price) for rendition in renditions), default=None)


def rate_of(rendition: Rendition, offer: Offer, *, is_whole: bool) -> dict[str, Any]:
    """A rendition as a price list shows it: dollars by the minute, bits a second, pixels.

    One that ``is_whole`` has all the segments it will ever have, and so a price as a whole.
    """
    cost = sum(amount_of(segment, offer) for segment in rendition.segments) if is_whole else None
    return {
        "name": rendition.name,
        "codecs": rendition.codecs,
        "bandwidth": rendition.bandwidth,
        "average_bandwidth": rendition.average_bandwidth,
        "width": rendition.width,
        "height": rendition.height,
        "price_per_minute": dollars(per_minute(rendition, offer.price)),
        "price_whole": None if cost is None else dollars(cost),
    }


def dollars(amount: int) -> str:
    """Atomic units as a plain decimal of dollars."""
    return format_decimal(amount, PRICE_DECIMALS)

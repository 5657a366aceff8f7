"""A payer who was quoted an amount is never refused for paying it (money rule 8)."""

from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.models import Offer, Segment
from xbyte_live.money import MIB, Price
from xbyte_live.pricing.quotes import Quote, in_preview, quotes_for

PAYEE = "0x00000000000000000000000000000000000000aa"
OTHER = "0x00000000000000000000000000000000000000bb"
TTL = 60.0


def offer(price: int, since: float, pay_to: str | None = PAYEE) -> Offer:
    return Offer(Price(price), pay_to, since)


def prices_at(now: float, *offers: Offer) -> list[int]:
    quotes = quotes_for(MIB, offers, default_pay_to=PAYEE, now=now, quote_ttl=TTL)
    return [quote.price.per_mib for quote in quotes]


def test_one_offer_is_one_quote() -> None:
    quotes = quotes_for(500, [offer(7, 100)], default_pay_to=OTHER, now=101, quote_ttl=TTL)
    assert quotes == (Quote(500, Price(7), PAYEE),)


def test_the_newest_offer_goes_first_and_the_one_before_still_holds() -> None:
    assert prices_at(130, offer(2, 100), offer(1, 0)) == [2, 1]


def test_an_offer_holds_until_its_successor_is_quote_ttl_old() -> None:
    offers = (offer(2, 100), offer(1, 0))
    assert prices_at(100 + TTL - 0.001, *offers) == [2, 1]
    assert prices_at(100 + TTL, *offers) == [2]


def test_every_price_named_within_quote_ttl_holds() -> None:
    offers = (offer(4, 103), offer(3, 102), offer(2, 101), offer(1, 0))
    assert prices_at(104, *offers) == [4, 3, 2, 1]
    assert prices_at(101 + TTL, *offers) == [4, 3, 2]
    assert prices_at(102 + TTL, *offers) == [4, 3]


def test_an_offer_is_in_force_from_its_time_on() -> None:
    assert prices_at(199.999, offer(2, 200), offer(1, 0)) == [1]
    assert prices_at(200, offer(2, 200), offer(1, 0)) == [2, 1]


def test_a_price_that_came_back_is_quoted_once() -> None:
    assert prices_at(121, offer(1, 120), offer(2, 100), offer(1, 0)) == [1, 2]


def test_a_new_payee_is_a_new_quote() -> None:
    offers = (offer(1, 100, OTHER), offer(1, 0, PAYEE))
    quotes = quotes_for(MIB, offers, default_pay_to=PAYEE, now=101, quote_ttl=TTL)
    assert [quote.pay_to for quote in quotes] == [OTHER, PAYEE]


def test_an_item_without_a_payee_pays_the_default_one() -> None:
    (quote,) = quotes_for(1, [offer(1, 0, None)], default_pay_to=OTHER, now=1, quote_ttl=TTL)
    assert quote.pay_to == OTHER


def test_a_free_offer_holds_like_any_other() -> None:
    assert prices_at(110, offer(5, 100), offer(0, 0)) == [5, 0]
    assert prices_at(100 + TTL, offer(5, 100), offer(0, 0)) == [5]


def test_a_segment_within_an_offers_preview_is_free_by_that_offer() -> None:
    """A preview that was cut short still holds for who was promised it."""

    def prices(start_us: int) -> list[int]:
        offers = (Offer(Price(5), PAYEE, 100, 10_000_000), Offer(Price(5), PAYEE, 0, 30_000_000))
        segment = Segment(0, MIB, start_us, 6_000_000, "0" * 64)
        quotes = quotes_for(
            MIB, offers, default_pay_to=PAYEE, now=110, quote_ttl=TTL, segment=segment
        )
        return [quote.price.per_mib for quote in quotes]

    assert prices(9_999_999) == [0]
    assert prices(10_000_000) == [5, 0]
    assert prices(29_999_999) == [5, 0]
    assert prices(30_000_000) == [5]


@st.composite
def histories(draw: st.DrawFn) -> list[Offer]:
    """Offers newest first, at distinct times."""
    times = draw(st.lists(st.integers(0, 500), min_size=1, max_size=8, unique=True))
    prices = draw(st.lists(st.integers(0, 5), min_size=len(times), max_size=len(times)))
    ordered = sorted(times, reverse=True)
    return [offer(price, since) for price, since in zip(prices, ordered, strict=True)]


@given(histories(), st.integers(0, 600), st.floats(0, TTL, exclude_max=True))
def test_what_was_in_force_when_it_was_quoted_is_good_when_it_is_paid(
    offers: list[Offer], quoted_at: int, delay: float
) -> None:
    quoted = quotes_for(MIB, offers, default_pay_to=PAYEE, now=quoted_at, quote_ttl=TTL)
    good = quotes_for(MIB, offers, default_pay_to=PAYEE, now=quoted_at + delay, quote_ttl=TTL)
    assert quoted == () or quoted[0] in good


@given(histories(), st.integers(0, 600))
def test_a_price_out_of_force_for_quote_ttl_is_good_no_more(offers: list[Offer], now: int) -> None:
    good = quotes_for(MIB, offers, default_pay_to=PAYEE, now=now, quote_ttl=TTL)
    in_force = {
        Quote(MIB, old.price, PAYEE)
        for old, new in zip(offers[1:], offers, strict=False)
        if old.since <= now and (new.since > now or new.since + TTL > now)
    }
    if offers[0].since <= now:
        in_force.add(Quote(MIB, offers[0].price, PAYEE))
    assert set(good) == in_force
    assert len(good) == len(set(good))


@given(histories(), st.integers(501, 600))
def test_the_quote_in_force_goes_first(offers: list[Offer], now: int) -> None:
    good = quotes_for(MIB, offers, default_pay_to=PAYEE, now=now, quote_ttl=TTL)
    assert good[0].price == offers[0].price


def test_a_segment_is_free_when_it_begins_within_the_preview() -> None:
    def segment(start_us: int) -> Segment:
        return Segment(0, 1, start_us, 6_000_000, "0" * 64)

    assert in_preview(segment(0), 1)
    assert in_preview(segment(29_999_999), 30_000_000)
    assert not in_preview(segment(30_000_000), 30_000_000)
    assert not in_preview(segment(0), 0)

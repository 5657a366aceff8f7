"""Money is exact: no float, no rounding in the payer's favour, nothing sold for nothing."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from xbyte_live.errors import MoneyError
from xbyte_live.money import (
    MAX_AMOUNT,
    MIB,
    PRICE_DECIMALS,
    Asset,
    Price,
    format_decimal,
    parse_decimal,
)

SIZES = st.integers(0, 2**45)
PRICES = st.integers(0, 10**6).map(Price)
PAID_PRICES = st.integers(1, 10**6).map(Price)


def an_asset(**changes: object) -> Asset:
    fields: dict[str, object] = {
        "network": "eip155:84532",
        "address": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "name": "USDC",
        "version": "2",
        "decimals": 6,
        "symbol": "USDC",
    }
    return Asset(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "price", "amount"),
    [
        (MIB, 1000, 1000),
        (1, 1, 1),
        (1, 1000, 1),
        (MIB - 1, 1000, 1000),
        (MIB + 1, 1000, 1001),
        (750_112, 1000, 716),
        (0, 1000, 0),
        (MIB, 0, 0),
        (2**53, 1, 2**33),
        (2**53 + 1, MIB, 2**53 + 1),  # a float would lose the last unit
        (MAX_AMOUNT, MIB, MAX_AMOUNT),
    ],
)
def test_known_amounts(size: int, price: int, amount: int) -> None:
    assert Price(price).amount_for(size) == amount


@given(SIZES.filter(bool), PAID_PRICES)
def test_amount_is_the_rule_in_exact_arithmetic(size: int, price: Price) -> None:
    assert price.amount_for(size) == max(1, ceil(Fraction(size * price.per_mib, 2**20)))


@given(SIZES.filter(bool), PAID_PRICES)
def test_priced_bytes_are_never_free(size: int, price: Price) -> None:
    assert price.amount_for(size) >= 1


@given(SIZES, SIZES, PRICES)
def test_more_bytes_never_cost_less(one: int, other: int, price: Price) -> None:
    fewer, more = sorted((one, other))
    assert price.amount_for(fewer) <= price.amount_for(more)


@given(SIZES, PRICES, PRICES)
def test_a_higher_price_never_costs_less(size: int, one: Price, other: Price) -> None:
    lower, higher = sorted((one, other))
    assert lower.amount_for(size) <= higher.amount_for(size)


@given(SIZES, SIZES, PRICES)
def test_splitting_a_file_never_makes_it_cheaper(one: int, other: int, price: Price) -> None:
    whole = price.amount_for(one + other)
    assert whole <= price.amount_for(one) + price.amount_for(other) <= whole + 1


@given(st.integers(2**53, 2**62))
def test_amounts_are_exact_beyond_what_a_float_can_hold(size: int) -> None:
    assert Price(MIB).amount_for(size) == size


@given(SIZES)
def test_a_free_price_is_free(size: int) -> None:
    assert Price(0).is_free
    assert Price(0).amount_for(size) == 0


def test_an_amount_no_database_can_hold_is_refused() -> None:
    with pytest.raises(MoneyError, match="exceed what one payment can carry"):
        Price(MIB).amount_for(MAX_AMOUNT + 1)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(MoneyError, match="negative"):
        Price(1).amount_for(-1)


@pytest.mark.parametrize("per_mib", [-1, 10**15 + 1])
def test_a_price_out_of_bounds_is_refused(per_mib: int) -> None:
    with pytest.raises(MoneyError, match="between"):
        Price(per_mib)


@given(st.integers(0, 10**15))
@example(10**15)
def test_a_price_reads_back_what_it_writes(per_mib: int) -> None:
    assert Price.parse(str(Price(per_mib))) == Price(per_mib)


@given(st.integers(-(10**24), 10**24), st.integers(0, 18))
def test_decimals_read_back_exactly(amount: int, decimals: int) -> None:
    text = format_decimal(amount, decimals)
    assert Fraction(text) == Fraction(amount, 10**decimals)
    assert "." not in text or not text.endswith(("0", "."))
    assume(0 <= amount < 10 ** (18 + decimals))
    assert parse_decimal(text, decimals) == amount


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0.001", 1000),
        ("$0.05", 50_000),
        (" 1 ", 1_000_000),
        ("0", 0),
        ("000.100000000", 100_000),
        ("0.000001", 1),
        ("999999999999999999", 999_999_999_999_999_999_000_000),
    ],
)
def test_decimals_people_write(text: str, units: int) -> None:
    assert parse_decimal(text, PRICE_DECIMALS) == units


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "$", ".5", "5.", "-1", "+1", "1e3", "1,5", "1_000", "0x10", "nan", "inf", "½",
        "٠٫٠٠١", "٣", "１", "1 0", "$$1", "1\n1", "9" * 19, "0." + "1" * 19,
    ],
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(MoneyError, match="is not a decimal number"):
        parse_decimal(text, PRICE_DECIMALS)


def test_a_price_finer_than_a_millionth_is_refused_not_rounded() -> None:
    with pytest.raises(MoneyError, match="finer than 6 decimals"):
        Price.parse("0.0000001")


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_a_money_error(text: str) -> None:
    try:
        price = Price.parse(text)
    except MoneyError:
        return
    assert Fraction(text.strip().removeprefix("$")) == Fraction(price.per_mib, 10**6)


@pytest.mark.parametrize("decimals", [0, 5, 7, 18])
def test_an_asset_has_six_decimals(decimals: int) -> None:
    with pytest.raises(MoneyError, match=f"USDC has {decimals} decimals"):
        an_asset(decimals=decimals)


def test_an_asset_knows_its_chain() -> None:
    assert an_asset().chain_id == 84532

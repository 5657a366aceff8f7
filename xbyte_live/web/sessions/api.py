"""Pure: what a request for a session asks for (JSON from strangers)."""

import re
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import BadRequest, MoneyError
from xbyte_live.money import PRICE_DECIMALS, format_decimal, parse_decimal
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.order import is_key
from xbyte_live.runtime.json import read_json

MAX_BODY = 4096  # bytes
MAX_MINUTES = 100_000

_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")
_FIELDS = frozenset({"slug", "budget", "minutes", "ttl"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session that is asked for; ``budget`` in atomic units, ``ttl`` in seconds.

    At most one of ``budget`` and ``minutes`` is there.
    """

    slug: str
    budget: int | None
    minutes: int | None
    ttl: int | None
    key: str

    @property
    def asked(self) -> str:
        """How its size was named, the same for every retry."""
        if self.budget is not None:
            return f"budget={self.budget}"
        return "" if self.minutes is None else f"minutes={self.minutes}"


def read_wanted(body: bytes, key: str | None) -> Wanted:
    """Read a request's body and its ``Idempotency-Key``; raises ``BadRequest``."""
    try:
        fields = read_json(body) if body.strip() else {}
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise BadRequest('the body is a JSON object such as {"slug": "…", "budget": "0.50"}')
    if unknown := fields.keys() - _FIELDS:
        raise BadRequest(f"there is no field {min(unknown)[:40]!r}; use slug, budget, minutes, ttl")
    slug, minutes = fields.get("slug", ""), _whole(fields, "minutes", MAX_MINUTES)
    if not isinstance(slug, str):
        raise BadRequest("slug is the name of an item")
    budget = _dollars(fields.get("budget"))
    if budget is not None and minutes is not None:
        raise BadRequest("name the budget or the minutes, not both")
    if not is_key(key or ""):
        raise BadRequest("an Idempotency-Key has at most 64 letters, digits, dots, dashes")
    return Wanted(slug, budget, minutes, _whole(fields, "ttl", 10**9), key or "")


def paid_amount(payment: Payment | None) -> int | None:
    """The amount that a payment says it is, before anything in it is believed."""
    if payment is None:
        return None
    if payment.accepted is not None:
        amount = payment.accepted.get("amount")
    else:
        authorization = payment.payload.get("authorization")
        amount = authorization.get("value") if isinstance(authorization, dict) else None
    known = isinstance(amount, str | int) and _AMOUNT.fullmatch(str(amount)) is not None
    return int(str(amount)) if known else None


def check_amount(amount: int, most: int) -> int:
    """The amount if a payment for a session may be so large; raises ``BadRequest``."""
    if not 0 < amount <= most:
        limit = format_decimal(most, PRICE_DECIMALS)
        raise BadRequest(f"a budget lies above 0 and is at most {limit} dollars")
    return amount


def _dollars(value: Any) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return parse_decimal(str(value), PRICE_DECIMALS)
    except MoneyError:
        pass
    raise BadRequest('budget is a number of dollars such as "0.50"')


def _whole(fields: dict[str, Any], name: str, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise BadRequest(f"{name} is a whole number from 1 to {most}")
    return value

"""Pure: the period, step and limit in the query of a report."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from xbyte_live.errors import BadRequest

MAX_STEPS = 2000
DAY = 86_400

_DEFAULT_STEPS = 200
_ROUND_TO = 900
_ROUND = (60, 300, 900, 3600, 4 * 3600, DAY, 7 * DAY, 28 * DAY)  # seconds
_NUMBER = re.compile(r"[0-9]{1,12}")
_LAST = 253_402_300_800  # the year 10000


def read_period(query: Mapping[str, str], now: float, *, days: int = 1) -> tuple[int, int]:
    """``from`` and ``to`` in Unix seconds; without them, the last ``days`` until now.

    Both are Unix seconds or ISO 8601, a day being its first moment in UTC. What is not named is
    round, so that for a while everybody asks about the same time: it ends with this quarter of
    an hour, and begins with a day if it is longer than one. Raises ``BadRequest``.
    """
    until = _time(query, "to")
    until = -(-math.ceil(now) // _ROUND_TO) * _ROUND_TO if until is None else until
    since = _time(query, "from")
    if since is None:
        since = max(0, until - days * DAY)
        since -= since % DAY if days > 1 else 0
    if since >= until:
        raise BadRequest("`from` lies before `to`, which is not included")
    return since, until


def read_step(query: Mapping[str, str], since: int, until: int) -> int:
    """``step`` in seconds, or a round one that gives a readable number of them."""
    least = -(-(until - since) // MAX_STEPS)
    if "step" not in query:
        wanted = (until - since) / _DEFAULT_STEPS
        return max(next((step for step in _ROUND if step >= wanted), _ROUND[-1]), least)
    step = read_whole(query, "step", 0, 400 * DAY)
    if step < max(least, 1):
        raise BadRequest(f"step must be {max(least, 1)} or more: {MAX_STEPS} steps are the most")
    return step


def read_whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to ``most``."""
    text = query.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= most:
        raise BadRequest(f"{name} is a whole number from 1 to {most}")
    return int(text)


def _time(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text):
        return min(int(text), _LAST)
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{name} is a day such as 2026-01-31, or Unix seconds") from None
    aware = read if read.tzinfo else read.replace(tzinfo=UTC)
    return max(0, math.floor(aware.timestamp()))

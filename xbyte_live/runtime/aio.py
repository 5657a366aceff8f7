"""Pure: how long to wait before something that failed is tried again."""


def backoff(attempt: int, chance: float, *, least: float, most: float) -> float:
    """Seconds to wait after failure number ``attempt`` (from 1), doubling from ``least``.

    ``chance`` from 0 to 1 takes up to half of it away, so that many who failed at the same
    moment do not come back at the same moment. Never more than ``most``.
    """
    doubled = least * 2 ** min(max(attempt - 1, 0), 60)
    return float(min(most, doubled)) * (1 - chance / 2)

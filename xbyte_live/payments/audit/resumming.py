"""Adapter: ``sums`` are made what the rows say, while servers sum on.

What differs is found on a snapshot, a day at a time, and each sum is set only if it still is what
it was there: whatever was added to it since, by whichever process, is never lost nor counted
twice, but makes for another look.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

from sqlalchemy import Connection, and_, delete, update

from xbyte_live.payments.audit.rollups import (
    FIGURES,
    Advance,
    Difference,
    differences_of,
    known_days,
)
from xbyte_live.payments.ledger.rollup import BATCH, MARGIN, Key, lock_mark
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import summed, sums

_AT_ONCE = 10_000  # differences of a day in memory: each look at a day costs all of its rows
_PATIENCE = 20  # looks at a day of which no sum stood still, one after another


@dataclass(frozen=True, slots=True)
class Resummed:
    """How many sums were mended; how many are ``left`` that changed whenever it was tried."""

    mended: int
    left: int


class Resumming:
    """Any process may do it, and several at once. Raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def resum(self, advance: Advance) -> Resummed:
        """Mend every sum; ``advance`` is told days done and all days."""
        await self._database.write(partial(_set_back, now=self._clock()))
        mended = left = 0
        days = await self._database.read(known_days)
        for done, day in enumerate(days, 1):
            more, not_yet = await self._day(day)
            mended, left = mended + more, left + not_yet
            advance(done, len(days))
        return Resummed(mended, left)

    async def _day(self, day: int) -> tuple[int, int]:
        mended = idle = 0
        while found := await self._database.read(partial(_some, day=day)):
            before = mended
            for first in range(0, len(found), BATCH):
                some = found[first : first + BATCH]
                mended += await self._database.write(partial(mend, found=some))
            idle = 0 if mended > before else idle + 1
            if idle == _PATIENCE:
                return mended, len(found)
        return mended, 0


def mend(db: Connection, found: Sequence[Difference]) -> int:
    """Make sums right that are still what they were when they were found; how many."""
    detailed = lock_mark(db).detailed
    in_order = sorted(found, key=lambda one: one.key)
    # A day whose details went meanwhile is another one to compare.
    return sum(_mend(db, one) for one in in_order if one.detailed == (one.key.at >= detailed))


def _some(db: Connection, day: int) -> list[Difference]:
    """Differences of a day, as many as are held in memory."""
    with closing(differences_of(db, day)) as found:
        return list(islice(found, _AT_ONCE))


def _mend(db: Connection, one: Difference) -> int:
    real = {name: getattr(one.real, name) for name in FIGURES}
    times = {"first_at": one.real.first_at, "last_at": one.real.last_at}
    if one.summed.first_at is None:
        new = insert_into(db, sums).values(**one.key._asdict(), **real, **times)
        unless_there = new.on_conflict_do_nothing(index_elements=Key._fields)
        return len(db.execute(unless_there.returning(sums.c.id)).all())
    same = and_(
        *(sums.c[name] == value for name, value in one.key._asdict().items()),
        *(sums.c[name] == getattr(one.summed, name) for name in FIGURES),
    )
    if one.real.first_at is None:
        return db.execute(delete(sums).where(same)).rowcount
    right = {**real, **times}
    if not one.detailed:
        right = {name: value for name, value in real.items() if name != "plays"}
    return db.execute(update(sums).where(same).values(right)).rowcount


def _set_back(db: Connection, now: float) -> None:
    """Bring the mark of a clock that was wrong back to what is over by now."""
    mark = lock_mark(db)
    if mark.until > now:
        until = max(now - MARGIN, float(mark.detailed))
        db.execute(update(summed).values(until=until))

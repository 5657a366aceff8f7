"""Adapter: the SQL of draws from sessions, group-committed like the charges of channels."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update

from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.ledger.sessions import lock_channels, lock_sessions
from xbyte_live.runtime.aio import BatchQueue
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels, draws, sessions

DrawOutcome = Literal["drawn", "again", "empty", "over", "unsold", "leaving"]


@dataclass(frozen=True, slots=True)
class NewDraw:
    """Bytes of an item that a session shall pay for.

    ``resource`` names them, ``whole`` the whole they are a part of; ``amounts`` is what they cost
    by payee (lower case). ``repeats`` says that they were paid for good the first time,
    ``retry_only`` that they are off sale.
    """

    digest: str
    slug: str
    resource: str
    whole: str
    size: int
    amounts: Mapping[str, int]
    repeats: bool = False
    retry_only: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """The outcome of a draw, and the session as it then stands.

    ``drawn``: now; ``again``: these bytes were drawn before; ``empty``: they cost more than is
    left; ``over``: no such session of this item, or not any more; ``unsold``: off sale, or sold
    for another payee now; ``leaving``: its payer takes the money out of the channel.
    """

    outcome: DrawOutcome
    session: Session | None = None
    amount: int = 0


class DrawLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(
        self,
        database: Database,
        *,
        retry_window: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._retry_window = retry_window
        self._clock = clock
        self._draws = BatchQueue(self._draw, limit=database.limit)

    async def draw(self, new: NewDraw) -> Drawn:
        """Draw what bytes cost, once within the retry window; durable on return (rule 2)."""
        return await self._draws.do(new)

    async def _draw(self, news: Sequence[NewDraw]) -> Sequence[Drawn]:
        now = self._clock()
        return await self._database.write(lambda db: draw_all(db, news, now, self._retry_window))


def draw_all(
    db: Connection, news: Sequence[NewDraw], now: float, retry_window: float
) -> list[Drawn]:
    """Draw for many in the caller's transaction; one answer for each, in their order."""
    wanted = sessions.c.digest.in_({new.digest for new in news})
    used = select(sessions.c.channel).where(wanted, sessions.c.channel.is_not(None))
    funds = lock_channels(db, channels.c.id.in_(used))
    found = lock_sessions(db, wanted)
    before = dict(found)
    had = _drawn_before(db, list(found.values()), news)
    fresh: list[dict[str, Any]] = []
    answers: list[Drawn] = []
    for new in news:
        answer = _judge(found.get(new.digest), new, had, funds, now, retry_window)
        answers.append(answer)
        if answer.outcome == "drawn" and answer.session is not None:
            found[new.digest] = answer.session
            had[answer.session.id, new.resource] = now
            fresh.append(_row(answer, new, now))
    if fresh:
        _write(db, [s for s in found.values() if s is not before[s.digest]], before)
        db.execute(insert(draws), fresh)
    return answers


def _judge(
    session: Session | None,
    new: NewDraw,
    had: Mapping[tuple[int, str], float],
    funds: Mapping[int, RowMapping],
    now: float,
    retry_window: float,
) -> Drawn:
    if session is None or session.slug != new.slug or session.is_over(now):
        return Drawn("over")
    last = max(had.get((session.id, name), 0.0) for name in (new.resource, new.whole))
    if last and (new.repeats or now - last < retry_window):
        return Drawn("again", session)
    amount = new.amounts.get(session.pay_to)
    if amount is None or new.retry_only:
        return Drawn("unsold", session)
    if session.channel is not None and _is_leaving(funds[session.channel], now):
        return Drawn("leaving", session)
    if amount > session.left:
        return Drawn("empty", session, amount)
    return Drawn("drawn", replace(session, drawn=session.drawn + amount), amount)


def _is_leaving(channel: RowMapping, now: float) -> bool:
    """Whether a withdrawal is so near that what is drawn might not be claimed in time."""
    requested = channel["withdraw_requested_at"]
    return bool(requested > 0 and now > requested + channel["withdraw_delay"] / 2)


def _drawn_before(
    db: Connection, found: Sequence[Session], news: Sequence[NewDraw]
) -> dict[tuple[int, str], float]:
    """When each session was last drawn for bytes that are wanted now."""
    names = {name for new in news for name in (new.resource, new.whole)}
    query = (
        select(draws.c.session_id, draws.c.resource, func.max(draws.c.created_at))
        .where(
            draws.c.session_id.in_([session.id for session in found]), draws.c.resource.in_(names)
        )
        .group_by(draws.c.session_id, draws.c.resource)
    )
    return {(session, resource): float(at) for session, resource, at in db.execute(query)}


def _write(db: Connection, changed: Sequence[Session], before: Mapping[str, Session]) -> None:
    """The compare-and-set: every row must still hold what this transaction read."""
    taken = [
        {
            "row": session.id,
            "was": before[session.digest].drawn,
            "now_drawn": session.drawn,
            "fund": session.channel,
            "amount": session.drawn - before[session.digest].drawn,
        }
        for session in changed
    ]
    result = db.execute(_DRAW, taken)
    if result.rowcount not in (len(taken), -1):
        raise AssertionError("a session changed under the transaction that holds it")
    held = [one for one in taken if one["fund"] is not None]
    if held:
        db.execute(_LET_GO, held)


_DRAW = (
    update(sessions)
    .where(sessions.c.id == bindparam("row"), sessions.c.drawn == bindparam("was"))
    .values(drawn=bindparam("now_drawn"))
)
_LET_GO = (
    update(channels)
    .where(channels.c.id == bindparam("fund"))
    .values(held=channels.c.held - bindparam("amount"))
)


def _row(answer: Drawn, new: NewDraw, now: float) -> dict[str, Any]:
    if answer.session is None:
        raise AssertionError("something was drawn from no session")
    return {
        "session_id": answer.session.id,
        "amount": answer.amount,
        "resource": new.resource,
        "size": new.size,
        "created_at": now,
    }

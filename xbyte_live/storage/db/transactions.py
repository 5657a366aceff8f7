"""Adapter: works on a database in one transaction, each with an outcome of its own.

A work that fails takes back what it did and nothing else; one that meets another process's is
run again; what becomes of all of them when the database fails is told alike.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.storage.db.connect import cause_of, is_conflict, is_outage

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]

_CONFLICT_RETRIES = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a work returned, or the ``error`` it ended in; ``outage`` is the driver's word of it."""

    value: Any = None
    error: BaseException | None = None
    outage: str | None = None


class _NoSecondTryError(Exception):
    """The transaction could not begin, or its commit did not return: no second try."""


class Transactions:
    """Runs works on one connection of ``engine``, which is made when there is none; ``close`` it.

    For one thread at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def run(self, works: Sequence[Work[Any]]) -> Sequence[Outcome]:
        """Run works in one transaction, here and now; what became of each. Never raises."""
        try:
            outcomes = self._together(works)
        except Exception as error:
            if is_conflict(error):
                outcomes = [self._alone(work) for work in works]
            else:
                outcomes = [_unavailable(error)] * len(works)
        outages = [outcome.outage for outcome in outcomes if outcome.outage]
        if outages:
            _log.error("%d database writes failed: %s", len(outages), outages[0])
        return outcomes

    def _together(self, works: Sequence[Work[Any]]) -> Sequence[Outcome]:
        """All works in one transaction; once more, behind savepoints, when one of them raises."""
        try:
            return self._transaction(works, _plain)
        except _NoSecondTryError:
            raise
        except BaseException as error:  # a connection lost before the commit comes here too
            if len(works) == 1 and not is_outage(error):
                return [Outcome(error=error)]
        return self._transaction(works, _fenced)

    def _alone(self, work: Work[Any]) -> Outcome:
        """One work in its own transaction, again while it meets another process's."""
        for _ in range(_CONFLICT_RETRIES):
            try:
                return self._transaction([work], _fenced)[0]
            except Exception as error:
                failure = error
                if not is_conflict(error):
                    break
        return _unavailable(failure)

    def _transaction(
        self, works: Sequence[Work[Any]], run: Callable[[Connection, Work[Any]], Outcome]
    ) -> Sequence[Outcome]:
        connection = self._begin()
        try:
            outcomes = [run(connection, work) for work in works]
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            connection.commit()
        except Exception as error:
            self.close()
            raise _NoSecondTryError from error
        return outcomes

    def _begin(self) -> Connection:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._connection.begin()
        except Exception as error:
            self.close()
            raise _NoSecondTryError from error
        return self._connection

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except SQLAlchemyError:
            self.close()
        else:
            if connection.invalidated:
                self.close()

    def close(self) -> None:
        """Let go of the connection; the next transaction makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


def _plain(connection: Connection, work: Work[Any]) -> Outcome:
    return Outcome(work(connection))


def _fenced(connection: Connection, work: Work[Any]) -> Outcome:
    savepoint = connection.begin_nested()
    try:
        value = work(connection)
        savepoint.commit()
    except BaseException as error:
        if is_conflict(error):
            raise
        savepoint.rollback()  # raises when the whole transaction is gone
        return _unavailable(error) if is_outage(error) else Outcome(error=error)
    return Outcome(value)


def _unavailable(error: BaseException) -> Outcome:
    return Outcome(
        error=DatabaseUnavailable("the database did not take the write; try again shortly"),
        outage=cause_of(error.__cause__ or error),
    )

"""Part: the settlement engine: attempts to bring rows to the chain, and proof of their effect.

Deposits, claims, payouts, refunds, session refunds and transfers are all attempted alike: the row
is there first, one process at a time holds its lease, the facilitator sends it, the chain proves
it, and what stays open is tried again, the later the older it is. One rule decides: the
facilitator is believed only while no transaction can be on its way; once one may be, the chain
alone says whether it had its effect (money rule 5).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from xbyte_live.errors import ChainUnavailable, FacilitatorError, XByteError
from xbyte_live.payments.facilitators.remote import (
    Facilitator,
    Outcome,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
)
from xbyte_live.payments.facilitators.transfer_batcher import TransferBatcher
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.ledger.channel import OnChain
from xbyte_live.payments.ledger.charge import Charge

BACKOFF_LEAST, BACKOFF_MOST = 1.0, 300.0  # seconds
LOOK_LEAST, LOOK_MOST = 0.1, 2.0  # seconds between two looks for what a facilitator says it sent

Why = Literal["unsent", "refused", "void", "reverted"]
Row = TypeVar("Row", bound=Action | Charge)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """The effect of an attempt as the chain shows it.

    ``done``: with its transaction, where found, and for a refund the channel after it;
    ``open``: may still happen; ``reverted``: open, and the transaction known of has failed;
    ``void``: never will happen.
    """

    kind: Literal["done", "open", "reverted", "void"]
    tx_hash: str | None = None
    chain: OnChain | None = None


class Rows(Protocol[Row]):
    """The rows of one kind of attempt: where they are kept, what is sent, what proves it.

    All that touches the database raises ``DatabaseUnavailable``.
    """

    async def get(self, row_id: int) -> Row | None:
        """The row of that number."""

    async def begin_attempt(self, row_id: int, *, lease: float) -> Row | None:
        """Lease a row for so many seconds; ``None`` if another has it or it is over.

        The row is in doubt from then on; the returned ``in_doubt`` is what it was before.
        """

    async def settle(self, row: Row, proof: Proof) -> Row:
        """Record a row as done."""

    async def fail(self, row: Row, error: str) -> Row:
        """Record that a row had no effect and never will by this attempt."""

    async def postpone(
        self, row: Row, error: str, *, delay: float, in_doubt: bool, sent: str | None
    ) -> Row:
        """Record that a row is open, and due again in ``delay`` seconds."""

    def payment(self, row: Row) -> SignedPayment:
        """What a facilitator is to send; raises ``FacilitatorError`` if nothing can be."""

    async def prove(self, row: Row, sent: str | None) -> Proof:
        """Ask the chain for the effect of a row, ``sent`` being its transaction where known.

        Raises ``ChainUnavailable``.
        """

    def fails(self, row: Row, why: Why) -> bool:
        """Whether a row fails for that reason; else it stays open."""

    def is_shared(self, row: Row) -> bool:
        """Whether others may have had the same effect, so that a refusal may mean: done."""


class Attempts(Generic[Row]):
    """Attempts rows, ``parallel`` at the same time, and records their effect.

    ``lease`` is how many seconds one attempt may take, ``wait`` how many what was sent may take
    to be confirmed; ``None`` believes the facilitator that it is. ``longest_delay`` is how many
    seconds a row that fails again and again waits at most for its next attempt.
    """

    def __init__(
        self,
        rows: Rows[Row],
        facilitator: Facilitator,
        *,
        lease: float,
        wait: float | None,
        parallel: int,
        longest_delay: float = BACKOFF_MOST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._longest_delay = longest_delay
        self._rows = rows
        self._facilitator = facilitator
        self._wait = wait
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._under_way: dict[int, asyncio.Task[Row]] = {}
        self._begun: set[int] = set()
        self._lease = lease

    @property
    def under_way(self) -> int:
        """How many rows are attempted, or wait for their turn."""
        return len(self._under_way)

    def is_under_way(self, row: Row) -> bool:
        """Whether a row is one of them."""
        return row.id in self._under_way

    async def do(self, row: Row, *, patience: float | None = None) -> Row:
        """Try once; parallel callers share the attempt, which goes on when they are cancelled.

        After ``patience`` seconds it goes on without its caller, who gets the row as it is.
        Raises ``FacilitatorError`` when nothing could be sent, ``DatabaseUnavailable``.
        """
        task = self._under_way.get(row.id)
        if task is None:
            task = self._track(row, asyncio.create_task(self._attempt(row)))
        done, _ = await asyncio.wait((task,), timeout=patience)
        return task.result() if done else await self._rows.get(row.id) or row

    async def do_together(self, rows: Sequence[Row], together: TransferBatcher) -> None:
        """Try several in one transaction; whoever asks for one of them waits for all.

        Raises ``DatabaseUnavailable``.
        """
        batch = asyncio.create_task(self._attempt_together(rows, together))
        for row in rows:
            self._track(row, asyncio.create_task(_part_of(batch, row.id)))
            self._begun.add(row.id)
        await asyncio.shield(batch)

    async def look_up(self, row: Row) -> Row:
        """Learn the effect of a row that was sent, and send nothing."""
        known = await self._known(row, row.tx_hash)
        return known or await self._postpone(row, row.error or "outcome_unknown")

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        for row_id, task in self._under_way.items():
            if row_id not in self._begun:
                task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _track(self, row: Row, task: asyncio.Task[Row]) -> asyncio.Task[Row]:
        task.set_name(f"{row.kind} {row.id}")
        self._under_way[row.id] = task
        task.add_done_callback(partial(self._done, row))
        return task

    def _done(self, row: Row, task: asyncio.Task[Row]) -> None:
        self._under_way.pop(row.id, None)
        self._begun.discard(row.id)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("%s %d is not done: %s", row.kind, row.id, error)

    # One row

    async def _attempt(self, row: Row) -> Row:
        async with self._slots:
            self._begun.add(row.id)
            taken = await self._rows.begin_attempt(row.id, lease=self._lease)
            if taken is None:  # over meanwhile, or another process is at it
                return await self._rows.get(row.id) or row
            known = await self._known(taken, taken.tx_hash) if taken.in_doubt else None
            return known or await self._send(taken)

    async def _send(self, row: Row) -> Row:
        try:
            outcome = await self._facilitator.settle(self._rows.payment(row))
        except FacilitatorError as error:
            if self._rows.fails(row, "unsent"):
                await self._rows.fail(row, "facilitator_unavailable")
            else:
                await self._postpone(row, str(error), in_doubt=row.in_doubt)
            raise
        except Exception:  # unforeseen, so nobody knows how far it came
            log.exception("%s %d failed", row.kind, row.id)
            outcome = Unknown("unexpected_error")
        match outcome:
            case Settled(tx_hash):
                known = await self._confirmed(row, tx_hash)
                return known or await self._postpone(row, "unconfirmed", tx_hash)
            case Refused(code):
                return await self._refused(row, code)
            case Unknown(code, sent):
                known = await self._known(row, sent, code)
                return known or await self._postpone(row, code, sent)

    async def _refused(self, row: Row, code: str) -> Row:
        """Nothing was sent now; for what may have been sent before, the chain is asked."""
        log.info("%s %d is refused: %s", row.kind, row.id, code)
        if row.in_doubt or self._rows.is_shared(row):
            known = await self._known(row, row.tx_hash, code)
            if known is not None:
                return known
        if self._rows.fails(row, "refused"):
            return await self._rows.fail(row, code)
        return await self._postpone(row, code)

    async def _confirmed(self, row: Row, tx_hash: str) -> Row | None:
        """The row once the chain proves a transaction that the facilitator says is done."""
        if self._wait is None:
            return await self._settle(row, Proof("done", tx_hash))
        pause, deadline = LOOK_LEAST, time.monotonic() + self._wait
        while True:
            known = await self._known(row, tx_hash, "reverted")
            if known is not None or time.monotonic() + pause > deadline:
                return known
            await asyncio.sleep(pause)
            pause = min(LOOK_MOST, 2 * pause)

    async def _known(
        self, row: Row, sent: str | None, code: str = "authorization_void"
    ) -> Row | None:
        """Record the effect of a row; ``None`` while the chain does not know or answer."""
        try:
            proof = await self._rows.prove(row, sent)
        except ChainUnavailable as error:
            log.warning("%s %d cannot be looked up: %s", row.kind, row.id, error)
            return None
        if proof.kind == "done":
            return await self._settle(row, proof)
        if proof.kind != "open" and self._rows.fails(row, proof.kind):
            return await self._rows.fail(row, code)
        return None

    async def _settle(self, row: Row, proof: Proof) -> Row:
        settled = await self._rows.settle(row, proof)
        log.info("%s %d is done in %s", row.kind, row.id, settled.tx_hash)
        return settled

    async def _postpone(
        self, row: Row, reason: str, sent: str | None = None, *, in_doubt: bool = True
    ) -> Row:
        age = self._clock() - row.created_at
        delay = min(self._longest_delay, max(BACKOFF_LEAST, age / 2))  # about double each time
        return await self._rows.postpone(row, reason, delay=delay, in_doubt=in_doubt, sent=sent)

    # Several in one transaction

    async def _attempt_together(
        self, rows: Sequence[Row], together: TransferBatcher
    ) -> dict[int, Row]:
        async with self._slots:
            found = {row.id: row for row in rows}
            good: list[Row] = []
            for row in rows:
                taken = await self._rows.begin_attempt(row.id, lease=self._lease)
                if taken is None:  # another process is at it
                    found[row.id] = await self._rows.get(row.id) or row
                elif not taken.in_doubt and await self._would_settle(taken):
                    good.append(taken)
                else:
                    found[row.id] = await self._alone(taken)
            outcome: Outcome = Refused("alone")
            if len(good) > 1:
                outcome = await together.settle([self._rows.payment(row) for row in good])
            for row in good:
                found[row.id] = await self._after_batch(row, outcome)
            return found

    async def _after_batch(self, row: Row, outcome: Outcome) -> Row:
        """Record one row of a batch by the chain's word; one that did not move goes alone."""
        if isinstance(outcome, Refused):
            return await self._alone(row)
        reason = outcome.reason if isinstance(outcome, Unknown) else "not_moved"
        doubted = replace(row, in_doubt=True)  # a batch that reverts is no payer's fault
        known = await self._known(doubted, outcome.tx_hash, reason)
        return known or await self._postpone(row, reason)

    async def _would_settle(self, row: Row) -> bool:
        try:
            return (await self._facilitator.verify(self._rows.payment(row))).is_valid
        except FacilitatorError:
            return False

    async def _alone(self, row: Row) -> Row:
        try:
            known = await self._known(row, row.tx_hash) if row.in_doubt else None
            return known or await self._send(row)
        except XByteError as error:
            log.warning("%s %d stays open: %s", row.kind, row.id, error)
            return await self._rows.get(row.id) or row


async def _part_of(batch: "asyncio.Task[dict[int, Row]]", row_id: int) -> Row:
    return (await asyncio.shield(batch))[row_id]

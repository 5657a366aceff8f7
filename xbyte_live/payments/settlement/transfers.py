"""Part: brings charges to the chain and learns what became of them, until every one is known.

One rule decides: what the facilitator says is believed only while no transaction can be on its
way; once one may be, the chain alone says whether the money moved (money rule 5).
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from xbyte_live.errors import ChainUnavailable, FacilitatorError, XByteError
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.payments.facilitators.remote import (
    Facilitator,
    Outcome,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
)
from xbyte_live.payments.ledger.charge import Charge
from xbyte_live.payments.ledger.charges import ChargeLedger

CLOCK_SKEW = 15  # seconds a block's time may differ from ours
BACKOFF_LEAST, BACKOFF_MOST = 1.0, 300.0  # seconds

log = logging.getLogger(__name__)

_IDLE = 3  # looks that are left out while nothing waits: whoever queues a charge wakes us


class Chain(Protocol):
    """What settlement reads from one network."""

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        """What became of an authorization; raises ``ChainUnavailable``."""


class Batcher(Protocol):
    """What sends many payments in one transaction."""

    def can_send(self, payment: SignedPayment) -> bool:
        """Whether a payment can go along with others."""

    async def settle(self, payments: Sequence[SignedPayment]) -> Outcome:
        """Send payments of one network; ``Refused``: nothing was sent."""


class Settlement:
    """Settles charges on request and, in ``run``, those that are due.

    ``chains`` maps CAIP-2 networks to their readers, ``lease`` is how many seconds one attempt
    may take, ``parallel`` how many run at the same time, ``queue`` how many may wait. With a
    ``batcher`` those that are due go to the chain together.
    """

    def __init__(
        self,
        ledger: ChargeLedger,
        facilitator: Facilitator,
        chains: Mapping[str, Chain],
        *,
        lease: float,
        parallel: int,
        queue: int,
        batcher: Batcher | None = None,
        interval: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._facilitator = facilitator
        self._chains = dict(chains)
        self._slots = asyncio.Semaphore(parallel)
        self._parallel = parallel
        self._queue = queue
        self._batcher = batcher
        self._interval = interval
        self._clock = clock
        self._backlog = 0  # charges in the ledger that wait, when last looked
        self._under_way: dict[int, asyncio.Task[Charge]] = {}
        self._begun: set[int] = set()
        self._wake = asyncio.Event()
        self.lease = lease

    @property
    def has_room(self) -> bool:
        """Whether one more payment may wait for the chain."""
        return len(self._under_way) + self._backlog < self._queue

    async def settle(self, charge: Charge) -> Charge:
        """Try once to bring a charge to the chain; parallel callers share one attempt.

        The attempt goes on when the caller is cancelled. Returns the charge as it then stands:
        ``settled``, ``failed``, or still open. Raises ``FacilitatorError`` when nothing could
        be sent, and ``DatabaseUnavailable``.
        """
        task = self._under_way.get(charge.id)
        if task is None:
            task = asyncio.create_task(self._attempt(charge), name=f"settle {charge.id}")
            self._under_way[charge.id] = task
            task.add_done_callback(lambda done: self._done(charge.id, done))
        return await asyncio.shield(task)

    def wake(self) -> None:
        """Say that a charge was queued."""
        self._wake.set()

    async def run(self) -> None:
        """Settle what is due, for ever; what fails is logged and tried again later."""
        while True:
            self._wake.clear()
            due = await self._look()
            batches = self._batches(due)
            together = {charge.id for batch in batches for charge in batch}
            went_well = await asyncio.gather(
                *(self._settle_batch(batch) for batch in batches),
                *(self._settle_due(charge) for charge in due if charge.id not in together),
            )
            if len(due) < self._parallel or not all(went_well):
                busy = bool(due) or self._backlog > 0
                await self._rest(self._interval if busy else self._interval * _IDLE)

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        for charge_id, task in self._under_way.items():
            if charge_id not in self._begun:
                task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _look(self) -> list[Charge]:
        try:
            self._backlog = await self._ledger.queued()
            return await self._ledger.due(self._parallel)
        except XByteError as error:
            log.error("settlement cannot read the ledger: %s", error)
        except Exception:
            log.exception("settlement cannot read the ledger")
        return []

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _done(self, charge_id: int, task: asyncio.Task[Charge]) -> None:
        self._under_way.pop(charge_id, None)
        self._begun.discard(charge_id)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("charge %d is not settled: %s", charge_id, error)

    async def _settle_due(self, charge: Charge) -> bool:
        """Send what was delivered; for what was not, only learn what became of it.

        Nobody is charged in the background for bytes that nobody asks for any more. Returns
        whether that was possible: one charge that is not must not end the work on the others.
        """
        try:
            if charge.delivered:
                await self.settle(charge)
            elif not charge.in_doubt:
                await self._ledger.fail(charge, "abandoned")
            elif await self._known_on_chain(charge) is None:
                await self._postpone(charge, charge.error or "outcome_unknown", in_doubt=True)
        except XByteError as error:
            log.warning("charge %d stays open: %s", charge.id, error)
            return False
        except Exception:
            log.exception("charge %d stays open", charge.id)
            return False
        return True

    def _batches(self, due: Sequence[Charge]) -> list[list[Charge]]:
        """Those that go together: delivered, and never sent, for what was sent is looked up."""
        if self._batcher is None:
            return []
        found: dict[str, list[Charge]] = defaultdict(list)
        for charge in due:
            fresh = charge.delivered and not charge.in_doubt and charge.id not in self._under_way
            if fresh and self._batcher.can_send(_payment(charge)):
                found[charge.network].append(charge)
        return [charges for charges in found.values() if len(charges) > 1]

    async def _settle_batch(self, charges: Sequence[Charge]) -> bool:
        """Whether they could be settled; whoever asks for one of them meanwhile waits for all."""
        batch = asyncio.create_task(self._attempt_together(charges))
        for charge in charges:
            part = asyncio.create_task(_part_of(batch, charge))
            self._under_way[charge.id] = part
            self._begun.add(charge.id)
            part.add_done_callback(partial(self._done, charge.id))
        try:
            await asyncio.shield(batch)
        except XByteError as error:
            log.warning("%d charges stay open: %s", len(charges), error)
            return False
        except Exception:
            log.exception("%d charges stay open", len(charges))
            return False
        return True

    async def _attempt_together(self, charges: Sequence[Charge]) -> dict[int, Charge]:
        async with self._slots:
            found = {charge.id: charge for charge in charges}
            good: list[Charge] = []
            for charge in charges:
                taken = await self._ledger.begin_attempt(charge.id, lease=self.lease)
                if taken is None:  # another process is at it
                    found[charge.id] = await self._ledger.get(charge.id) or charge
                elif not taken.in_doubt and await self._would_settle(taken):
                    good.append(taken)
                else:
                    found[charge.id] = await self._send_alone(taken)
            outcome: Outcome = Refused("alone")
            if self._batcher is not None and len(good) > 1:
                outcome = await self._batcher.settle([_payment(charge) for charge in good])
            for charge in good:
                found[charge.id] = await self._after_batch(charge, outcome)
            return found

    async def _after_batch(self, charge: Charge, outcome: Outcome) -> Charge:
        """Record one charge of a batch by the chain's word; one that did not move goes alone."""
        if isinstance(outcome, Refused):
            return await self._send_alone(charge)
        reason = outcome.reason if isinstance(outcome, Unknown) else "not_moved"
        doubted = replace(charge, in_doubt=True)  # a batch that reverts is no payer's fault
        known = await self._known_on_chain(doubted, reason, outcome.tx_hash)
        return known or await self._postpone(charge, reason, in_doubt=True)

    async def _would_settle(self, charge: Charge) -> bool:
        try:
            return (await self._facilitator.verify(_payment(charge))).is_valid
        except FacilitatorError:
            return False

    async def _send_alone(self, charge: Charge) -> Charge:
        try:
            known = await self._known_on_chain(charge) if charge.in_doubt else None
            return known or await self._send(charge)
        except XByteError as error:
            log.warning("charge %d stays open: %s", charge.id, error)
            return await self._ledger.get(charge.id) or charge

    async def _attempt(self, charge: Charge) -> Charge:
        async with self._slots:
            self._begun.add(charge.id)
            taken = await self._ledger.begin_attempt(charge.id, lease=self.lease)
            if taken is None:  # settled meanwhile, or another process is at it
                return await self._ledger.get(charge.id) or charge
            known = await self._known_on_chain(taken) if taken.in_doubt else None
            return known or await self._send(taken)

    async def _send(self, charge: Charge) -> Charge:
        try:
            outcome = await self._facilitator.settle(_payment(charge))
        except FacilitatorError as error:
            await self._not_sent(charge, error)
            raise
        except Exception:  # unforeseen, so nobody knows how far it came
            log.exception("charge %d: settling failed", charge.id)
            outcome = Unknown("unexpected_error")
        match outcome:
            case Settled(tx_hash):
                log.info("charge %d settled in %s", charge.id, tx_hash)
                return await self._ledger.settle(charge, tx_hash)
            case Refused(code) if not charge.in_doubt:
                return await self._ledger.fail(charge, code)
            case Refused(code):
                known = await self._known_on_chain(charge)
                return known or await self._postpone(charge, code, in_doubt=True)
            case Unknown(code, sent):
                known = await self._known_on_chain(charge, code, sent)
                return known or await self._postpone(charge, code, in_doubt=True)

    async def _not_sent(self, charge: Charge, error: FacilitatorError) -> None:
        """Nothing left for the chain: forget a payment whose bytes did not leave, keep others."""
        if charge.delivered or charge.in_doubt:
            await self._postpone(charge, str(error), in_doubt=charge.in_doubt)
        else:
            await self._ledger.fail(charge, "facilitator_unavailable")

    async def _known_on_chain(
        self, charge: Charge, code: str = "authorization_void", sent: str | None = None
    ) -> Charge | None:
        """Record what the chain knows of a charge; ``None`` while it does not know or answer."""
        chain = self._chains.get(charge.network)
        if chain is None:
            return None
        try:
            fate = await chain.fate(_transfer(charge), sent)
        except ChainUnavailable as error:
            log.warning("charge %d cannot be looked up: %s", charge.id, error)
            return None
        if fate.kind == "moved" and fate.tx_hash is not None:
            return await self._ledger.settle(charge, fate.tx_hash)
        if fate.kind == "void" or (fate.kind == "reverted" and not charge.in_doubt):
            return await self._ledger.fail(charge, code)
        return None

    async def _postpone(self, charge: Charge, reason: str, *, in_doubt: bool) -> Charge:
        age = self._clock() - charge.created_at
        delay = min(BACKOFF_MOST, max(BACKOFF_LEAST, age / 2))  # about double each time
        return await self._ledger.postpone(charge, reason, delay=delay, in_doubt=in_doubt)


async def _part_of(batch: "asyncio.Task[dict[int, Charge]]", charge: Charge) -> Charge:
    return (await asyncio.shield(batch))[charge.id]


def _payment(charge: Charge) -> SignedPayment:
    return SignedPayment(charge.document["x402Version"], charge.document, charge.requirements)


def _transfer(charge: Charge) -> Transfer:
    return Transfer(
        asset=charge.asset,
        payer=charge.payer,
        pay_to=charge.pay_to,
        amount=charge.amount,
        nonce=charge.nonce,
        valid_before=charge.valid_before,
        not_before=charge.created_at - CLOCK_SKEW,
    )

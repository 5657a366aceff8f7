"""Part: one action on its way to the chain: an attempt under a lease, then proof.

One rule decides: what the facilitator says is believed only while no transaction can be on its
way; once one may be, the chain alone says what became of it (money rule 5).
"""

import asyncio
import logging
import time
from collections.abc import Callable

from xbyte_live.errors import ChainUnavailable, FacilitatorError, XByteError
from xbyte_live.payments.facilitators.remote import (
    Facilitator,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
)
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.settlement.channel_sync import Mirror
from xbyte_live.payments.settlement.proofs import Proofs, claimed_by

BACKOFF_LEAST, BACKOFF_MOST = 1.0, 300.0  # seconds
LOOK_LEAST, LOOK_MOST = 0.1, 2.0  # seconds between two looks for what a facilitator says it sent

log = logging.getLogger(__name__)


class Attempts:
    """Tries actions, ``parallel`` at the same time, and records what the chain makes of them.

    ``lease`` is how many seconds one attempt may take, ``wait`` how many what was sent may take
    to be confirmed.
    """

    def __init__(
        self,
        ledger: ActionLedger,
        channels: ChannelLedger,
        facilitator: Facilitator,
        proofs: Proofs,
        mirror: Mirror,
        *,
        lease: float,
        wait: float,
        parallel: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._channels = channels
        self._facilitator = facilitator
        self._proofs = proofs
        self._mirror = mirror
        self._lease = lease
        self._wait = wait
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._under_way: dict[int, asyncio.Task[Action]] = {}
        self._begun: set[int] = set()

    async def do(self, action: Action, *, patience: float | None = None) -> Action:
        """Try once; parallel callers share the attempt, which goes on when they are cancelled.

        After ``patience`` seconds it goes on without its caller, who gets the action as it is.
        Raises ``FacilitatorError`` when nothing could be sent.
        """
        if action.state != "pending":
            return action
        task = self._under_way.get(action.id)
        if task is None:
            task = asyncio.create_task(self._attempt(action), name=f"{action.kind} {action.id}")
            self._under_way[action.id] = task
            task.add_done_callback(lambda done: self._done(action, done))
        done, _ = await asyncio.wait((task,), timeout=patience)
        return task.result() if done else await self._ledger.get(action.id) or action

    async def look_up(self, action: Action) -> Action:
        """Learn what became of an action, and send nothing."""
        known = await self._known(action, action.tx_hash, "authorization_void")
        return known or await self._postpone(action, action.error or "outcome_unknown")

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        for action_id, task in self._under_way.items():
            if action_id not in self._begun:
                task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _done(self, action: Action, task: asyncio.Task[Action]) -> None:
        self._under_way.pop(action.id, None)
        self._begun.discard(action.id)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("%s %d is not done: %s", action.kind, action.id, error)

    async def _attempt(self, action: Action) -> Action:
        async with self._slots:
            self._begun.add(action.id)
            taken = await self._ledger.begin_attempt(action.id, lease=self._lease)
            if taken is None:  # over meanwhile, or another process is at it
                return await self._ledger.get(action.id) or action
            if taken.in_doubt:
                known = await self._known(taken, taken.tx_hash, "authorization_void")
                if known is not None:
                    return known
            return await self._send(taken)

    async def _send(self, action: Action) -> Action:
        payment = SignedPayment(2, action.document, action.requirements)
        try:
            outcome = await self._facilitator.settle(payment)
        except FacilitatorError as error:
            if action.in_doubt:
                await self._postpone(action, str(error))
            else:
                await self._ledger.fail(action, "facilitator_unavailable")
            raise
        except Exception:  # unforeseen, so nobody knows how far it came
            log.exception("%s %d failed", action.kind, action.id)
            outcome = Unknown("unexpected_error")
        match outcome:
            case Settled(tx_hash):
                known = await self._confirmed(action, tx_hash)
                return known or await self._postpone(action, "unconfirmed", tx_hash)
            case Refused(code):
                return await self._refused(action, code)
            case Unknown(code, sent):
                known = await self._known(action, sent, code)
                return known or await self._postpone(action, code, sent)

    async def _refused(self, action: Action, code: str) -> Action:
        """Nothing was sent now; for what may have been sent before, the chain is asked."""
        log.info("%s %d is refused: %s", action.kind, action.id, code)
        if action.in_doubt or action.kind in ("deposit", "settle"):
            known = await self._known(action, action.tx_hash, code)
            if known is not None:
                return known
        if action.in_doubt and action.kind in ("deposit", "refund"):
            return await self._postpone(action, code)
        return await self._ledger.fail(action, code)

    async def _confirmed(self, action: Action, tx_hash: str) -> Action | None:
        """What the chain shows of a transaction that is said to be done, once it shows it."""
        pause, deadline = LOOK_LEAST, time.monotonic() + self._wait
        while True:
            known = await self._known(action, tx_hash, "reverted")
            if known is not None or time.monotonic() + pause > deadline:
                return known
            await asyncio.sleep(pause)
            pause = min(LOOK_MOST, 2 * pause)

    async def _known(self, action: Action, sent: str | None, code: str) -> Action | None:
        """Record what the chain knows of an action; ``None`` while it does not know or answer."""
        try:
            finding = await self._proofs.of(action, sent)
        except ChainUnavailable as error:
            log.warning("%s %d cannot be looked up: %s", action.kind, action.id, error)
            return None
        if finding.kind == "done":
            settled = await self._ledger.settle(action, finding.tx_hash, finding.chain)
            log.info("%s %d is done in %s", action.kind, action.id, settled.tx_hash)
            await self._look_again(settled)
            return settled
        if finding.kind == "void" or (finding.kind == "reverted" and not action.in_doubt):
            return await self._ledger.fail(action, code)
        return None

    async def _look_again(self, action: Action) -> None:
        """Bring what an action changed into the mirror; whoever needs it looks once more."""
        ids = claimed_by(action) if action.kind == "claim" else [action.channel_id]
        try:
            found = [await self._channels.find(i) for i in ids if i is not None]
            await self._mirror.refresh_many([c for c in found if c is not None])
        except XByteError as error:
            log.warning(
                "%s %d is done; its channels are not read: %s", action.kind, action.id, error
            )

    async def _postpone(self, action: Action, reason: str, sent: str | None = None) -> Action:
        age = self._clock() - action.created_at
        delay = min(BACKOFF_MOST, max(BACKOFF_LEAST, age / 2))  # about double each time
        return await self._ledger.postpone(action, reason, delay=delay, in_doubt=True, tx_hash=sent)

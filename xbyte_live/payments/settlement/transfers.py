"""Part: transfers: brings charges by ``exact`` to the chain, on request and in the background."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from xbyte_live.errors import ChainUnavailable, XByteError
from xbyte_live.evm.authorizations import ChainReader, Transfer
from xbyte_live.payments.facilitators.remote import Facilitator, SignedPayment
from xbyte_live.payments.facilitators.transfer_batcher import TransferBatcher
from xbyte_live.payments.ledger.charge import Charge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.attempts import Attempts, Proof, Why

CLOCK_SKEW = 15  # seconds a block's time may differ from ours

log = logging.getLogger(__name__)

_IDLE = 3  # looks that are left out while nothing waits: whoever queues a charge wakes us


class Transfers:
    """Moves charges on request and, in ``run``, those that are due.

    ``chains`` maps CAIP-2 networks to their readers, ``lease`` is how many seconds one attempt
    may take, ``parallel`` how many run at the same time, ``queue`` how many may wait. With a
    ``batcher`` those that are due go to the chain together.
    """

    def __init__(
        self,
        ledger: ChargeLedger,
        facilitator: Facilitator,
        chains: Mapping[str, ChainReader],
        *,
        lease: float,
        parallel: int,
        queue: int,
        batcher: TransferBatcher | None = None,
        interval: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._parallel = parallel
        self._queue = queue
        self._batcher = batcher
        self._interval = interval
        self._rows = _ChargeRows(ledger, chains)
        self._attempts = Attempts(
            self._rows, facilitator, lease=lease, wait=None, parallel=parallel, clock=clock
        )
        self._backlog = 0  # charges in the ledger that wait, when last looked
        self._wake = asyncio.Event()
        self.lease = lease

    @property
    def has_room(self) -> bool:
        """Whether one more payment may wait for the chain."""
        return self._attempts.under_way + self._backlog < self._queue

    async def transfer(self, charge: Charge) -> Charge:
        """Try once to move a charge; parallel callers share one attempt.

        The attempt goes on when the caller is cancelled. Returns the charge as it then stands:
        ``settled``, ``failed``, or still open. Raises ``FacilitatorError`` when nothing could
        be sent, and ``DatabaseUnavailable``.
        """
        return await self._attempts.do(charge)

    def wake(self) -> None:
        """Look now: a charge was queued."""
        self._wake.set()

    async def run(self) -> None:
        """Move what is due, for ever; what fails is logged and tried again later."""
        while True:
            self._wake.clear()
            due = await self._look()
            batches = self._batches(due)
            together = {charge.id for batch in batches for charge in batch}
            went_well = await asyncio.gather(
                *(self._transfer_batch(batch) for batch in batches),
                *(self._transfer_due(charge) for charge in due if charge.id not in together),
            )
            if len(due) < self._parallel or not all(went_well):
                busy = bool(due) or self._backlog > 0
                await self._rest(self._interval if busy else self._interval * _IDLE)

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        await self._attempts.drain()

    async def _look(self) -> list[Charge]:
        try:
            self._backlog = await self._ledger.queued()
            return await self._ledger.due(self._parallel)
        except XByteError as error:
            log.error("transfers cannot read the ledger: %s", error)
        except Exception:
            log.exception("transfers cannot read the ledger")
        return []

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _transfer_due(self, charge: Charge) -> bool:
        """Send what was delivered; for what was not, only learn whether it moved.

        Nobody is charged in the background for bytes that nobody asks for any more. Returns
        whether that was possible: one charge that is not must not end the work on the others.
        """
        try:
            if charge.delivered:
                await self._attempts.do(charge)
            elif not charge.in_doubt:
                await self._ledger.fail(charge, "abandoned")
            else:
                await self._attempts.look_up(charge)
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
            fresh = charge.delivered and not charge.in_doubt
            if (
                fresh
                and not self._attempts.is_under_way(charge)
                and self._batcher.can_send(self._rows.payment(charge))
            ):
                found[charge.network].append(charge)
        return [charges for charges in found.values() if len(charges) > 1]

    async def _transfer_batch(self, charges: Sequence[Charge]) -> bool:
        """Whether they could be attempted."""
        if self._batcher is None:
            return False
        try:
            await self._attempts.do_together(charges, self._batcher)
        except XByteError as error:
            log.warning("%d charges stay open: %s", len(charges), error)
            return False
        except Exception:
            log.exception("%d charges stay open", len(charges))
            return False
        return True


class _ChargeRows:
    """Charges as the engine attempts them."""

    def __init__(self, ledger: ChargeLedger, chains: Mapping[str, ChainReader]) -> None:
        self._ledger = ledger
        self._chains = dict(chains)

    async def get(self, row_id: int) -> Charge | None:
        return await self._ledger.get(row_id)

    async def begin_attempt(self, row_id: int, *, lease: float) -> Charge | None:
        return await self._ledger.begin_attempt(row_id, lease=lease)

    async def settle(self, row: Charge, proof: Proof) -> Charge:
        return await self._ledger.settle(row, proof.tx_hash or "")

    async def fail(self, row: Charge, error: str) -> Charge:
        return await self._ledger.fail(row, error)

    async def postpone(
        self, row: Charge, error: str, *, delay: float, in_doubt: bool, sent: str | None
    ) -> Charge:
        """A charge names a transaction only once that has moved the money."""
        return await self._ledger.postpone(row, error, delay=delay, in_doubt=in_doubt)

    def payment(self, row: Charge) -> SignedPayment:
        return SignedPayment(row.document["x402Version"], row.document, row.requirements)

    async def prove(self, row: Charge, sent: str | None) -> Proof:
        chain = self._chains.get(row.network)
        if chain is None:
            raise ChainUnavailable(f"no RPC node is known for {row.network}; add it to networks")
        transfer = Transfer(
            asset=row.asset,
            payer=row.payer,
            pay_to=row.pay_to,
            amount=row.amount,
            nonce=row.nonce,
            valid_before=row.valid_before,
            not_before=row.created_at - CLOCK_SKEW,
        )
        fate = await chain.fate(transfer, sent)
        if fate.kind != "moved":
            return Proof(fate.kind)
        return Proof("done", fate.tx_hash) if fate.tx_hash else Proof("open")

    def fails(self, row: Charge, why: Why) -> bool:
        """Bytes that left are never given up for want of a facilitator."""
        return why == "void" or not (row.in_doubt or (why == "unsent" and row.delivered))

    def is_shared(self, row: Charge) -> bool:
        return False

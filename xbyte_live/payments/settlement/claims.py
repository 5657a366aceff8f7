"""Part: claims, payouts and idle refunds: does what is due for channels.

Run by the leader alone. Claims go by time, by value, and at once for a channel whose payer is
about to empty it.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from xbyte_live.errors import PaymentRefused, XByteError
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.claims import ClaimLedger, PayoutAccount
from xbyte_live.payments.settlement.channel_actions import Actions
from xbyte_live.payments.settlement.proofs import claimed_by

AGAIN = 30.0  # seconds until something that could not be done is tried again
REFUSED_AGAIN = 3600.0  # the same for an idle channel whose refund was refused
REFUNDS_AT_ONCE = 20
DUE_AT_ONCE = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """When to act: amounts in atomic units, times in seconds; ``idle_refund`` 0 is never.

    ``look`` is how often to see what is due; a refund of less than ``least_refund`` is not
    worth its gas.
    """

    claim_interval: float
    claim_threshold: int
    settle_interval: float
    idle_refund: float
    least_refund: int
    look: float


class Claims:
    """Does what is due, in ``run``; ``claim_now`` and ``pay_out_now`` do not wait until it is."""

    def __init__(
        self,
        ledger: ClaimLedger,
        rows: ActionLedger,
        actions: Actions,
        policy: ClaimPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._rows = rows
        self._actions = actions
        self._policy = policy
        self._clock = clock
        self._held: dict[object, float] = {}  # what is not tried before then
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: a payer is about to empty a channel."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is due, for ever; what fails is logged and tried again later."""
        while True:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(self._policy.look):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Do what is due now."""
        for step in (
            self._claim_leaving,
            self._look_after,
            self._claim_due,
            self._pay_out_due,
            self._refund_idle,
        ):
            await self._try(step())
        now = self._clock()
        self._held = {key: until for key, until in self._held.items() if until > now}

    async def claim_now(self, network: str | None = None) -> list[Action]:
        """Claim all there is (on one network); raises as ``Actions.claim`` does."""
        done: list[Action] = []
        for found in await self._ledger.unclaimed():
            payee = found.payee
            if network in (None, payee.network):
                done += await self._claim(payee)
        return done

    async def pay_out_now(self, network: str | None = None) -> list[Action]:
        """Pay out all that is claimed (on one network); raises as ``Actions.pay_out`` does."""
        found = [
            await self._actions.pay_out(payee.network, payee.pay_to, payee.asset)
            for payee in await self._ledger.payees()
            if network in (None, payee.network)
        ]
        return [action for action in found if action is not None]

    async def _claim_leaving(self) -> None:
        leaving = await self._uncovered(await self._ledger.leaving())
        now = self._clock()
        due = [c for c in leaving if self._held.get(c.channel_id, 0.0) <= now]
        if not due:
            return
        log.warning("%d channels are about to be emptied; what they owe is claimed", len(due))
        by_network: dict[str, list[Channel]] = defaultdict(list)
        for channel in due:
            by_network[channel.network].append(channel)
        for channels in by_network.values():
            await self._try(self._actions.claim(channels, forced=True))
        for channel in due:
            if channel.channel_id in self._actions.unclaimable:
                self._hold(channel.channel_id, AGAIN)

    async def _look_after(self) -> None:
        due = await self._rows.due(DUE_AT_ONCE)
        await asyncio.gather(*(self._try(self._actions.look_after(action)) for action in due))

    async def _claim_due(self) -> None:
        unclaimed = await self._ledger.unclaimed()
        if not unclaimed:
            return
        last, oldest = await self._rows.last("claim"), await self._ledger.oldest()
        for found in unclaimed:
            payee = found.payee
            since = last.get(_key(payee), oldest.get(payee.network, 0.0))
            is_due = self._clock() - since >= self._policy.claim_interval
            if (is_due or found.amount >= self._policy.claim_threshold) and self._may(
                ("claim", payee), min(AGAIN, self._policy.claim_interval)
            ):
                await self._try(self._claim(payee))

    async def _pay_out_due(self) -> None:
        last, oldest = await self._rows.last("settle"), await self._ledger.oldest()
        for payee in await self._ledger.payees():
            since = last.get(_key(payee), oldest.get(payee.network, 0.0))
            if self._clock() - since >= self._policy.settle_interval and self._may(
                ("settle", payee), self._policy.settle_interval
            ):
                done = await self._try(
                    self._actions.pay_out(payee.network, payee.pay_to, payee.asset)
                )
                if not done:
                    self._hold(("settle", payee), min(AGAIN, self._policy.settle_interval))

    async def _refund_idle(self) -> None:
        if not self._policy.idle_refund:
            return
        idle = await self._ledger.idle(
            before=self._clock() - self._policy.idle_refund,
            least=self._policy.least_refund,
            limit=REFUNDS_AT_ONCE,
        )
        for channel in idle:
            if self._may(("refund", channel.channel_id), REFUSED_AGAIN):
                rest = channel.chain.balance - channel.charged
                await self._try(self._actions.refund(channel, rest))

    async def _claim(self, payee: PayoutAccount) -> list[Action]:
        channels = await self._ledger.claimable(payee.network, pay_to=payee.pay_to)
        of_token = [c for c in channels if c.config.token == payee.asset]
        return await self._actions.claim(await self._uncovered(of_token))

    async def _uncovered(self, channels: Sequence[Channel]) -> list[Channel]:
        """Those of which more can be claimed than what is on its way."""
        covered: dict[str, int] = {}
        for action in await self._rows.pending("claim"):
            for channel_id, total in claimed_by(action).items():
                covered[channel_id] = max(total, covered.get(channel_id, 0))
        return [c for c in channels if c.claimable > covered.get(c.channel_id, 0)]

    def _may(self, key: object, pause: float) -> bool:
        """Whether something may be tried now; not again within ``pause`` seconds."""
        if self._held.get(key, 0.0) > self._clock():
            return False
        self._hold(key, pause)
        return True

    def _hold(self, key: object, pause: float) -> None:
        self._held[key] = self._clock() + pause

    async def _try(self, work: Awaitable[object]) -> bool:
        """Whether something worked: one thing that does not must not keep the others."""
        try:
            await work
        except PaymentRefused as error:
            log.info("a refund of an idle channel is not made: %s", error)
        except XByteError as error:
            log.warning("settlement is held up: %s", error)
            return False
        except Exception:
            log.exception("settlement is held up")
            return False
        return True


def _key(payee: PayoutAccount) -> tuple[str, str, str]:
    return payee.network, payee.asset, payee.pay_to

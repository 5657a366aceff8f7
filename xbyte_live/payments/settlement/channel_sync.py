"""Part: reads the state of channels from the chain into the ledger."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from xbyte_live.errors import ChainUnavailable, PaymentRefused
from xbyte_live.evm.channel_contract import ChannelChain, ChannelState
from xbyte_live.evm.channels import CHANNEL_NOT_FOUND, ChannelConfig
from xbyte_live.payments.ledger.channel import Channel, OnChain
from xbyte_live.payments.ledger.channels import ChannelLedger

READ_AT_ONCE = 500  # channels

_NEVER_OPENED = ChannelState(0, 0, 0, 0)


class ChannelSync:
    """Reads channels from the chain into the ledger; ``chains`` maps CAIP-2 networks to readers.

    Callers that come while a read is under way share the next one, so an answer is never older
    than its question.
    """

    def __init__(
        self,
        ledger: ChannelLedger,
        chains: Mapping[str, ChannelChain],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._chains = dict(chains)
        self._clock = clock
        self._waiting: dict[str, dict[str, _Question]] = {network: {} for network in chains}
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def refresh(self, network: str, config: ChannelConfig, channel_id: str) -> Channel:
        """Read one channel and record it.

        Raises ``PaymentRefused`` for one that neither chain nor ledger knows, so that nobody
        fills the ledger with channels that are none; ``ChainUnavailable``,
        ``DatabaseUnavailable``.
        """
        if network not in self._chains:
            raise ChainUnavailable(f"no RPC node is known for {network}; add it to networks")
        waiting = self._waiting[network]
        question = waiting.get(channel_id)
        if question is None:
            question = waiting[channel_id] = _Question(config)
        if network not in self._reading:
            self._reading[network] = asyncio.create_task(
                self._read_waiting(network), name=f"read channels of {network}"
            )
        return await asyncio.shield(question.answer)

    async def refresh_many(self, channels: Sequence[Channel]) -> list[Channel]:
        """Read channels and record them, in their order; raises as ``refresh`` does."""
        tasks = [self.refresh(c.network, c.config, c.channel_id) for c in channels]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in found if isinstance(answer, Channel)]

    async def _read_waiting(self, network: str) -> None:
        waiting = self._waiting[network]
        try:
            while waiting:
                await asyncio.sleep(0)  # those who ask in this turn of the loop come along
                some = dict(list(waiting.items())[:READ_AT_ONCE])
                for channel_id in some:
                    del waiting[channel_id]
                await self._read(network, some)
        finally:
            del self._reading[network]

    async def _read(self, network: str, questions: "Mapping[str, _Question]") -> None:
        at = self._clock()
        try:
            states = await self._chains[network].states(list(questions))
        except Exception as error:
            for question in questions.values():
                question.fail(error)
            return
        await asyncio.gather(
            *(
                self._record(network, channel_id, question, states[channel_id], at)
                for channel_id, question in questions.items()
            )
        )

    async def _record(
        self, network: str, channel_id: str, question: "_Question", state: ChannelState, at: float
    ) -> None:
        try:
            if state == _NEVER_OPENED and await self._ledger.find(channel_id) is None:
                raise PaymentRefused(CHANNEL_NOT_FOUND)
            channel = await self._ledger.sync(
                network, question.config, channel_id, on_chain(state, at)
            )
        except Exception as error:
            question.fail(error)
        else:
            question.answer.set_result(channel)


class _Question:
    """Somebody wants to know a channel's state as it is from now on."""

    def __init__(self, config: ChannelConfig) -> None:
        self.config = config
        self.answer: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # known, even if whoever asked has gone


def on_chain(state: ChannelState, at: float) -> OnChain:
    """A channel's state as the ledger keeps it, read at that Unix time."""
    return OnChain(
        balance=state.balance,
        claimed=state.claimed,
        withdraw_requested_at=state.withdraw_requested_at,
        refund_nonce=state.refund_nonce,
        at=at,
    )

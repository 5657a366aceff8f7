"""Part: what the chain says became of an action; nothing else is believed of one that was sent."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.evm.channel_contract import ChannelState, Name, Receiver
from xbyte_live.evm.channels import (
    COLLECTOR,
    Deposit,
    channel_id_of,
    deposit_nonce,
    read_channel_payment,
    read_config,
)
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.ledger.channel import OnChain
from xbyte_live.payments.settlement.channel_sync import on_chain

CLOCK_SKEW = 15.0  # seconds a block's time may differ from ours
LONGEST_DEPOSIT = 604_800  # seconds before its end in which a deposit's transfer is looked for


class ChannelReader(Protocol):
    """What actions read from one network's contract; all raise ``ChainUnavailable``."""

    async def states(self, channel_ids: Sequence[str]) -> dict[str, ChannelState]:
        """The state of each of these channels."""

    async def receiver(self, pay_to: str, token: str) -> Receiver:
        """The totals of a payee and token."""

    async def landed(self, tx_hash: str) -> Literal["done", "reverted", "unknown"]:
        """What became of a transaction."""

    async def emitted(self, tx_hash: str, name: Name, subject: str) -> bool:
        """Whether a transaction left this event."""

    async def trace(self, name: Name, *subjects: str, since: float) -> str | None:
        """The transaction of the newest such event."""

    async def gas_price(self) -> int:
        """Wei that a unit of gas costs now."""


class FateReader(Protocol):
    """What actions read of EIP-3009 authorizations on one network."""

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        """What became of an authorization; raises ``ChainUnavailable``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of an action.

    ``done`` (with its transaction, where found, and for a refund the channel after it);
    ``open``: may still happen; ``reverted``: open, and the transaction known of has failed;
    ``void``: never will happen.
    """

    kind: Literal["done", "open", "reverted", "void"]
    tx_hash: str | None = None
    chain: OnChain | None = None


class Proofs:
    """Looks actions up; ``chains`` and ``fates`` map CAIP-2 networks to readers."""

    def __init__(
        self,
        chains: Mapping[str, ChannelReader],
        fates: Mapping[str, FateReader],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chains = dict(chains)
        self._fates = dict(fates)
        self._clock = clock

    async def of(self, action: Action, sent: str | None = None) -> Finding:
        """What became of an action, ``sent`` being its transaction where known.

        Raises ``ChainUnavailable``.
        """
        chain = self._chains.get(action.network)
        if chain is None:
            raise ChainUnavailable(f"no RPC node is known for {action.network}")
        sent = sent or action.tx_hash
        match action.kind:
            case "deposit":
                return await self._deposit(action, chain, sent)
            case "refund":
                return await self._refund(action, chain, sent)
            case "claim":
                return await self._claim(action, chain, sent)
            case _:
                return await self._settle(action, chain, sent)

    async def _deposit(self, action: Action, chain: ChannelReader, sent: str | None) -> Finding:
        channel_id, deposit = deposit_of(action)
        transfer = Transfer(
            asset=action.asset,
            payer=action.payer or "",
            pay_to=COLLECTOR.lower(),
            amount=deposit.amount,
            nonce=deposit_nonce(channel_id, deposit.salt),
            valid_before=deposit.valid_before,
            not_before=max(deposit.valid_after, deposit.valid_before - LONGEST_DEPOSIT)
            - CLOCK_SKEW,
        )
        fate = await self._fates[action.network].fate(transfer, sent)
        if fate.kind != "moved" or fate.tx_hash is None:
            return Finding("open" if fate.kind == "moved" else fate.kind)
        if await chain.landed(fate.tx_hash) != "done":
            return Finding("open")
        there = await chain.emitted(fate.tx_hash, "Deposited", channel_id)
        return Finding("done", fate.tx_hash) if there else Finding("void")

    async def _refund(self, action: Action, chain: ChannelReader, sent: str | None) -> Finding:
        channel_id, at = action.channel_id or "", self._clock()
        state = (await chain.states([channel_id]))[channel_id]
        if state.refund_nonce <= refund_nonce_of(action):
            return await _not_yet(chain, sent)
        tx_hash = await _transaction(chain, action, sent, "Refunded", channel_id)
        return Finding("done", tx_hash, on_chain(state, at))

    async def _claim(self, action: Action, chain: ChannelReader, sent: str | None) -> Finding:
        totals = claimed_by(action)
        states = await chain.states(list(totals))
        if any(states[channel_id].claimed < total for channel_id, total in totals.items()):
            return await _not_yet(chain, sent)
        tx_hash = await _transaction(chain, action, sent, "Claimed", next(iter(totals)))
        return Finding("done", tx_hash)

    async def _settle(self, action: Action, chain: ChannelReader, sent: str | None) -> Finding:
        receiver = await chain.receiver(action.pay_to, action.asset)
        if receiver.settled < settled_by(action):
            return await _not_yet(chain, sent)
        subjects = (action.pay_to, action.asset)
        return Finding("done", await _transaction(chain, action, sent, "Settled", *subjects))


async def _not_yet(chain: ChannelReader, sent: str | None) -> Finding:
    failed = sent is not None and await chain.landed(sent) == "reverted"
    return Finding("reverted" if failed else "open")


async def _transaction(
    chain: ChannelReader, action: Action, sent: str | None, name: Name, *subjects: str
) -> str | None:
    """The transaction that did an action: the one known of, else the newest with its event."""
    try:
        if sent is not None and await chain.landed(sent) == "done":
            return sent
        return await chain.trace(name, *subjects, since=action.created_at - CLOCK_SKEW)
    except ChainUnavailable:
        return None


def deposit_of(action: Action) -> tuple[str, Deposit]:
    """The channel and the deposit of such an action."""
    payment = read_channel_payment(action.document["payload"])
    if payment.deposit is None:
        raise AssertionError("a deposit action holds no deposit")
    return payment.voucher.channel_id, payment.deposit


def refund_nonce_of(action: Action) -> int:
    """The refund nonce of such an action."""
    return int(action.document["payload"]["refundNonce"])


def claimed_by(action: Action) -> dict[str, int]:
    """The totals that a claim brings its channels to."""
    chain_id = int(action.network.removeprefix("eip155:"))
    return {
        channel_id_of(read_config(row["voucher"]["channel"]), chain_id): int(row["totalClaimed"])
        for row in action.document["payload"]["claims"]
    }


def settled_by(action: Action) -> int:
    """What will have been paid out in all once such an action is done: the end of its identity."""
    return int(action.identity.rpartition(":")[2])

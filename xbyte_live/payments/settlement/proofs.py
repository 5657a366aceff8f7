"""Part: proofs: the effect of an action as the chain shows it; actions as they are attempted."""

import logging
import time
from collections.abc import Callable, Mapping

from xbyte_live.errors import ChainUnavailable, XByteError
from xbyte_live.evm.authorizations import ChainReader, Transfer
from xbyte_live.evm.channel_contract import ChannelChain, Name
from xbyte_live.evm.channels import (
    COLLECTOR,
    Deposit,
    channel_id_of,
    deposit_nonce,
    read_channel_payment,
    read_config,
)
from xbyte_live.payments.facilitators.remote import SignedPayment
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.settlement.attempts import Proof, Why
from xbyte_live.payments.settlement.channel_sync import ChannelSync, on_chain

CLOCK_SKEW = 15.0  # seconds a block's time may differ from ours
LONGEST_DEPOSIT = 604_800  # seconds before its end in which a deposit's transfer is looked for

log = logging.getLogger(__name__)


class Proofs:
    """Looks actions up; ``chains`` and ``fates`` map CAIP-2 networks to readers."""

    def __init__(
        self,
        chains: Mapping[str, ChannelChain],
        fates: Mapping[str, ChainReader],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chains = dict(chains)
        self._fates = dict(fates)
        self._clock = clock

    async def of(self, action: Action, sent: str | None = None) -> Proof:
        """The effect of an action, ``sent`` being its transaction where known.

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

    async def _deposit(self, action: Action, chain: ChannelChain, sent: str | None) -> Proof:
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
            return Proof("open" if fate.kind == "moved" else fate.kind)
        if await chain.landed(fate.tx_hash) != "done":
            return Proof("open")
        there = await chain.emitted(fate.tx_hash, "Deposited", channel_id)
        return Proof("done", fate.tx_hash) if there else Proof("void")

    async def _refund(self, action: Action, chain: ChannelChain, sent: str | None) -> Proof:
        channel_id, at = action.channel_id or "", self._clock()
        state = (await chain.states([channel_id]))[channel_id]
        if state.refund_nonce <= refund_nonce_of(action):
            return await _not_yet(chain, sent)
        tx_hash = await _transaction(chain, action, sent, "Refunded", channel_id)
        return Proof("done", tx_hash, on_chain(state, at))

    async def _claim(self, action: Action, chain: ChannelChain, sent: str | None) -> Proof:
        totals = claimed_by(action)
        states = await chain.states(list(totals))
        if any(states[channel_id].claimed < total for channel_id, total in totals.items()):
            return await _not_yet(chain, sent)
        tx_hash = await _transaction(chain, action, sent, "Claimed", next(iter(totals)))
        return Proof("done", tx_hash)

    async def _settle(self, action: Action, chain: ChannelChain, sent: str | None) -> Proof:
        receiver = await chain.receiver(action.pay_to, action.asset)
        if receiver.settled < settled_by(action):
            return await _not_yet(chain, sent)
        subjects = (action.pay_to, action.asset)
        return Proof("done", await _transaction(chain, action, sent, "Settled", *subjects))


class ActionRows:
    """Actions of channels as the engine attempts them."""

    def __init__(
        self,
        ledger: ActionLedger,
        channels: ChannelLedger,
        proofs: Proofs,
        channel_sync: ChannelSync,
    ) -> None:
        self._ledger = ledger
        self._channels = channels
        self._proofs = proofs
        self._channel_sync = channel_sync

    async def get(self, row_id: int) -> Action | None:
        """The action of that number."""
        return await self._ledger.get(row_id)

    async def begin_attempt(self, row_id: int, *, lease: float) -> Action | None:
        """Lease an action for so many seconds."""
        return await self._ledger.begin_attempt(row_id, lease=lease)

    async def settle(self, row: Action, proof: Proof) -> Action:
        """Record that an action is done, and bring its channels up to date."""
        settled = await self._ledger.settle(row, proof.tx_hash, proof.chain)
        ids = claimed_by(row) if row.kind == "claim" else [row.channel_id]
        try:
            found = [await self._channels.find(i) for i in ids if i is not None]
            await self._channel_sync.refresh_many([c for c in found if c is not None])
        except XByteError as error:  # whoever needs them reads them again
            log.warning("%s %d is done; its channels are not read: %s", row.kind, row.id, error)
        return settled

    async def fail(self, row: Action, error: str) -> Action:
        """Record that an action had no effect; a refund lets its reservation go."""
        return await self._ledger.fail(row, error)

    async def postpone(
        self, row: Action, error: str, *, delay: float, in_doubt: bool, sent: str | None
    ) -> Action:
        """Record that an action is still open."""
        return await self._ledger.postpone(row, error, delay=delay, in_doubt=in_doubt, tx_hash=sent)

    def payment(self, row: Action) -> SignedPayment:
        """The payload as it was signed."""
        return SignedPayment(2, row.document, row.requirements)

    async def prove(self, row: Action, sent: str | None) -> Proof:
        """Ask the chain for the effect."""
        return await self._proofs.of(row, sent)

    def fails(self, row: Action, why: Why) -> bool:
        """Claims and payouts that are refused may be given up: they are cumulative."""
        if why == "refused" and row.kind not in ("deposit", "refund"):
            return True
        return why == "void" or not row.in_doubt

    def is_shared(self, row: Action) -> bool:
        """Anybody may send a deposit that its payer signed, and anybody may pay out."""
        return row.kind in ("deposit", "settle")


async def _not_yet(chain: ChannelChain, sent: str | None) -> Proof:
    failed = sent is not None and await chain.landed(sent) == "reverted"
    return Proof("reverted" if failed else "open")


async def _transaction(
    chain: ChannelChain, action: Action, sent: str | None, name: Name, *subjects: str
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

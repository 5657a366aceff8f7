"""Part: deposits, claims, payouts and refunds of channels, as actions that are attempted.

Claims and payouts are cumulative: one that comes twice does nothing the second time, so a lost
one may be left.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xbyte_live.errors import ChainUnavailable, FacilitatorUnavailable, PaymentRefused
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.evm.channels import (
    BUSY,
    REFUND_NOTHING,
    ChannelConfig,
    ChannelPayment,
    Claim,
    Deposit,
    claim_digest,
    deposit_nonce,
)
from xbyte_live.evm.keys import Authorizer
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import Facilitator
from xbyte_live.payments.ledger.actions import Action, ActionLedger, Kind, NewAction
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.settlement.attempts import Attempts
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.proofs import ActionRows, Proofs, claimed_by
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS

BATCH = 100  # channels in one claim
PATIENCE = 30.0  # seconds an action may stay without an attempt before it is cleared up

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActionPolicy:
    """``lease``: seconds one attempt may take; ``wait``: until what was sent must be confirmed.

    ``max_gas_price`` is in wei, 0 for no cap; ``parallel``: transactions at the same time;
    ``patience``: seconds a payer waits for its deposit or refund, which then goes on alone.
    """

    lease: float
    wait: float
    max_gas_price: int
    parallel: int
    patience: float = 30.0


class Actions:
    """Does what channels need on chain; ``chains`` maps CAIP-2 networks to their readers.

    Each of ``authorizers`` signs claims and refunds of the channels that name it; for others the
    facilitator is to sign. ``unclaimable`` has the channels of which nothing could be
    claimed alone, with the code that was given.
    """

    def __init__(
        self,
        ledger: ActionLedger,
        channels: ChannelLedger,
        facilitator: Facilitator,
        chains: Mapping[str, ChannelChain],
        proofs: Proofs,
        channel_sync: ChannelSync,
        authorizers: Sequence[Authorizer],
        policy: ActionPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._channels = channels
        self._chains = dict(chains)
        self._channel_sync = channel_sync
        self._authorizers = {authorizer.address: authorizer for authorizer in authorizers}
        self._policy = policy
        self._attempts = Attempts(
            ActionRows(ledger, channels, proofs, channel_sync),
            facilitator,
            lease=policy.lease,
            wait=policy.wait,
            parallel=policy.parallel,
            clock=clock,
        )
        self._most: dict[str, int] = {}
        self.unclaimable: dict[str, str] = {}

    async def deposit(
        self,
        payment: ChannelPayment,
        *,
        network: str,
        asset: Asset,
        requirements: dict[str, Any],
        document: dict[str, Any],
    ) -> Action:
        """Move a deposit, once however often it comes; the ledger shows it when it is settled.

        Returns it ``settled``, ``failed`` with the x402 code, or ``pending``. Parallel callers
        share one attempt, which goes on when they are cancelled. Raises ``FacilitatorError``
        when nothing could be sent, ``ChainUnavailable`` and ``DatabaseUnavailable``.
        """
        deposit, config = payment.deposit, payment.config
        if deposit is None:
            raise AssertionError("a deposit is asked for and there is none")
        channel_id = payment.voucher.channel_id
        new = NewAction(
            kind="deposit",
            network=network,
            asset=asset.address.lower(),
            pay_to=config.receiver,
            payer=config.payer,
            channel_id=channel_id,
            identity=_deposit_identity(channel_id, deposit),
            amount=deposit.amount,
            document={"x402Version": 2, "accepted": requirements, "payload": payment.wire()},
            requirements=requirements,
        )
        opened = await self._ledger.open(new, patience=self._policy.lease + PATIENCE)
        action = await self._do(_there(opened.action), patience=self._policy.patience)
        if action.state == "settled":
            known = await self._channels.find(channel_id)
            if known is None or known.chain.at < (action.settled_at or 0.0):
                await self._see(network, config, channel_id)
        return action

    async def has_deposit(self, payment: ChannelPayment) -> bool:
        """Whether that deposit was taken on before and has not failed."""
        if payment.deposit is None:
            return False
        identity = _deposit_identity(payment.voucher.channel_id, payment.deposit)
        found = await self._ledger.find(identity)
        return found is not None and found.state != "failed"

    async def refund(self, channel: Channel, amount: int) -> Action:
        """Give an amount back to a channel's payer, reserved on it until that is known.

        Returns it ``settled``, ``failed`` with the x402 code, or ``pending``. Raises
        ``PaymentRefused`` while another refund is open, if one was made since the channel was
        read or if there is less to give, ``FacilitatorError`` when nothing could be sent,
        ``ChainUnavailable``.
        """
        await self._check_price(channel.network)
        fresh = await self._channel_sync.refresh(
            channel.network, channel.config, channel.channel_id
        )
        nonce = fresh.chain.refund_nonce
        if nonce != channel.chain.refund_nonce:
            raise PaymentRefused(BUSY)
        payload = {
            "type": "refund",
            "channelConfig": fresh.config.wire(),
            "voucher": fresh.voucher.wire(),
            "amount": str(amount),
            "refundNonce": str(nonce),
            "claims": [],
        }
        if signer := self._signer_of(fresh):
            payload["refundAuthorizerSignature"] = signer.sign_refund(
                fresh.channel_id, nonce, amount, _chain_id(fresh.network)
            )
        new = replace(
            _of(fresh, "refund", payload, amount),
            payer=fresh.config.payer,
            channel_id=fresh.channel_id,
            identity=_refund_identity(fresh.channel_id, nonce),
        )
        opened = await self._ledger.open_refund(
            new, patience=self._policy.lease + PATIENCE, read_at=fresh.chain.at
        )
        if opened.action is None:
            raise PaymentRefused(BUSY if opened.refusal == "busy" else REFUND_NOTHING)
        return await self._do(opened.action, patience=self._policy.patience)

    async def last_refund(self, channel: Channel) -> Action | None:
        """The refund of a channel that is open or, if none is, the last that was settled.

        One that is open is gone on with first.
        """
        nonce = channel.chain.refund_nonce
        for number in (nonce, nonce - 1):
            found = await self._ledger.find(_refund_identity(channel.channel_id, number))
            if found is not None and found.state != "failed":
                return await self._do(found, patience=self._policy.patience)
        return None

    async def claim(self, channels: Sequence[Channel], *, forced: bool = False) -> list[Action]:
        """Claim all that may be claimed of these channels, in batches.

        A batch that is refused is halved until the channel that spoils it stands alone, which is
        then in ``unclaimable``. ``forced`` takes no notice of the gas price. Raises
        ``FacilitatorError`` when nothing could be sent, ``ChainUnavailable``.
        """
        done: list[Action] = []
        for batch in self._batches(channels):
            if not forced:
                await self._check_price(batch[0].network)
            bad: dict[str, str] = {}
            found = await self._claim(batch, bad)
            if len(batch) > 1 and len(bad) == len(batch):  # not the fault of one channel
                log.error(
                    "nothing of %d channels could be claimed: %s", len(batch), set(bad.values())
                )
            else:
                self.unclaimable |= bad
            done += found
        return done

    async def pay_out(self, network: str, pay_to: str, asset: str) -> Action | None:
        """Pay a payee what was claimed for it; ``None`` if there is nothing.

        ``asset`` is a token's address. Raises as ``claim`` does.
        """
        totals = await self._chain(network).receiver(pay_to, asset)
        if totals.claimed <= totals.settled:
            return None
        await self._check_price(network)
        payload = {"type": "settle", "receiver": pay_to, "token": asset}
        identity = f"settle:{network}:{asset}:{pay_to}:{totals.claimed}"
        amount = totals.claimed - totals.settled
        new = replace(_new("settle", network, asset, pay_to, payload, amount), identity=identity)
        opened = await self._ledger.open(new, patience=self._policy.lease + PATIENCE, again=True)
        return await self._do(_there(opened.action))

    async def look_after(self, action: Action) -> Action:
        """Go on with an action that was left, in doubt or not begun.

        What nobody asks for any more is not begun; a deposit that was sent is only looked up,
        for whoever signed it may have gone, unless it was charged; all else is sent again.
        """
        if not action.in_doubt:
            return await self._ledger.fail(action, "abandoned")
        if action.kind == "deposit" and not await self._is_short(action):
            return await self._attempts.look_up(action)
        return await self._do(action)

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        await self._attempts.drain()

    async def _do(self, action: Action, *, patience: float | None = None) -> Action:
        """Try an action that is open."""
        if action.state != "pending":
            return action
        return await self._attempts.do(action, patience=patience)

    # Claims

    def _batches(self, channels: Sequence[Channel]) -> list[list[Channel]]:
        """Channels that may be claimed together; those that spoilt a batch before alone."""
        together: dict[tuple[str, ...], list[Channel]] = defaultdict(list)
        batches: list[list[Channel]] = []
        for channel in channels:
            config = channel.config
            key = (channel.network, config.token, config.receiver, config.receiver_authorizer)
            if channel.channel_id in self.unclaimable:
                batches.append([channel])
            else:
                together[key].append(channel)
        for found in together.values():
            most = self._most.get(found[0].network, BATCH)
            batches += [found[at : at + most] for at in range(0, len(found), most)]
        return batches

    async def _claim(self, channels: Sequence[Channel], bad: dict[str, str]) -> list[Action]:
        claims = {c.channel_id: claim for c in channels if (claim := _claim_of(c)) is not None}
        if not claims:
            return []
        before = {c.channel_id: c.chain.claimed for c in channels}
        amount = sum(claim.total - before[channel_id] for channel_id, claim in claims.items())
        action = await self._do(await self._open_claim(channels[0], list(claims.values()), amount))
        if action.state == "settled":
            for channel_id in claims:
                self.unclaimable.pop(channel_id, None)
        if action.state != "failed":
            return [action]
        left = [c for c in channels if c.channel_id in claims]
        return [action, *await self._halve(left, action, bad)]

    async def _open_claim(self, first: Channel, claims: Sequence[Claim], amount: int) -> Action:
        chain_id = _chain_id(first.network)
        payload: dict[str, Any] = {"type": "claim", "claims": [claim.wire() for claim in claims]}
        if signer := self._signer_of(first):
            payload["claimAuthorizerSignature"] = signer.sign_claims(claims, chain_id)
        new = replace(
            _of(first, "claim", payload, amount),
            identity="claim:0x" + claim_digest(claims, chain_id).hex(),
        )
        opened = await self._ledger.open(new, patience=self._policy.lease + PATIENCE, again=True)
        return _there(opened.action)

    async def _halve(
        self, channels: Sequence[Channel], failed: Action, bad: dict[str, str]
    ) -> list[Action]:
        """Claim in two parts what could not be claimed together; what fails alone is ``bad``."""
        fresh, code = await self._channel_sync.refresh_many(channels), failed.error or "unknown"
        if len(fresh) > 1:
            half = len(fresh) // 2
            if not code.endswith("simulation_failed"):  # it went out, and may have been too long
                self._most[failed.network] = half
            first = await self._claim(fresh[:half], bad)
            return [*first, *await self._claim(fresh[half:], bad)]
        (channel,) = fresh
        again = _claim_of(channel)
        if again is None:
            self.unclaimable.pop(channel.channel_id, None)
            return []
        if again.total != claimed_by(failed).get(channel.channel_id):
            return await self._claim(fresh, bad)  # it holds less than we thought: claim that
        bad[channel.channel_id] = code
        log.error(
            "%d units of channel %s cannot be claimed (%s)",
            again.total - channel.chain.claimed,
            channel.channel_id,
            code,
        )
        return []

    async def _see(self, network: str, config: ChannelConfig, channel_id: str) -> None:
        """Bring a channel that is on the chain into the ledger."""
        try:
            await self._channel_sync.refresh(network, config, channel_id)
        except PaymentRefused:
            raise ChainUnavailable(
                "the RPC node does not know the deposit yet; try again shortly"
            ) from None

    async def _is_short(self, action: Action) -> bool:
        """Whether a channel was charged for a deposit that the chain has taken back since."""
        channel = await self._channels.find(action.channel_id or "")
        return channel is not None and channel.charged > channel.chain.balance

    async def _check_price(self, network: str) -> None:
        if not self._policy.max_gas_price:
            return
        price = await self._chain(network).gas_price()
        if price > self._policy.max_gas_price:
            raise FacilitatorUnavailable(
                f"gas costs more on {network} than max_gas_price allows; it is tried again later"
            )

    def _chain(self, network: str) -> ChannelChain:
        if network not in self._chains:
            raise ChainUnavailable(f"no RPC node is known for {network}; add it to networks")
        return self._chains[network]

    def _signer_of(self, channel: Channel) -> Authorizer | None:
        return self._authorizers.get(channel.config.receiver_authorizer)


def _claim_of(channel: Channel) -> Claim | None:
    """What may be claimed of a channel as the chain has it; ``None`` if that is nothing.

    More than the balance cannot be claimed: the payer has taken the rest.
    """
    total = min(channel.claimable, channel.chain.balance)
    if total < channel.claimable:
        log.error(
            "channel %s holds %d units less than it was charged",
            channel.channel_id,
            channel.claimable - total,
        )
    if total <= channel.chain.claimed or not channel.voucher.is_signed:
        return None
    return replace(channel.claim, total=total)


def _new(
    kind: Kind, network: str, asset: str, pay_to: str, payload: dict[str, Any], amount: int
) -> NewAction:
    """Something that no payer asked for in an offer of ours, in its wire form."""
    requirements: dict[str, Any] = {
        "scheme": SCHEME_CHANNELS,
        "network": network,
        "asset": asset,
        "amount": "0",
        "payTo": pay_to,
        "maxTimeoutSeconds": 0,
        "extra": {},
    }
    document = {"x402Version": 2, "accepted": requirements, "payload": payload}
    return NewAction(kind, network, asset, pay_to, "", amount, document, requirements)


def _of(channel: Channel, kind: Kind, payload: dict[str, Any], amount: int) -> NewAction:
    config = channel.config
    return _new(kind, channel.network, config.token, config.receiver, payload, amount)


def _deposit_identity(channel_id: str, deposit: Deposit) -> str:
    return f"deposit:{channel_id}:{deposit_nonce(channel_id, deposit.salt)}"


def _refund_identity(channel_id: str, nonce: int) -> str:
    return f"refund:{channel_id}:{nonce}"


def _chain_id(network: str) -> int:
    return int(network.removeprefix("eip155:"))


def _there(action: Action | None) -> Action:
    if action is None:
        raise AssertionError("an action was neither found nor made")
    return action

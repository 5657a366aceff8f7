"""Part: gives back on chain what sessions bought with ``exact`` have left.

A return is an EIP-3009 transfer from the payee to the payer whose nonce is worked out from the
session: the token takes it once, however often it is signed and sent. So it is sent again until
the chain shows it, and never given up.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from eth_utils.address import to_checksum_address

from xbyte_live.errors import ChainUnavailable, FacilitatorError, XByteError
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.evm.keys import Payee
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import (
    Facilitator,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
)
from xbyte_live.payments.ledger.actions import Action, ActionLedger

VALIDITY = 3600  # seconds a transfer that was signed may be sent
CLOCK_SKEW = 15  # seconds a block's time may differ from ours
AT_ONCE = 16
BACKOFF_LEAST, BACKOFF_MOST = 2.0, 3600.0  # seconds

log = logging.getLogger(__name__)


class Chain(Protocol):
    """What is read from one network."""

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        """What became of a transfer; raises ``ChainUnavailable``."""


class Returns:
    """Sends what is due; ``lease`` is how many seconds one attempt may take."""

    def __init__(
        self,
        ledger: ActionLedger,
        payee: Payee,
        facilitator: Facilitator,
        chains: Mapping[str, Chain],
        assets: Sequence[Asset],
        *,
        lease: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._payee = payee
        self._facilitator = facilitator
        self._chains = dict(chains)
        self._assets = {(asset.network, asset.address.lower()): asset for asset in assets}
        self._lease = lease
        self._clock = clock

    async def send_due(self) -> int:
        """Try every return that is due once; how many there were."""
        due = await self._ledger.due(AT_ONCE, returns=True)
        await asyncio.gather(*(self._try(action) for action in due))
        return len(due)

    async def _try(self, action: Action) -> None:
        try:
            taken = await self._ledger.begin_attempt(action.id, lease=self._lease)
            if taken is not None:
                await self._attempt(taken)
        except XByteError as error:
            log.warning("return %d stays open: %s", action.id, error)
        except Exception:
            log.exception("return %d stays open", action.id)

    async def _attempt(self, action: Action) -> None:
        asset = self._assets.get((action.network, action.asset))
        if asset is None or action.pay_to != self._payee.address:
            log.error("return %d cannot be made: the key or the token is not set", action.id)
            await self._postpone(action, "no_key")
            return
        if action.in_doubt and await self._is_done(action, action.tx_hash):
            return
        try:
            outcome = await self._facilitator.settle(self._signed(action, asset))
        except FacilitatorError as error:
            await self._postpone(action, str(error))
            return
        match outcome:
            case Settled(sent):
                reason: tuple[str, str | None] = ("unconfirmed", sent)
            case Refused(code):
                reason = (code, None)
            case Unknown(code, sent):
                reason = (code, sent)
        if not await self._is_done(action, reason[1]):
            await self._postpone(action, *reason)

    async def _is_done(self, action: Action, sent: str | None) -> bool:
        """Whether the chain shows it; then that is recorded."""
        transfer = Transfer(
            asset=action.asset,
            payer=action.pay_to,
            pay_to=action.payer or "",
            amount=action.amount,
            nonce=nonce_of(action),
            valid_before=int(self._clock()) + VALIDITY,
            not_before=action.created_at - CLOCK_SKEW,
        )
        try:
            fate = await self._chain(action.network).fate(transfer, sent)
        except ChainUnavailable as error:
            log.warning("return %d cannot be looked up: %s", action.id, error)
            return False
        if fate.kind != "moved":
            return False
        await self._ledger.settle(action, fate.tx_hash)
        log.info("return %d is made in %s", action.id, fate.tx_hash)
        return True

    def _signed(self, action: Action, asset: Asset) -> SignedPayment:
        to = to_checksum_address(action.payer or "")
        requirements = {
            "scheme": "exact",
            "network": asset.network,
            "asset": asset.address,
            "amount": str(action.amount),
            "payTo": to,
            "maxTimeoutSeconds": VALIDITY,
            "extra": {"name": asset.name, "version": asset.version},
        }
        payload = self._payee.sign_transfer(
            asset,
            to,
            action.amount,
            nonce=nonce_of(action),
            valid_before=int(self._clock()) + VALIDITY,
        )
        document = {"x402Version": 2, "accepted": requirements, "payload": payload}
        return SignedPayment(2, document, requirements)

    async def _postpone(self, action: Action, reason: str, sent: str | None = None) -> None:
        age = self._clock() - action.created_at
        delay = min(BACKOFF_MOST, max(BACKOFF_LEAST, age / 2))  # about double each time
        await self._ledger.postpone(action, reason, delay=delay, in_doubt=True, tx_hash=sent)

    def _chain(self, network: str) -> Chain:
        if network not in self._chains:
            raise ChainUnavailable(f"no RPC node is known for {network}; add it to networks")
        return self._chains[network]


def nonce_of(action: Action) -> str:
    """The EIP-3009 nonce of a return, the same for ever."""
    return "0x" + hashlib.sha256(f"xbyte-live {action.identity}".encode()).hexdigest()

"""Part: session refunds: gives back on chain what sessions bought with ``exact`` have left.

A session refund is an EIP-3009 transfer from the payee to the payer whose nonce is worked out
from the session: the token takes it once, however often it is signed and sent. So it is sent
again until the chain shows it, and never given up.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from eth_utils.address import to_checksum_address

from xbyte_live.errors import ChainUnavailable, FacilitatorUnavailable, XByteError
from xbyte_live.evm.authorizations import ChainReader, Transfer
from xbyte_live.evm.keys import Payee
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import Facilitator, SignedPayment
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.settlement.attempts import Attempts, Proof, Why

LONGEST_DELAY = 3600.0  # seconds between attempts of a refund that is never given up
VALIDITY = 3600  # seconds a transfer that was signed may be sent
CLOCK_SKEW = 15  # seconds a block's time may differ from ours
AT_ONCE = 16

log = logging.getLogger(__name__)


class SessionRefunds:
    """Sends what is due; ``lease`` is how many seconds one attempt may take."""

    def __init__(
        self,
        ledger: ActionLedger,
        payee: Payee,
        facilitator: Facilitator,
        chains: Mapping[str, ChainReader],
        assets: Sequence[Asset],
        *,
        lease: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self.rows = SessionRefundRows(ledger, payee, chains, assets, clock=clock)
        self._attempts = Attempts(
            self.rows,
            facilitator,
            lease=lease,
            wait=0.0,
            parallel=AT_ONCE,
            longest_delay=LONGEST_DELAY,
            clock=clock,
        )

    async def send_due(self) -> int:
        """Try every session refund that is due once; how many there were."""
        due = await self._ledger.due(AT_ONCE, returns=True)
        await asyncio.gather(*(self._try(action) for action in due))
        return len(due)

    async def drain(self) -> None:
        """Wait for the attempts that have begun; the others are rows, and begin elsewhere."""
        await self._attempts.drain()

    async def _try(self, action: Action) -> None:
        try:
            await self._attempts.do(action)
        except XByteError as error:
            log.warning("session refund %d stays open: %s", action.id, error)
        except Exception:
            log.exception("session refund %d stays open", action.id)


class SessionRefundRows:
    """Session refunds as the engine attempts them: signed anew each time, with one nonce."""

    def __init__(
        self,
        ledger: ActionLedger,
        payee: Payee,
        chains: Mapping[str, ChainReader],
        assets: Sequence[Asset],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._payee = payee
        self._chains = dict(chains)
        self._assets = {(asset.network, asset.address.lower()): asset for asset in assets}
        self._clock = clock

    async def get(self, row_id: int) -> Action | None:
        """The session refund of that number."""
        return await self._ledger.get(row_id)

    async def begin_attempt(self, row_id: int, *, lease: float) -> Action | None:
        """Lease a session refund for so many seconds."""
        return await self._ledger.begin_attempt(row_id, lease=lease)

    async def settle(self, row: Action, proof: Proof) -> Action:
        """Record that the payer has it."""
        return await self._ledger.settle(row, proof.tx_hash)

    async def fail(self, row: Action, error: str) -> Action:
        """Never: what is owed stays owed."""
        raise AssertionError(f"session refund {row.id} is given up: {error}")

    async def postpone(
        self, row: Action, error: str, *, delay: float, in_doubt: bool, sent: str | None
    ) -> Action:
        """Record that it is still owed."""
        return await self._ledger.postpone(row, error, delay=delay, in_doubt=in_doubt, tx_hash=sent)

    def payment(self, row: Action) -> SignedPayment:
        """The transfer, signed to be good for ``VALIDITY`` seconds from now."""
        asset = self._assets.get((row.network, row.asset))
        if asset is None or row.pay_to != self._payee.address:
            raise FacilitatorUnavailable("the payee's key or its token is not set")
        to, until = to_checksum_address(row.payer or ""), int(self._clock()) + VALIDITY
        requirements = {
            "scheme": "exact",
            "network": asset.network,
            "asset": asset.address,
            "amount": str(row.amount),
            "payTo": to,
            "maxTimeoutSeconds": VALIDITY,
            "extra": {"name": asset.name, "version": asset.version},
        }
        payload = self._payee.sign_transfer(
            asset, to, row.amount, nonce=nonce_of(row), valid_before=until
        )
        document = {"x402Version": 2, "accepted": requirements, "payload": payload}
        return SignedPayment(2, document, requirements)

    async def prove(self, row: Action, sent: str | None) -> Proof:
        """Ask the chain for the transfer by its nonce."""
        if row.network not in self._chains:
            raise ChainUnavailable(f"no RPC node is known for {row.network}; add it to networks")
        transfer = Transfer(
            asset=row.asset,
            payer=row.pay_to,
            pay_to=row.payer or "",
            amount=row.amount,
            nonce=nonce_of(row),
            valid_before=int(self._clock()) + VALIDITY,
            not_before=row.created_at - CLOCK_SKEW,
        )
        fate = await self._chains[row.network].fate(transfer, sent)
        return Proof("done", fate.tx_hash) if fate.kind == "moved" else Proof("open")

    def fails(self, row: Action, why: Why) -> bool:
        """Never."""
        return False

    def is_shared(self, row: Action) -> bool:
        """Always: another process may have sent it."""
        return True


def nonce_of(action: Action) -> str:
    """The EIP-3009 nonce of a session refund, the same for ever."""
    return "0x" + hashlib.sha256(f"xbyte-live {action.identity}".encode()).hexdigest()

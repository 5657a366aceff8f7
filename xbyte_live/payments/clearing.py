"""Wiring: what one process a deployment does behind the server: claims, payouts, the watcher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.money import PRICE_DECIMALS, parse_decimal
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Facilitator
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.claims import ClaimLedger
from xbyte_live.payments.settlement.channel_actions import Actions
from xbyte_live.payments.settlement.channel_sync import Mirror
from xbyte_live.payments.settlement.claims import ClaimPolicy, Claims
from xbyte_live.payments.settlement.gas import COIN_DECIMALS, GasWatch
from xbyte_live.payments.settlement.watcher import Watcher
from xbyte_live.runtime.aio import Work
from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.leader import Leader

LOOK = 5.0  # seconds between two looks at what is due


@dataclass(frozen=True, slots=True)
class Clearing:
    """The parts that bring channels to the chain; ``gas`` only where our own key pays it."""

    claims: Claims
    watcher: Watcher
    leader: Leader
    gas: GasWatch | None

    def work(self) -> Sequence[Work]:
        """What runs behind the server: all but the look at our gas in one process alone."""
        leading = self.leader.run(self.claims.run, self.watcher.run)
        return (leading,) if self.gas is None else (leading, self.gas.run())


def build_clearing(
    settings: Settings,
    database: Database,
    facilitator: Facilitator,
    contracts: Mapping[str, ChannelChain],
    mirror: Mirror,
    rows: ActionLedger,
    actions: Actions,
) -> Clearing:
    """The parts, of collaborators that are there already."""
    ledger, leases = ClaimLedger(database), LeaseLedger(database)
    claims = Claims(ledger, rows, actions, claim_policy(settings))
    watcher = Watcher(
        ledger, leases, rows, contracts, mirror, claims, interval=settings.watch_interval
    )
    return Clearing(claims, watcher, Leader(leases), _gas_watch(settings, facilitator, contracts))


def claim_policy(settings: Settings) -> ClaimPolicy:
    """When to claim and pay out as the settings have it."""
    return ClaimPolicy(
        claim_interval=settings.claim_interval,
        claim_threshold=parse_decimal(settings.claim_threshold, PRICE_DECIMALS),
        settle_interval=settings.settle_interval,
        idle_refund=settings.idle_refund,
        least_refund=settings.deposit_units,
        look=min(LOOK, settings.claim_interval),
    )


def _gas_watch(
    settings: Settings, facilitator: Facilitator, networks: Mapping[str, ChannelChain]
) -> GasWatch | None:
    if not isinstance(facilitator, LocalFacilitator):
        return None
    low = parse_decimal(settings.low_gas, COIN_DECIMALS)
    return GasWatch(facilitator, tuple(networks), low=low)

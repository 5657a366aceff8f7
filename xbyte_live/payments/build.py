"""Wiring: the parts that take money, those that bring it to the chain, and the gate before them."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, FacilitatorError
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.evm.keys import Authorizer, earlier_authorizers, gas_key, own_authorizer, own_payee
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.money import PRICE_DECIMALS, Asset, parse_decimal
from xbyte_live.payments.batch_settlement.offers import ChannelPolicy
from xbyte_live.payments.batch_settlement.scheme import BatchSettlement
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Facilitator, RemoteFacilitator
from xbyte_live.payments.facilitators.transfer_batcher import TransferBatcher
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge import Exposure
from xbyte_live.payments.ledger.charge_worker import ChargeWorker
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.claims import ClaimLedger
from xbyte_live.payments.ledger.draws import DrawLedger
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.sessions import Sessions
from xbyte_live.payments.settlement.channel_actions import ActionPolicy, Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.claims import ClaimPolicy, Claims
from xbyte_live.payments.settlement.gas import COIN_DECIMALS, GasWatch
from xbyte_live.payments.settlement.proofs import Proofs
from xbyte_live.payments.settlement.session_refunds import SessionRefunds
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.settlement.watcher import Watcher
from xbyte_live.payments.x402.methods import accepted_assets, legacy_names, payment_methods
from xbyte_live.payments.x402.schemes import Scheme
from xbyte_live.runtime.aio import Work
from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.leader import Leader

LEASE_MARGIN = 10.0
GWEI_DECIMALS = 9
LOOK = 5.0  # seconds between two looks at what is due

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChannelSettlement:
    """The parts that bring channels to the chain; ``gas`` only where our own key pays it."""

    claims: Claims
    watcher: Watcher
    leader: Leader
    gas: GasWatch | None

    def work(self) -> Sequence[Work]:
        """The background work; one process alone does all of it but the watch of our gas."""
        leading = self.leader.run(self.claims.run, self.watcher.run)
        return (leading,) if self.gas is None else (leading, self.gas.run())


@dataclass(frozen=True, slots=True)
class PaymentParts:
    """The parts that take money, as the rest of the server uses them."""

    gate: Gate
    charges: ChargeLedger
    channels: ChannelLedger
    charge_worker: ChargeWorker
    rows: ActionLedger
    actions: Actions
    channel_sync: ChannelSync
    facilitator: Facilitator
    transfers: Transfers
    settlement: ChannelSettlement
    sessions: Sessions

    def work(self) -> Sequence[Work]:
        """The background work."""
        return (self.transfers.run(), *self.settlement.work(), self.sessions.run())


@asynccontextmanager
async def open_payments(settings: Settings, database: Database) -> AsyncIterator[PaymentParts]:
    """Open the parts that take money, without their background work; closed in order on leaving."""
    assets = accepted_assets(settings)
    window = settings.retry_window
    charge_worker = ChargeWorker(
        settings.resolved_database_url,
        retry_window=window,
        busy_from=settings.cashier_from,
        log_level=settings.log_level,
    )
    charges = ChargeLedger(database)
    vouchers = ChannelLedger(database, retry_window=window, charger=charge_worker)
    async with AsyncExitStack() as stack:
        nodes = build_nodes(settings, assets)
        for node in nodes.values():
            stack.push_async_callback(node.close)
        facilitator = build_facilitator(settings, nodes)
        stack.push_async_callback(facilitator.close)
        chains = {network: ChainReader(node) for network, node in nodes.items()}
        contracts = {
            network: ChannelChain(node, confirmations=settings.confirmations)
            for network, node in nodes.items()
        }
        transfers = Transfers(
            charges,
            facilitator,
            chains,
            lease=_lease(settings),
            parallel=settings.settle_parallel,
            queue=settings.settle_queue,
            batcher=build_batcher(facilitator),
        )
        stack.push_async_callback(transfers.drain)
        authorizer, earlier = own_authorizer(settings), earlier_authorizers(settings)
        channel_sync, rows = ChannelSync(vouchers, contracts), ActionLedger(database)
        actions = Actions(
            rows,
            vouchers,
            facilitator,
            contracts,
            Proofs(contracts, chains),
            channel_sync,
            [authorizer, *earlier] if authorizer else earlier,
            action_policy(settings),
        )
        stack.push_async_callback(actions.drain)
        authorizers = await receiver_authorizers(authorizer, facilitator, assets)
        methods = payment_methods(settings, authorizers)
        secret = await charges.secret("sessions")
        budgets = build_budgets(settings, database, secret)
        schemes: list[Scheme] = [
            BatchSettlement(
                vouchers,
                channel_sync,
                actions,
                facilitator,
                methods,
                channel_policy(settings),
                sessions=budgets,
            ),
            Exact(charges, transfers, facilitator, methods, exact_policy(settings)),
        ]
        gate = Gate(
            charges,
            sorted(schemes, key=lambda scheme: _preference(settings, scheme.name)),
            payment_timeout=settings.payment_timeout,
            max_payment_header=settings.max_payment_header,
            secret=await charges.secret("receipts"),
        )
        settlement = build_settlement(
            settings, database, facilitator, contracts, channel_sync, rows, actions
        )
        sessions = build_sessions(
            settings,
            database,
            secret,
            budgets=budgets,
            charges=charges,
            gate=gate,
            facilitator=facilitator,
            chains=chains,
            assets=assets,
            rows=rows,
            lease=_lease(settings),
        )
        stack.push_async_callback(sessions.drain)
        yield PaymentParts(
            gate,
            charges,
            vouchers,
            charge_worker,
            rows,
            actions,
            channel_sync,
            facilitator,
            transfers,
            settlement,
            sessions,
        )


async def receiver_authorizers(
    own: Authorizer | None, facilitator: Facilitator, assets: Sequence[Asset]
) -> dict[str, str]:
    """The authorizer of claims and refunds, by network, where there is one."""
    if own is not None:
        return {asset.network: own.address for asset in assets}
    found: dict[str, str] = {}
    for asset in assets:
        try:
            authorizer = await facilitator.receiver_authorizer(asset.network)
        except FacilitatorError as error:
            log.error("%s; payment by channel is not offered on %s", error, asset.network)
            continue
        if authorizer is not None:
            found[asset.network] = authorizer
        else:
            log.warning(
                "no facilitator authorizes claims on %s: payment by channel is not offered; "
                "XBYTE_RECEIVER_AUTHORIZER_KEY would let us",
                asset.network,
            )
    return found


def build_facilitator(settings: Settings, nodes: Mapping[str, RpcNode]) -> Facilitator:
    """Remote facilitators where URLs are set, else our own with the gas key."""
    if settings.facilitators:
        return RemoteFacilitator(settings.facilitators, timeout=settings.facilitator_timeout)
    key = gas_key(settings)
    senders = {
        network: TransactionSender(key, node, confirmation_timeout=settings.settle_wait)
        for network, node in nodes.items()
    }
    return LocalFacilitator(
        senders,
        legacy_names(settings),
        factories=settings.smart_wallet_factories,
        parallel=settings.settle_parallel,
    )


def build_batcher(facilitator: Facilitator) -> TransferBatcher | None:
    """The batcher of queued transfers, where our own key pays the gas."""
    return (
        TransferBatcher(facilitator.senders) if isinstance(facilitator, LocalFacilitator) else None
    )


def build_nodes(settings: Settings, assets: Sequence[Asset]) -> dict[str, RpcNode]:
    """The RPC node of each network in use; raises ``ConfigError`` for one that is not known."""
    known = settings.rpc_by_network
    networks = dict.fromkeys(asset.network for asset in assets)
    for network in networks:
        if network not in known:
            raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
    return {
        network: RpcNode(known[network], timeout=settings.facilitator_timeout)
        for network in networks
    }


def build_settlement(
    settings: Settings,
    database: Database,
    facilitator: Facilitator,
    contracts: Mapping[str, ChannelChain],
    channel_sync: ChannelSync,
    rows: ActionLedger,
    actions: Actions,
) -> ChannelSettlement:
    """Build the claims, payouts and the watcher of channels."""
    ledger, leases = ClaimLedger(database), LeaseLedger(database)
    claims = Claims(ledger, rows, actions, claim_policy(settings))
    watcher = Watcher(
        ledger, leases, rows, contracts, channel_sync, claims, interval=settings.watch_interval
    )
    return ChannelSettlement(
        claims, watcher, Leader(leases), _gas_watch(settings, facilitator, contracts)
    )


def build_budgets(settings: Settings, database: Database, secret: bytes) -> SessionLedger:
    """The ledger of sessions; ``secret`` makes their tokens."""
    payee = own_payee(settings)
    return SessionLedger(
        database,
        secret=secret,
        payees=() if payee is None else (payee.address,),
        retry_window=settings.retry_window,
    )


def build_sessions(
    settings: Settings,
    database: Database,
    secret: bytes,
    *,
    budgets: SessionLedger,
    charges: ChargeLedger,
    gate: Gate,
    facilitator: Facilitator,
    chains: Mapping[str, ChainReader],
    assets: Sequence[Asset],
    rows: ActionLedger,
    lease: float,
) -> Sessions:
    """Build the part that sells sessions."""
    payee = own_payee(settings)
    refunds = None
    if payee is not None:
        refunds = SessionRefunds(rows, payee, facilitator, chains, assets, lease=lease)
    return Sessions(
        budgets,
        DrawLedger(database, retry_window=settings.retry_window),
        charges,
        gate,
        secret=secret,
        refunds=refunds,
    )


def exact_policy(settings: Settings) -> ExactPolicy:
    """The ``exact`` scheme's rules as the settings have them."""
    optimistic = settings.exact_policy == "optimistic"
    return ExactPolicy(
        exposure=Exposure(*settings.exposure_caps) if optimistic else None,
        retry_window=settings.retry_window,
        payment_timeout=settings.payment_timeout,
        settle_wait=settings.settle_wait,
    )


def channel_policy(settings: Settings) -> ChannelPolicy:
    """The ``batch-settlement`` scheme's rules as the settings have them."""
    return ChannelPolicy(
        deposit_floor=settings.deposit_units,
        payment_timeout=settings.payment_timeout,
        retry_window=settings.retry_window,
    )


def action_policy(settings: Settings) -> ActionPolicy:
    """How actions go to the chain as the settings have it."""
    return ActionPolicy(
        lease=_lease(settings),
        wait=settings.settle_wait,
        max_gas_price=parse_decimal(settings.max_gas_price, GWEI_DECIMALS),
        parallel=settings.settle_parallel,
        patience=settings.settle_wait,
    )


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


def _preference(settings: Settings, scheme: str) -> int:
    """Where a scheme stands among the offers; one that is not offered comes last."""
    return settings.schemes.index(scheme) if scheme in settings.schemes else len(settings.schemes)


def _lease(settings: Settings) -> float:
    return settings.facilitator_timeout + settings.settle_wait + LEASE_MARGIN

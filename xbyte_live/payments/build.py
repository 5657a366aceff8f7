"""Wiring: the parts that take money: facilitator, chain, settlement, and the gate before them."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, FacilitatorError
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.authorizer import Authorizer, earlier_authorizers, own_authorizer
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.evm.keys import gas_key
from xbyte_live.evm.sender import OneSender
from xbyte_live.money import Asset, parse_decimal
from xbyte_live.payments.batch_settlement import ChannelPolicy, Channels
from xbyte_live.payments.clearing import Clearing, build_clearing
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.facilitators.batch import Together
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Facilitator, RemoteFacilitator
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge import Exposure
from xbyte_live.payments.ledger.charge_worker import Cashier
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.renting import build_budgets, build_sessions
from xbyte_live.payments.sessions import Sessions
from xbyte_live.payments.settlement.channel_actions import ActionPolicy, Actions
from xbyte_live.payments.settlement.channel_sync import Mirror
from xbyte_live.payments.settlement.proofs import Proofs
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.x402.methods import accepted_assets, legacy_names, payment_methods
from xbyte_live.payments.x402.requirements import SCHEME_EXACT, of_scheme
from xbyte_live.runtime.tasks import Work
from xbyte_live.storage.db.engine import Database

LEASE_MARGIN = 10.0
GWEI_DECIMALS = 9

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Till:
    """What the rest of the server needs of the parts that take money."""

    gate: Gate
    charges: ChargeLedger
    channels: ChannelLedger
    cashier: Cashier
    rows: ActionLedger
    actions: Actions
    mirror: Mirror
    facilitator: Facilitator
    transfers: Transfers
    clearing: Clearing
    sessions: Sessions

    def work(self) -> Sequence[Work]:
        """What runs behind the server."""
        return (self.transfers.run(), *self.clearing.work(), self.sessions.run())


@asynccontextmanager
async def open_till(settings: Settings, database: Database) -> AsyncIterator[Till]:
    """Everything that takes money, without its background work; ended in order on leaving."""
    assets = accepted_assets(settings)
    window = settings.retry_window
    cashier = Cashier(
        settings.resolved_database_url,
        retry_window=window,
        busy_from=settings.cashier_from,
        log_level=settings.log_level,
    )
    charges = ChargeLedger(database)
    vouchers = ChannelLedger(database, retry_window=window, charger=cashier)
    async with AsyncExitStack() as stack:
        facilitator = build_facilitator(settings, assets)
        stack.push_async_callback(facilitator.close)
        chains, contracts = build_chains(settings, assets), build_contracts(settings, assets)
        for chain in chains.values():
            stack.push_async_callback(chain.close)
        for contract in contracts.values():
            stack.push_async_callback(contract.close)
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
        mirror, rows = Mirror(vouchers, contracts), ActionLedger(database)
        actions = Actions(
            rows,
            vouchers,
            facilitator,
            contracts,
            Proofs(contracts, chains),
            mirror,
            [authorizer, *earlier] if authorizer else earlier,
            action_policy(settings),
        )
        stack.push_async_callback(actions.drain)
        authorizers = await receiver_authorizers(authorizer, facilitator, assets)
        methods = payment_methods(settings, authorizers)
        secret = await charges.secret("sessions")
        budgets = build_budgets(settings, database, secret)
        gate = Gate(
            charges,
            Exact(
                charges,
                transfers,
                facilitator,
                of_scheme(methods, SCHEME_EXACT),
                exact_policy(settings),
            ),
            methods,
            channels=Channels(
                vouchers,
                mirror,
                actions,
                facilitator,
                methods,
                channel_policy(settings),
                budgets=budgets,
            ),
            payment_timeout=settings.payment_timeout,
            max_payment_header=settings.max_payment_header,
            secret=await charges.secret("receipts"),
        )
        clearing = build_clearing(settings, database, facilitator, contracts, mirror, rows, actions)
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
        yield Till(
            gate,
            charges,
            vouchers,
            cashier,
            rows,
            actions,
            mirror,
            facilitator,
            transfers,
            clearing,
            sessions,
        )


async def receiver_authorizers(
    own: Authorizer | None, facilitator: Facilitator, assets: Sequence[Asset]
) -> dict[str, str]:
    """Who authorizes claims and refunds on each network where somebody does."""
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


def build_facilitator(settings: Settings, assets: Sequence[Asset]) -> Facilitator:
    """Remote facilitators where URLs are set, else our own with the gas key."""
    if settings.facilitators:
        return RemoteFacilitator(settings.facilitators, timeout=settings.facilitator_timeout)
    key = gas_key(settings)
    senders = {
        network: OneSender(
            key,
            url,
            confirmation_timeout=settings.settle_wait,
            timeout=settings.facilitator_timeout,
        )
        for network, url in rpc_urls(settings, assets).items()
    }
    return LocalFacilitator(
        senders,
        legacy_names(settings),
        factories=settings.smart_wallet_factories,
        parallel=settings.settle_parallel,
    )


def build_batcher(facilitator: Facilitator) -> Together | None:
    """What sends queued payments together, where our own key pays the gas."""
    return Together(facilitator.senders) if isinstance(facilitator, LocalFacilitator) else None


def build_chains(settings: Settings, assets: Sequence[Asset]) -> dict[str, ChainReader]:
    """One reader for each network payments are taken on."""
    return {
        network: ChainReader(url, timeout=settings.facilitator_timeout)
        for network, url in rpc_urls(settings, assets).items()
    }


def build_contracts(settings: Settings, assets: Sequence[Asset]) -> dict[str, ChannelChain]:
    """One reader of the channels' contract for each network payments are taken on."""
    return {
        network: ChannelChain(
            url, timeout=settings.facilitator_timeout, confirmations=settings.confirmations
        )
        for network, url in rpc_urls(settings, assets).items()
    }


def rpc_urls(settings: Settings, assets: Sequence[Asset]) -> Mapping[str, str]:
    """The RPC node of each network in use; raises ``ConfigError`` for one without."""
    known = settings.rpc_by_network
    networks = dict.fromkeys(asset.network for asset in assets)
    for network in networks:
        if network not in known:
            raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
    return {network: known[network] for network in networks}


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


def _lease(settings: Settings) -> float:
    return settings.facilitator_timeout + settings.settle_wait + LEASE_MARGIN

"""Wiring: the parts that take money: facilitator, chain, settlement, and the gate before them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from xbyte_live.config import Settings
from xbyte_live.db.engine import Database
from xbyte_live.errors import ConfigError
from xbyte_live.ledger.charges import ChargeLedger, Exposure
from xbyte_live.money import Asset
from xbyte_live.payments.chain import ChainReader
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.facilitator import Facilitator, RemoteFacilitator
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.keys import gas_key
from xbyte_live.payments.local_facilitator import LocalFacilitator
from xbyte_live.payments.methods import accepted_assets, legacy_names, payment_methods
from xbyte_live.payments.sender import OneSender
from xbyte_live.settlement.transfers import Settlement
from xbyte_live.tasks import Work

LEASE_MARGIN = 10.0


@dataclass(frozen=True, slots=True)
class Till:
    """What the rest of the server needs of the parts that take money."""

    gate: Gate
    charges: ChargeLedger
    facilitator: Facilitator
    settlement: Settlement

    def work(self) -> Sequence[Work]:
        """What runs behind the server."""
        return (self.settlement.run(),)


@asynccontextmanager
async def open_till(settings: Settings, database: Database) -> AsyncIterator[Till]:
    """Everything that takes money, without its background work; ended in order on leaving."""
    assets = accepted_assets(settings)
    charges = ChargeLedger(database)
    async with AsyncExitStack() as stack:
        facilitator = build_facilitator(settings, assets)
        stack.push_async_callback(facilitator.close)
        chains = build_chains(settings, assets)
        for chain in chains.values():
            stack.push_async_callback(chain.close)
        settlement = Settlement(
            charges,
            facilitator,
            chains,
            lease=settings.facilitator_timeout + settings.settle_wait + LEASE_MARGIN,
            parallel=settings.settle_parallel,
            queue=settings.settle_queue,
        )
        stack.push_async_callback(settlement.drain)
        methods = payment_methods(settings, {})
        gate = Gate(
            charges,
            Exact(charges, settlement, facilitator, methods, exact_policy(settings)),
            methods,
            payment_timeout=settings.payment_timeout,
            max_payment_header=settings.max_payment_header,
            secret=await charges.secret("receipts"),
        )
        yield Till(gate, charges, facilitator, settlement)


def build_facilitator(settings: Settings, assets: Sequence[Asset]) -> Facilitator:
    """Remote facilitators where URLs are set, else our own with the gas key."""
    if settings.facilitators:
        return RemoteFacilitator(settings.facilitators, timeout=settings.facilitator_timeout)
    key = gas_key(settings)
    senders = {
        network: OneSender(key, url, confirmation_timeout=settings.settle_wait)
        for network, url in rpc_urls(settings, assets).items()
    }
    return LocalFacilitator(
        senders,
        legacy_names(settings),
        factories=settings.smart_wallet_factories,
        parallel=settings.settle_parallel,
    )


def build_chains(settings: Settings, assets: Sequence[Asset]) -> dict[str, ChainReader]:
    """One reader for each network payments are taken on."""
    return {
        network: ChainReader(url, timeout=settings.facilitator_timeout)
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

"""Pure: which assets on which networks are taken, from the settings and the SDK's tables."""

from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS
from x402.mechanisms.evm.v1.constants import V1_NETWORK_CHAIN_IDS

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.money import Asset
from xbyte_live.payments.requirements import SCHEME_EXACT, PaymentMethod


def payment_methods(settings: Settings) -> tuple[PaymentMethod, ...]:
    """One method for each network of ``settings.networks``, in that order.

    Raises ``ConfigError`` for a network whose token is not known and not in ``assets``.
    """
    v1_names = {f"eip155:{chain_id}": name for name, chain_id in V1_NETWORK_CHAIN_IDS.items()}
    return tuple(
        PaymentMethod(SCHEME_EXACT, _asset(settings, network), v1_names.get(network))
        for network in settings.networks
    )


def _asset(settings: Settings, network: str) -> Asset:
    for asset in settings.custom_assets:
        if asset.network == network:
            return asset
    for known in DEFAULT_ASSETS.get(network, []):
        if known.get("asset_transfer_method", "eip3009") == "eip3009":
            return Asset(
                network=network,
                address=known["asset"],
                name=known["name"],
                version=known["version"],
                decimals=known["decimals"],
                symbol=known["symbol"],
            )
    raise ConfigError(f"no token is known on {network}; name one in assets")

"""Pure: the assets and networks that are accepted, from the settings and the SDK's tables."""

from collections.abc import Mapping

from eth_utils.address import to_checksum_address
from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS
from x402.mechanisms.evm.v1.constants import V1_NETWORK_CHAIN_IDS

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.money import Asset
from xbyte_live.payments.x402.requirements import SCHEME_EXACT, ChannelTerms, PaymentMethod


def accepted_assets(settings: Settings) -> tuple[Asset, ...]:
    """The token taken on each network of ``settings.networks``, in that order.

    Raises ``ConfigError`` for a network whose token is not known and not in ``assets``.
    """
    return tuple(_asset(settings, network) for network in settings.networks)


def legacy_names(settings: Settings) -> dict[str, str]:
    """The CAIP-2 network by the name x402 v1 gives it, of those payments are taken on."""
    known = {name: f"eip155:{chain_id}" for name, chain_id in V1_NETWORK_CHAIN_IDS.items()}
    return {name: network for name, network in known.items() if network in settings.networks}


def payment_methods(
    settings: Settings, authorizers: Mapping[str, str]
) -> tuple[PaymentMethod, ...]:
    """Every scheme of ``settings.schemes`` with every token, the preferred ones first.

    ``authorizers`` has who authorizes claims and refunds on each network where somebody does;
    payment by channel is offered there only.
    """
    names = {network: name for name, network in legacy_names(settings).items()}
    assets = accepted_assets(settings)
    found: list[PaymentMethod] = []
    for scheme in settings.schemes:
        for asset in assets:
            if scheme == SCHEME_EXACT:
                found.append(PaymentMethod(scheme, asset, names.get(asset.network)))
            elif authorizer := authorizers.get(asset.network):
                channel = ChannelTerms(to_checksum_address(authorizer), settings.withdraw_delay)
                found.append(PaymentMethod(scheme, asset, channel=channel))
    if not found:
        raise ConfigError(
            "nobody authorizes claims of channels: set XBYTE_RECEIVER_AUTHORIZER_KEY, or add "
            "exact to schemes"
        )
    return tuple(found)


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

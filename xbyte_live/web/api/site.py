"""Adapter: the server's name, networks and assets, for pages and programs alike."""

from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live import __version__
from xbyte_live.config import Settings
from xbyte_live.money import MIB, Asset
from xbyte_live.payments.gate import Gate
from xbyte_live.web.common.responses import json_reply

_NAMES = {
    "eip155:8453": "Base",
    "eip155:84532": "Base Sepolia",
    "eip155:43114": "Avalanche",
    "eip155:43113": "Avalanche Fuji",
}
_TEST_CHAIN = "Local test chain"


class Site:
    """Serves the name, schemes, networks and assets of this server.

    With a ``faucet_url`` the chain is a local one, and its RPC node is named too, since no wallet
    knows it.
    """

    def __init__(self, *, settings: Settings, gate: Gate) -> None:
        self._settings = settings
        self._gate = gate

    async def answer(self, _: Request) -> Response:
        """``GET /api/v1/site``."""
        return json_reply(self.document(), {"cache-control": "no-cache"})

    def document(self) -> dict[str, Any]:
        """The body of ``/api/v1/site``."""
        methods = self._gate.methods
        assets = list(dict.fromkeys(method.asset for method in methods))
        return {
            "name": self._settings.site_name,
            "version": __version__,
            "bytes_per_mb": MIB,
            "schemes": list(dict.fromkeys(method.scheme for method in methods)),
            "networks": [self._network(asset) for asset in assets],
        }

    def origins(self) -> list[str]:
        """Origins that pages connect to besides this server."""
        urls = [self._settings.faucet_url]
        if self._settings.faucet_url:
            urls += [self._rpc_url(method.asset) for method in self._gate.methods]
        return list(dict.fromkeys(_origin(url) for url in urls if url))

    def _network(self, asset: Asset) -> dict[str, Any]:
        local = bool(self._settings.faucet_url)
        name = _TEST_CHAIN if local else _NAMES.get(asset.network, f"Chain {asset.chain_id}")
        return {
            "network": asset.network,
            "chain_id": asset.chain_id,
            "name": name,
            "asset": asset.address,
            "symbol": asset.symbol,
            "decimals": asset.decimals,
            "rpc_url": (self._rpc_url(asset) or None) if local else None,
            "faucet_url": self._settings.faucet_url or None,
        }

    def _rpc_url(self, asset: Asset) -> str:
        """The RPC node, if it is on this machine: a provider's URL holds a key."""
        url = self._settings.rpc_by_network.get(asset.network, "")
        return url if urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost") else ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"

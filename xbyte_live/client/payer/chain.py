"""Adapter: what a payer wants to know of a chain, over plain JSON-RPC."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from xbyte_live.client.payer import contract_calls
from xbyte_live.client.payer.channel import OnChain
from xbyte_live.errors import ChainUnavailable, ConfigError
from xbyte_live.money import Asset
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

_BALANCE_OF = "0x70a08231"  # balanceOf(address)
_AUTHORIZATION_STATE = "0xe94a0102"  # authorizationState(address,bytes32), EIP-3009
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_TWO_WORDS = re.compile(r"0x[0-9a-fA-F]{128}")
_TIMEOUT = httpx.Timeout(10.0)


@dataclass(frozen=True, slots=True)
class Balance:
    """What an address has: ``token`` in atomic units of the asset, ``native`` in wei."""

    token: int
    native: int


async def read_balance(
    rpc_url: str, asset: Asset, address: str, *, inner: httpx.AsyncBaseTransport | None = None
) -> Balance:
    """What ``address`` has on the network of ``asset``.

    Raises ``ChainUnavailable`` when the node does not say, ``ConfigError`` when it is of another
    chain or the token is not there.
    """
    async with httpx.AsyncClient(transport=inner, timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, asset.network)
        data = _BALANCE_OF + _word(address)
        token = await _call(client, rpc_url, asset, data)
        native = await ask(client, rpc_url, "eth_getBalance", [address, "latest"])
    return Balance(token, _number(native, rpc_url))


async def authorization_used(
    rpc_url: str,
    asset: Asset,
    payer: str,
    nonce: str,
    *,
    inner: httpx.AsyncBaseTransport | None = None,
) -> bool:
    """Whether an authorization was taken (or cancelled) on chain (EIP-3009).

    An expired one that was not taken never will be: its budget can be given back.
    Raises as ``read_balance`` does.
    """
    async with httpx.AsyncClient(transport=inner, timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, asset.network)
        data = _AUTHORIZATION_STATE + _word(payer) + _word(nonce)
        return bool(await _call(client, rpc_url, asset, data))


async def read_channel(
    rpc_url: str, network: str, channel_id: str, *, inner: httpx.AsyncBaseTransport | None = None
) -> OnChain:
    """What the contract says of a channel; raises as ``read_balance`` does."""
    async with httpx.AsyncClient(transport=inner, timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, network)
        state = await _words(client, rpc_url, network, contract_calls.channels(channel_id))
        pending = await _words(
            client, rpc_url, network, contract_calls.pending_withdrawals(channel_id)
        )
    return OnChain(state[0], state[1], pending[0], pending[1] if pending[0] else 0)


def channel_reader(rpc_urls: Mapping[str, str]) -> Callable[[str, str], Awaitable[OnChain]]:
    """Reads channels on the networks whose nodes are named; raises as ``read_balance`` does."""

    async def read(network: str, channel_id: str) -> OnChain:
        if network not in rpc_urls:
            raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
        return await read_channel(rpc_urls[network], network, channel_id)

    return read


async def check_network(client: httpx.AsyncClient, rpc_url: str, network: str) -> None:
    """Raise ``ConfigError`` unless a node is of that network."""
    chain_id = _number(await ask(client, rpc_url, "eth_chainId", []), rpc_url)
    if f"eip155:{chain_id}" != network:
        raise ConfigError(f"the node at {_host(rpc_url)} is of chain {chain_id}, not {network}")


async def _words(client: httpx.AsyncClient, rpc_url: str, network: str, data: str) -> list[int]:
    call = {"to": contract_calls.ADDRESS, "data": data}
    result = await ask(client, rpc_url, "eth_call", [call, "latest"])
    if result == "0x":
        raise ConfigError(f"there are no payment channels on {network}")
    if not isinstance(result, str) or _TWO_WORDS.fullmatch(result) is None:
        raise ChainUnavailable(f"the node at {_host(rpc_url)} gives no numbers where it should")
    return [int(result[2:66], 16), int(result[66:], 16)]


async def _call(client: httpx.AsyncClient, rpc_url: str, asset: Asset, data: str) -> int:
    result = await ask(client, rpc_url, "eth_call", [{"to": asset.address, "data": data}, "latest"])
    if result == "0x":
        raise ConfigError(f"there is no {asset.symbol} at {asset.address} on {asset.network}")
    return _number(result, rpc_url)


async def ask(client: httpx.AsyncClient, rpc_url: str, method: str, params: list[Any]) -> object:
    """Ask a node; raises ``ChainUnavailable`` when it does not answer or refuses."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    try:
        async with client.stream("POST", rpc_url, json=question) as response:
            answer = read_json(await _limited(response), limit=MAX_DOCUMENT)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise ChainUnavailable(f"the node at {_host(rpc_url)} does not answer") from None
    if not isinstance(answer, dict) or "result" not in answer:
        raise ChainUnavailable(f"the node at {_host(rpc_url)} refuses {method}")
    return answer["result"]


async def _limited(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            break
    return body


def _number(value: object, rpc_url: str) -> int:
    if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
        raise ChainUnavailable(f"the node at {_host(rpc_url)} gives no number where it should")
    return int(value, 16)


def _word(value: str) -> str:
    return value.removeprefix("0x").lower().rjust(64, "0")


def _host(rpc_url: str) -> str:
    """The host alone: paths and queries of RPC URLs hold API keys."""
    try:
        return httpx.URL(rpc_url).host or "that URL"
    except httpx.InvalidURL:
        return "that URL"

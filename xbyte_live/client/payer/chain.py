"""Adapter: a payer's balances, channels and transactions on a chain, over plain JSON-RPC."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from eth_account.signers.local import LocalAccount

from xbyte_live.client.payer.channel import ChannelOnChain
from xbyte_live.errors import ChainUnavailable, ConfigError
from xbyte_live.evm.channels import COLLECTOR, CONTRACT, ChannelConfig, Deposit
from xbyte_live.evm.eip712 import address_word, word
from xbyte_live.money import Asset
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

_BALANCE_OF = "0x70a08231"  # balanceOf(address)
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_TWO_WORDS = re.compile(r"0x[0-9a-fA-F]{128}")
_TIMEOUT = httpx2.Timeout(10.0)
_LOOKS = 120  # for the receipt of a transaction
_MARGIN = 1.2  # of the gas that was estimated

_DEPOSIT = "140f1e75"  # deposit(config,uint128,address,bytes)
_INITIATE_WITHDRAW = "cf5cf3dc"  # initiateWithdraw(config,uint128)
_FINALIZE_WITHDRAW = "e88377b1"  # finalizeWithdraw(config)
_CHANNELS = "7a7ebd7b"  # channels(bytes32)
_PENDING_WITHDRAWALS = "b7f06ebe"  # pendingWithdrawals(bytes32)


@dataclass(frozen=True, slots=True)
class WalletBalance:
    """What an address has: ``token`` in atomic units of the asset, ``native`` in wei."""

    token: int
    native: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that was mined; ``at`` is its block's time in Unix seconds."""

    transaction: str
    at: int


async def read_balance(
    rpc_url: str, asset: Asset, address: str, *, inner: httpx2.AsyncBaseTransport | None = None
) -> WalletBalance:
    """What ``address`` has on the network of ``asset``.

    Raises ``ChainUnavailable`` when the node does not say, ``ConfigError`` when it is of another
    chain or the token is not there.
    """
    async with httpx2.AsyncClient(transport=inner, timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, asset.network)
        data = _BALANCE_OF + _word(address)
        token = await _read_number(client, rpc_url, asset, data)
        native = await ask(client, rpc_url, "eth_getBalance", [address, "latest"])
    return WalletBalance(token, _number(native, rpc_url))


async def read_channel(
    rpc_url: str, network: str, channel_id: str, *, inner: httpx2.AsyncBaseTransport | None = None
) -> ChannelOnChain:
    """What the contract says of a channel; raises as ``read_balance`` does."""
    async with httpx2.AsyncClient(transport=inner, timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, network)
        state = await _words(client, rpc_url, network, channels_call(channel_id))
        pending = await _words(client, rpc_url, network, pending_withdrawals_call(channel_id))
    return ChannelOnChain(state[0], state[1], pending[0], pending[1] if pending[0] else 0)


def channel_reader(rpc_urls: Mapping[str, str]) -> Callable[[str, str], Awaitable[ChannelOnChain]]:
    """Reads channels on the networks whose nodes are named; raises as ``read_balance`` does."""

    async def read(network: str, channel_id: str) -> ChannelOnChain:
        if network not in rpc_urls:
            raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
        return await read_channel(rpc_urls[network], network, channel_id)

    return read


async def check_network(client: httpx2.AsyncClient, rpc_url: str, network: str) -> None:
    """Raise ``ConfigError`` unless a node is of that network."""
    chain_id = _number(await ask(client, rpc_url, "eth_chainId", []), rpc_url)
    if f"eip155:{chain_id}" != network:
        raise ConfigError(f"the node at {_host(rpc_url)} is of chain {chain_id}, not {network}")


async def send_call(
    account: LocalAccount,
    rpc_url: str,
    network: str,
    to: str,
    data: str,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Sent:
    """Send a contract call and wait until it is mined.

    Raises ``ConfigError`` when the contract would refuse it or there is no gas to pay it with,
    ``ChainUnavailable`` when the node does not answer, or not in time that it is mined.
    """
    async with httpx2.AsyncClient(timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, network)

        async def number(method: str, *params: Any) -> int:
            found = await ask(client, rpc_url, method, list(params))
            if not isinstance(found, str) or _QUANTITY.fullmatch(found) is None:
                raise ChainUnavailable(f"the node gives no number to {method}")
            return int(found, 16)

        call = {"from": account.address, "to": to, "data": data}
        price = 2 * await number("eth_gasPrice")
        try:
            gas = int(_MARGIN * await number("eth_estimateGas", call))
        except ChainUnavailable:
            raise ConfigError(
                "the contract would refuse this now; `xbyte-live wallet channels` shows how the "
                "channel stands"
            ) from None
        if await number("eth_getBalance", account.address, "latest") < gas * price:
            raise ConfigError(
                f"{account.address} needs {gas * price / 1e18:.6f} of the coin of {network} for gas"
            )
        transaction: dict[str, Any] = {
            "to": to,
            "data": data,
            "value": 0,
            "gas": gas,
            "nonce": await number("eth_getTransactionCount", account.address, "pending"),
            "chainId": int(network.partition(":")[2]),
            "maxFeePerGas": price,
            "maxPriorityFeePerGas": min(price, await number("eth_maxPriorityFeePerGas")),
        }
        raw = "0x" + bytes(account.sign_transaction(transaction).raw_transaction).hex()
        name = await ask(client, rpc_url, "eth_sendRawTransaction", [raw])
        if not isinstance(name, str) or _HASH.fullmatch(name) is None:
            raise ChainUnavailable("the node does not say what became of the transaction")
        for _ in range(_LOOKS):
            receipt = await ask(client, rpc_url, "eth_getTransactionReceipt", [name])
            if isinstance(receipt, dict):
                if receipt.get("status") != "0x1":
                    raise ConfigError(f"the transaction {name} was reverted")
                block = await ask(
                    client, rpc_url, "eth_getBlockByNumber", [receipt.get("blockNumber"), False]
                )
                at = block.get("timestamp") if isinstance(block, dict) else None
                return Sent(name, int(str(at), 16) if at else 0)
            await sleep(0.5)
    raise ChainUnavailable(f"the transaction {name} is not mined yet")


async def chain_time(rpc_url: str, network: str) -> int:
    """The time of the newest block, in Unix seconds."""
    async with httpx2.AsyncClient(timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, network)
        block = await ask(client, rpc_url, "eth_getBlockByNumber", ["latest", False])
    at = block.get("timestamp") if isinstance(block, dict) else None
    if not isinstance(at, str) or _QUANTITY.fullmatch(at) is None:
        raise ChainUnavailable("the node does not say what time it is")
    return int(at, 16)


def initiate_withdraw_call(config: ChannelConfig, amount: int) -> str:
    """Announces that the payer takes back ``amount`` after the channel's delay."""
    return _call(_INITIATE_WITHDRAW, _config(config), word(amount))


def finalize_withdraw_call(config: ChannelConfig) -> str:
    """Takes back what was announced, or what claims have left of it."""
    return _call(_FINALIZE_WITHDRAW, _config(config))


def deposit_call(config: ChannelConfig, order: Deposit) -> str:
    """Moves a deposit into a channel; anybody may send it."""
    signature = bytes.fromhex(order.signature[2:])
    data = b"".join(
        (
            word(order.valid_after),
            word(order.valid_before),
            bytes.fromhex(order.salt[2:]),
            word(4 * 32),
            _bytes(signature),
        )
    )
    head = (_config(config), word(order.amount), address_word(COLLECTOR), word(10 * 32))
    return _call(_DEPOSIT, *head, _bytes(data))


def channels_call(channel_id: str) -> str:
    """Asks for a channel's balance and what was claimed of it."""
    return _call(_CHANNELS, bytes.fromhex(channel_id[2:]))


def pending_withdrawals_call(channel_id: str) -> str:
    """Asks for the amount of a channel's withdrawal and when it was announced."""
    return _call(_PENDING_WITHDRAWALS, bytes.fromhex(channel_id[2:]))


async def _words(client: httpx2.AsyncClient, rpc_url: str, network: str, data: str) -> list[int]:
    call = {"to": CONTRACT, "data": data}
    result = await ask(client, rpc_url, "eth_call", [call, "latest"])
    if result == "0x":
        raise ConfigError(f"there are no payment channels on {network}")
    if not isinstance(result, str) or _TWO_WORDS.fullmatch(result) is None:
        raise ChainUnavailable(f"the node at {_host(rpc_url)} gives no numbers where it should")
    return [int(result[2:66], 16), int(result[66:], 16)]


async def _read_number(client: httpx2.AsyncClient, rpc_url: str, asset: Asset, data: str) -> int:
    result = await ask(client, rpc_url, "eth_call", [{"to": asset.address, "data": data}, "latest"])
    if result == "0x":
        raise ConfigError(f"there is no {asset.symbol} at {asset.address} on {asset.network}")
    return _number(result, rpc_url)


async def ask(client: httpx2.AsyncClient, rpc_url: str, method: str, params: list[Any]) -> object:
    """Ask a node; raises ``ChainUnavailable`` when it does not answer or refuses."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    try:
        async with client.stream("POST", rpc_url, json=question) as response:
            answer = read_json(await _limited(response), limit=MAX_DOCUMENT)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        raise ChainUnavailable(f"the node at {_host(rpc_url)} does not answer") from None
    if not isinstance(answer, dict) or "result" not in answer:
        raise ChainUnavailable(f"the node at {_host(rpc_url)} refuses {method}")
    return answer["result"]


async def _limited(response: httpx2.Response) -> bytes:
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
        return httpx2.URL(rpc_url).host or "that URL"
    except httpx2.InvalidURL:
        return "that URL"


def _config(config: ChannelConfig) -> bytes:
    return b"".join(
        (
            address_word(config.payer),
            address_word(config.payer_authorizer),
            address_word(config.receiver),
            address_word(config.receiver_authorizer),
            address_word(config.token),
            word(config.withdraw_delay),
            bytes.fromhex(config.salt[2:]),
        )
    )


def _bytes(value: bytes) -> bytes:
    return word(len(value)) + value.ljust(-(-len(value) // 32) * 32, b"\0")


def _call(selector: str, *words: bytes) -> str:
    return "0x" + selector + b"".join(words).hex()

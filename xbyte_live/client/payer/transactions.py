"""Adapter: sends a transaction of the payer's own, who pays its gas, over plain JSON-RPC."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from xbyte_live.client.payer.chain import ask, check_network
from xbyte_live.errors import ChainUnavailable, ConfigError

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_TIMEOUT = httpx.Timeout(10.0)
_LOOKS = 120  # for the receipt
_MARGIN = 1.2  # of the gas that was estimated


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that was mined; ``at`` is its block's time in Unix seconds."""

    transaction: str
    at: int


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
    async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
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
    async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
        await check_network(client, rpc_url, network)
        block = await ask(client, rpc_url, "eth_getBlockByNumber", ["latest", False])
    at = block.get("timestamp") if isinstance(block, dict) else None
    if not isinstance(at, str) or _QUANTITY.fullmatch(at) is None:
        raise ChainUnavailable("the node does not say what time it is")
    return int(at, 16)

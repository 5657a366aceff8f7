"""Adapter: reads the contract of payment channels on one network: states, events, totals.

States are read ``confirmations - 1`` blocks below the newest one, so that they are as safe
from a reorganization as that setting says. Source: x402 ``scheme_batch_settlement_evm``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from eth_abi.abi import decode, encode
from eth_typing import HexStr
from web3 import Web3
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt

from xbyte_live.evm.channels import CONTRACT
from xbyte_live.evm.eip712 import address_word, keccak
from xbyte_live.evm.rpc import RpcNode, answered, hex_of

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
CHANNELS_AT_ONCE = 100  # in one call
IDS_IN_FILTER = 200  # channels a query for events may name
SHORTER_FOR = 20.0  # seconds after which a chain that was longer before is believed to be shorter
TRACED_WINDOWS = 20  # how far back one event is looked for

Name = Literal[
    "Deposited", "Claimed", "Refunded", "WithdrawInitiated", "WithdrawFinalized", "Settled"
]


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


_CHANNELS = _selector("channels(bytes32)")
_WITHDRAWALS = _selector("pendingWithdrawals(bytes32)")
_NONCE = _selector("refundNonce(bytes32)")
_RECEIVERS = _selector("receivers(address,address)")
_AGGREGATE = _selector("aggregate3((address,bool,bytes)[])")

TOPICS: dict[Name, str] = {
    name: "0x" + keccak(f"{name}({types})".encode()).hex()
    for name, types in cast(
        dict[Name, str],
        {
            "Deposited": "bytes32,address,uint128,uint128",
            "Claimed": "bytes32,address,uint128,uint128",
            "Refunded": "bytes32,address,uint128",
            "WithdrawInitiated": "bytes32,uint128,uint40",
            "WithdrawFinalized": "bytes32,address,uint128",
            "Settled": "address,address,address,uint128",
        },
    ).items()
}
_NAMES = {topic: name for name, topic in TOPICS.items()}
_OF_CHANNELS = [HexStr(topic) for name, topic in TOPICS.items() if name != "Settled"]


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel in the contract; one that was never opened is all zeros."""

    balance: int
    claimed: int
    withdraw_requested_at: int
    refund_nonce: int


@dataclass(frozen=True, slots=True)
class Receiver:
    """The totals claimed for a payee and paid out to it, in atomic units."""

    claimed: int
    settled: int


class ChannelEvent(NamedTuple):
    """One event of a channel; equal only if it lies in the same block of the same history."""

    name: Name
    channel_id: str
    block: int
    block_hash: str
    tx_hash: str
    log_index: int


class ChannelChain:
    """Reads the contract on one network; every method raises ``ChainUnavailable``."""

    def __init__(self, node: RpcNode, *, confirmations: int = 1) -> None:
        self.node = node
        self._web3 = node.web3
        self._depth = confirmations - 1
        self._has_multicall: bool | None = None
        self._head = 0
        self._head_at = 0.0

    async def safe_block(self) -> int:
        """The newest block that enough others confirm.

        Behind one URL stand many nodes: what one of them knew is asked of the others too, so
        that a later answer is not an older one, unless the chain stays shorter.
        """
        with answered():
            head, now = int(await self._web3.eth.block_number), time.monotonic()
        if head >= self._head or now - self._head_at > SHORTER_FOR:
            self._head, self._head_at = head, now
        return max(0, self._head - self._depth)

    async def gas_price(self) -> int:
        """The price of a unit of gas now, in wei."""
        with answered():
            return int(await self._web3.eth.gas_price)

    async def states(self, channel_ids: Sequence[str]) -> dict[str, ChannelState]:
        """The state of each of these channels, all at one block."""
        block = await self.safe_block()
        ids, found = list(dict.fromkeys(channel_ids)), dict[str, ChannelState]()
        for at in range(0, len(ids), CHANNELS_AT_ONCE):
            some = ids[at : at + CHANNELS_AT_ONCE]
            words = [bytes.fromhex(channel_id[2:]) for channel_id in some]
            datas = [call + word for word in words for call in (_CHANNELS, _WITHDRAWALS, _NONCE)]
            with answered():
                answers = await self._read(datas, block)
                found |= {
                    channel_id: _state(*answers[3 * index : 3 * index + 3])
                    for index, channel_id in enumerate(some)
                }
        return found

    async def receiver(self, pay_to: str, token: str) -> Receiver:
        """The totals of a payee and token."""
        block = await self.safe_block()
        data = _RECEIVERS + address_word(pay_to) + address_word(token)
        with answered():
            (answer,) = await self._read([data], block)
            return Receiver(*decode(["uint128", "uint128"], answer))

    async def landed(self, tx_hash: str) -> Literal["done", "reverted", "unknown"]:
        """The result of a transaction; ``unknown`` until enough blocks confirm it."""
        block = await self.safe_block()
        with answered():
            try:
                receipt = await self._web3.eth.get_transaction_receipt(HexStr(tx_hash))
            except TransactionNotFound:
                return "unknown"
        if receipt["blockNumber"] > block:
            return "unknown"
        return "done" if receipt["status"] == 1 else "reverted"

    async def emitted(self, tx_hash: str, name: Name, subject: str) -> bool:
        """Whether a transaction left this event of a channel or payee."""
        with answered():
            receipt = await self._web3.eth.get_transaction_receipt(HexStr(tx_hash))
        return any(
            log["address"].lower() == CONTRACT.lower()
            and hex_of(log["topics"][0]) == TOPICS[name]
            and hex_of(log["topics"][1])[-len(subject) + 2 :] == subject[2:]
            for log in receipt["logs"]
        )

    async def events(
        self, first: int, last: int, channel_ids: Collection[str] | None = None
    ) -> AsyncIterator[tuple[int, list[ChannelEvent]]]:
        """The events of channels (of these, if not too many to name), window by window.

        Each with the last block of its window; a window that a node finds too wide is halved.
        """
        names = channel_ids is not None and len(channel_ids) <= IDS_IN_FILTER
        ids = [HexStr(i) for i in sorted(channel_ids)] if names and channel_ids else None
        topics: list[Any] = [_OF_CHANNELS, ids] if ids else [_OF_CHANNELS]
        async for end, logs in self.node.logs(CONTRACT, topics, first, last):
            yield end, [_event(log) for log in logs]

    async def trace(self, name: Name, *subjects: str, since: float) -> str | None:
        """The transaction of the newest such event of a channel or payee, if it is not old.

        ``subjects`` are what the event is indexed by, ``since`` the Unix time to look back to.
        """
        topics = [HexStr(TOPICS[name]), *(HexStr("0x" + s[2:].rjust(64, "0")) for s in subjects)]
        logs = await self.node.newest_logs(
            CONTRACT, topics, await self.safe_block(), since=since, windows=TRACED_WINDOWS
        )
        return hex_of(logs[-1]["transactionHash"]) if logs else None

    async def _read(self, datas: Sequence[bytes], block: int) -> Sequence[bytes]:
        """What the contract answers to each of these calls."""
        if self._has_multicall is None:
            code = await self._web3.eth.get_code(Web3.to_checksum_address(MULTICALL3))
            self._has_multicall = len(code) > 0
        if not self._has_multicall or len(datas) == 1:
            return await asyncio.gather(*(self._call(CONTRACT, data, block) for data in datas))
        calls = [(CONTRACT, False, data) for data in datas]
        data = _AGGREGATE + encode(["(address,bool,bytes)[]"], [calls])
        answer = await self._call(MULTICALL3, data, block)
        (results,) = decode(["(bool,bytes)[]"], answer)
        return [data for _, data in results]

    async def _call(self, to: str, data: bytes, block: int) -> bytes:
        call = {"to": Web3.to_checksum_address(to), "data": HexStr("0x" + data.hex())}
        return bytes(await self._web3.eth.call(cast(Any, call), cast(Any, block)))


def _state(channel: bytes, withdrawal: bytes, nonce: bytes) -> ChannelState:
    balance, claimed = decode(["uint128", "uint128"], channel)
    _, requested_at = decode(["uint128", "uint40"], withdrawal)
    (refund_nonce,) = decode(["uint256"], nonce)
    return ChannelState(balance, claimed, requested_at, refund_nonce)


def _event(log: LogReceipt) -> ChannelEvent:
    return ChannelEvent(
        name=_NAMES[hex_of(log["topics"][0])],
        channel_id=hex_of(log["topics"][1]),
        block=log["blockNumber"],
        block_hash=hex_of(log["blockHash"]),
        tx_hash=hex_of(log["transactionHash"]),
        log_index=log["logIndex"],
    )

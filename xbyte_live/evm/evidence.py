"""Adapter: reads the proofs of recorded transactions and channels from the chain, for an audit."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eth_typing import HexStr
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt

from xbyte_live.evm.authorizations import AUTHORIZATION_USED, TRANSFER, ChainReader, Fate, Transfer
from xbyte_live.evm.channel_contract import (
    IDS_IN_FILTER,
    TOPICS,
    ChannelChain,
    ChannelState,
    Receiver,
)
from xbyte_live.evm.channels import CONTRACT
from xbyte_live.evm.rpc import RpcNode, answered, hex_of

AT_ONCE = 8  # questions put to a node at the same time
SKEW = 60  # seconds a block's time may differ from ours


class Logged(NamedTuple):
    """An event of a channel: its name and the amount it moved."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class Landed:
    """The effects of a successful transaction; addresses and hashes are lower case.

    ``used``: token, authorizer and nonce of each authorization; ``moved``: token, sender,
    receiver and amount of each transfer; ``deposits``: channel and amount.
    """

    used: frozenset[tuple[str, str, str]]
    moved: frozenset[tuple[str, str, str, int]]
    deposits: frozenset[tuple[str, int]]


class Evidence:
    """Reads one network for an audit; every method raises ``ChainUnavailable``."""

    def __init__(self, node: RpcNode, *, confirmations: int = 1) -> None:
        self.node = node
        self._channels = ChannelChain(node, confirmations=confirmations)
        self._fates = ChainReader(node)
        self._depth = confirmations
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def check(self, chain_id: int) -> None:
        """Return if the node answers for this chain."""
        await self.node.check(chain_id)

    async def states(self, channel_ids: Sequence[str]) -> dict[str, ChannelState]:
        """The state of each of these channels."""
        return await self._channels.states(channel_ids)

    async def receiver(self, pay_to: str, token: str) -> Receiver:
        """The totals of a payee and token."""
        return await self._channels.receiver(pay_to, token)

    async def fate(self, transfer: Transfer) -> Fate:
        """The fate of an authorization, found in the logs."""
        return await self._fates.fate(transfer)

    async def landed(self, hashes: Sequence[str]) -> dict[str, Landed]:
        """The effects of those of these transactions that the node knows and that succeeded."""
        wanted = list(dict.fromkeys(hashes))
        answers = await asyncio.gather(*map(self._landed, wanted))
        return {tx: found for tx, found in zip(wanted, answers, strict=True) if found}

    async def history(
        self, channel_ids: Sequence[str], since: float
    ) -> Mapping[str, Sequence[Logged]]:
        """The events of these channels since a Unix time, some earlier ones too, in order."""
        found: defaultdict[str, list[Logged]] = defaultdict(list)
        first, last = await self._block_at(since - SKEW), await self._newest()
        for at in range(0, len(channel_ids), IDS_IN_FILTER):
            some = sorted(channel_ids[at : at + IDS_IN_FILTER])
            topics = [[HexStr(topic) for topic in _NAMES], [HexStr(i) for i in some]]
            windows = self.node.logs(CONTRACT, topics, max(0, first - self._depth), last)
            async for _, logs in windows:
                for log in logs:
                    name = _NAMES[hex_of(log["topics"][0])]
                    amount = int.from_bytes(bytes(log["data"])[:32], "big")
                    found[hex_of(log["topics"][1])].append(Logged(name, amount))
        return found

    async def _landed(self, tx_hash: str) -> Landed | None:
        with answered():
            try:
                async with self._slots:
                    receipt = await self.node.web3.eth.get_transaction_receipt(HexStr(tx_hash))
            except TransactionNotFound:
                return None
        return _read(receipt["logs"]) if receipt["status"] == 1 else None

    async def _newest(self) -> int:
        with answered():
            return int(await self.node.web3.eth.block_number)

    async def _block_at(self, time: float) -> int:
        """The first block that is not older than that, or the newest."""
        low, high = 0, await self._newest()
        while low < high:
            middle = (low + high) // 2
            with answered():
                block = await self.node.web3.eth.get_block(middle)
            if block["timestamp"] < time:
                low = middle + 1
            else:
                high = middle
        return low


_NAMES = {topic: name for name, topic in TOPICS.items() if name != "Settled"}


def _read(logs: Sequence[LogReceipt]) -> Landed:
    used, moved, deposits = set(), set(), set()
    for log in logs:
        topics = [hex_of(topic) for topic in log["topics"]]
        if not topics:
            continue
        address, words = log["address"].lower(), [_address(topic) for topic in topics[1:]]
        amount = int.from_bytes(bytes(log["data"])[:32], "big")
        if topics[0] == AUTHORIZATION_USED and len(topics) == 3:
            used.add((address, words[0], topics[2]))
        elif topics[0] == TRANSFER and len(topics) == 3:
            moved.add((address, words[0], words[1], amount))
        elif topics[0] == TOPICS["Deposited"] and address == CONTRACT.lower():
            deposits.add((topics[1], amount))
    return Landed(frozenset(used), frozenset(moved), frozenset(deposits))


def _address(topic: str) -> str:
    return "0x" + topic[-40:]

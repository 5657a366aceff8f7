"""Adapter: reads the fate of one EIP-3009 authorization from the chain."""

from dataclasses import dataclass
from typing import Any, Literal

from eth_typing import BlockNumber, HexStr
from web3 import Web3
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt

from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.eip712 import keccak
from xbyte_live.evm.rpc import RpcNode, answered, hex_of

MAX_WINDOWS = 200
LOGS_LAG = 60  # blocks: behind one public URL stand many nodes, and some know less than others

AUTHORIZATION_USED = "0x" + keccak(b"AuthorizationUsed(address,bytes32)").hex()
AUTHORIZATION_CANCELED = "0x" + keccak(b"AuthorizationCanceled(address,bytes32)").hex()
TRANSFER = "0x" + keccak(b"Transfer(address,address,uint256)").hex()

_STATE_ABI: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "authorizationState",
        "stateMutability": "view",
        "inputs": [
            {"name": "authorizer", "type": "address"},
            {"name": "nonce", "type": "bytes32"},
        ],
        "outputs": [{"name": "", "type": "bool"}],
    }
]


@dataclass(frozen=True, slots=True)
class Transfer:
    """The transfer an authorization orders; addresses are lower case.

    A transfer in a block older than ``not_before`` (Unix seconds) paid for something else.
    """

    asset: str
    payer: str
    pay_to: str
    amount: int
    nonce: str
    valid_before: int
    not_before: float


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of an authorization on the chain.

    ``moved`` (with its transaction); ``open``: may still move; ``reverted``: open, and the
    transaction that was sent for it has failed; ``void``: never will move.
    """

    kind: Literal["moved", "open", "reverted", "void"]
    tx_hash: str | None = None


class ChainReader:
    """Reads the fates of authorizations on one network; its method raises ``ChainUnavailable``."""

    def __init__(self, node: RpcNode) -> None:
        self.node = node
        self._web3 = node.web3

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        """Read the fate of an authorization by its nonce and the logs it left.

        ``sent`` is the hash of the transaction that was to move it, where known.
        """
        with answered():
            return await self._fate(transfer, sent)

    async def _fate(self, transfer: Transfer, sent: str | None) -> Fate:
        head = await self._web3.eth.get_block("latest")
        used = await self._is_used(transfer, head["number"])
        if not used and head["timestamp"] >= transfer.valid_before:
            return Fate("void")
        if not used:
            return Fate("reverted" if sent and await self._has_failed(sent) else "open")
        spent = await self._spent(transfer, head["number"])
        if spent is not None:
            return await self._of_spent(transfer, spent)
        # Spent on something earlier; or just now, and the node that was asked for logs is behind.
        long_since = await self._is_used(transfer, max(0, head["number"] - LOGS_LAG))
        return Fate("void" if long_since else "open")

    async def _of_spent(self, transfer: Transfer, spent: LogReceipt) -> Fate:
        block = await self._web3.eth.get_block(spent["blockNumber"])
        cancelled = hex_of(spent["topics"][0]) == AUTHORIZATION_CANCELED
        if cancelled or block["timestamp"] < transfer.not_before:
            return Fate("void")
        tx_hash = HexStr(hex_of(spent["transactionHash"]))
        receipt = await self._web3.eth.get_transaction_receipt(tx_hash)
        moved = any(_is_transfer(log, transfer) for log in receipt["logs"])
        return Fate("moved", tx_hash) if moved else Fate("void")

    async def _is_used(self, transfer: Transfer, block: int) -> bool:
        token = self._web3.eth.contract(Web3.to_checksum_address(transfer.asset), abi=_STATE_ABI)
        state = token.functions.authorizationState(
            Web3.to_checksum_address(transfer.payer), bytes.fromhex(transfer.nonce[2:])
        )
        return bool(await state.call(block_identifier=BlockNumber(block)))

    async def _has_failed(self, tx_hash: str) -> bool:
        try:
            receipt = await self._web3.eth.get_transaction_receipt(HexStr(tx_hash))
        except TransactionNotFound:
            return False
        return receipt["status"] == 0

    async def _spent(self, transfer: Transfer, head: int) -> LogReceipt | None:
        """The log of the nonce's use or cancellation, looked for back to ``not_before``."""
        topics = [
            [HexStr(AUTHORIZATION_USED), HexStr(AUTHORIZATION_CANCELED)],
            HexStr("0x" + transfer.payer[2:].rjust(64, "0")),
            HexStr(transfer.nonce),
        ]
        logs = await self.node.newest_logs(
            transfer.asset, topics, head, since=transfer.not_before, windows=MAX_WINDOWS
        )
        if logs is None:
            raise ChainUnavailable("the transaction lies too far back to be looked up")
        return logs[0] if logs else None


def _is_transfer(log: LogReceipt, transfer: Transfer) -> bool:
    topics = [hex_of(topic) for topic in log["topics"]]
    return (
        log["address"].lower() == transfer.asset
        and len(topics) == 3
        and topics[0] == TRANSFER
        and topics[1][-40:] == transfer.payer[2:]
        and topics[2][-40:] == transfer.pay_to[2:]
        and int.from_bytes(log["data"], "big") == transfer.amount
    )

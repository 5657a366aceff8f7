"""Adapter: what the chain says became of one EIP-3009 authorization, over JSON-RPC."""

from dataclasses import dataclass
from typing import Any, Literal

from eth_hash.auto import keccak
from eth_typing import HexStr
from web3 import AsyncHTTPProvider, AsyncWeb3, Web3
from web3.exceptions import TransactionNotFound
from web3.types import FilterParams, LogReceipt

from xbyte_live.errors import ChainUnavailable

LOG_WINDOW = 1000  # blocks asked for at once; public nodes allow few more
MAX_WINDOWS = 200

AUTHORIZATION_USED = "0x" + keccak(b"AuthorizationUsed(address,bytes32)").hex()
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
    """What became of an authorization.

    ``moved`` (with its transaction); ``open``: may still move; ``reverted``: open, and the
    transaction that was sent for it has failed; ``void``: never will move.
    """

    kind: Literal["moved", "open", "reverted", "void"]
    tx_hash: str | None = None


class ChainReader:
    """One network's RPC node, read only; every method raises ``ChainUnavailable``."""

    def __init__(self, rpc_url: str, *, timeout: float) -> None:
        self._web3 = AsyncWeb3(AsyncHTTPProvider(rpc_url, request_kwargs={"timeout": timeout}))

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        """What became of an authorization, by its nonce and the logs it left.

        ``sent`` is the hash of the transaction that was to move it, where known.
        """
        try:
            return await self._fate(transfer, sent)
        except ChainUnavailable:
            raise
        except Exception as error:
            raise ChainUnavailable(
                f"the RPC node gave no answer ({type(error).__name__})"
            ) from error

    async def check(self, chain_id: int) -> None:
        """Return if the node answers for this chain, else raise ``ChainUnavailable``."""
        try:
            found = await self._web3.eth.chain_id
        except Exception as error:
            raise ChainUnavailable(
                f"the RPC node gave no answer ({type(error).__name__})"
            ) from error
        if found != chain_id:
            raise ChainUnavailable(f"the RPC node serves chain {found}, not {chain_id}")

    async def close(self) -> None:
        """Close the connections."""
        await self._web3.provider.disconnect()

    async def _fate(self, transfer: Transfer, sent: str | None) -> Fate:
        head = await self._web3.eth.get_block("latest")
        token = self._web3.eth.contract(Web3.to_checksum_address(transfer.asset), abi=_STATE_ABI)
        used = await token.functions.authorizationState(
            Web3.to_checksum_address(transfer.payer), bytes.fromhex(transfer.nonce[2:])
        ).call(block_identifier=head["number"])
        if not used and head["timestamp"] >= transfer.valid_before:
            return Fate("void")
        if not used:
            return Fate("reverted" if sent and await self._has_failed(sent) else "open")
        used_in = await self._used_in(transfer, head["number"])
        if used_in is None:
            return Fate("void")  # cancelled by its signer, or spent on something earlier
        receipt = await self._web3.eth.get_transaction_receipt(used_in)
        moved = any(_is_transfer(log, transfer) for log in receipt["logs"])
        return Fate("moved", used_in) if moved else Fate("void")

    async def _has_failed(self, tx_hash: str) -> bool:
        try:
            receipt = await self._web3.eth.get_transaction_receipt(HexStr(tx_hash))
        except TransactionNotFound:
            return False
        return receipt["status"] == 0

    async def _used_in(self, transfer: Transfer, head: int) -> HexStr | None:
        """The transaction that used the nonce, looked for back to ``not_before``."""
        newest = head
        for _ in range(MAX_WINDOWS):
            oldest = max(0, newest - LOG_WINDOW + 1)
            query: FilterParams = {
                "address": Web3.to_checksum_address(transfer.asset),
                "fromBlock": oldest,
                "toBlock": newest,
                "topics": [
                    HexStr(AUTHORIZATION_USED),
                    HexStr("0x" + transfer.payer[2:].rjust(64, "0")),
                    HexStr(transfer.nonce),
                ],
            }
            logs = await self._web3.eth.get_logs(query)
            if logs:
                block = await self._web3.eth.get_block(logs[0]["blockNumber"])
                if block["timestamp"] < transfer.not_before:
                    return None
                return HexStr("0x" + bytes(logs[0]["transactionHash"]).hex())
            block = await self._web3.eth.get_block(oldest)
            if oldest == 0 or block["timestamp"] < transfer.not_before:
                return None
            newest = oldest - 1
        raise ChainUnavailable("the transaction lies too far back to be looked up")


def _no_answer(error: Exception) -> ChainUnavailable:
    return ChainUnavailable(f"the RPC node gave no answer ({type(error).__name__})")


def _is_transfer(log: LogReceipt, transfer: Transfer) -> bool:
    topics = ["0x" + bytes(topic).hex() for topic in log["topics"]]
    return (
        log["address"].lower() == transfer.asset
        and len(topics) == 3
        and topics[0] == TRANSFER
        and topics[1][-40:] == transfer.payer[2:]
        and topics[2][-40:] == transfer.pay_to[2:]
        and int.from_bytes(log["data"], "big") == transfer.amount
    )

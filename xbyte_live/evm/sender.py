"""Adapter: sends the transactions of one gas key on one network, one after another."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eth_utils.address import is_hex_address, to_checksum_address
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.mechanisms.evm.types import TransactionReceipt

from xbyte_live.evm.rpc import RpcNode

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
T = TypeVar("T")
NONCE_TRIES = 6
NONCE_PAUSE = 0.3  # seconds at most between two of them
QUIET = 10.0  # seconds after which the node's count of our transactions is believed again
GAS_MARGIN = 1.2

_AGGREGATE_ABI: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "aggregate3",
        "stateMutability": "payable",
        "inputs": [
            {
                "name": "calls",
                "type": "tuple[]",
                "components": [
                    {"name": "target", "type": "address"},
                    {"name": "allowFailure", "type": "bool"},
                    {"name": "callData", "type": "bytes"},
                ],
            }
        ],
        "outputs": [],
    }
]
# Calls whose gas grows with what they are given: the SDK's one limit would be too little.
_LONG_CALLS = frozenset({"claimWithSignature", "multicall"})
# What a node says to a transaction that it does not take for its nonce.
_NONCE_TAKEN = ("nonce too low", "replacement transaction", "transaction underpriced")


class TransactionSender(FacilitatorWeb3Signer):
    """The SDK's signer, made safe for many transactions of one key.

    The SDK reserves a nonce before it builds a transaction, so a failed send, or a transaction that
    the chain drops, would leave a gap that every later one waits for; it takes no notice of
    another process that sends with the same key; its gas limit is too small for a long batch;
    it waits minutes for a node that hangs; and it
    refuses a good payment whose addresses are not in mixed case.
    """

    def __init__(self, key: str, node: RpcNode, *, confirmation_timeout: float) -> None:
        super().__init__(key, node.url, confirmation_timeout_seconds=confirmation_timeout)
        self._node = node.blocking
        self._w3 = self._node.web3()
        self._sending = threading.Lock()
        self._sent_at = 0.0
        self._awaited: set[str] = set()  # transactions without a receipt yet
        self._least_gas = self._gas_limit

    def heard(self, work: Callable[[], T]) -> tuple[T, bool]:
        """Run work with this sender; its result, and whether the node answered every call."""
        self._node.listen()
        return work(), not self._node.is_silent

    def read_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any
    ) -> Any:
        """Call a view function."""
        return super().read_contract(address, abi, function_name, *map(_checksummed, args))

    def write_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any, **more: Any
    ) -> str:
        """Send a contract call; returns its transaction hash."""
        values = tuple(map(_checksummed, args))

        def write() -> str:
            self._gas_limit = self._least_gas
            if function_name in _LONG_CALLS:
                self._gas_limit = max(
                    self._least_gas, self._estimate(address, abi, function_name, values)
                )
            return super(TransactionSender, self).write_contract(
                address, abi, function_name, *values, **more
            )

        return self._send(write)

    def send_calls(self, calls: Sequence[tuple[str, bytes]], *, gas: int) -> str:
        """Send calls in one transaction, through Multicall3; one that fails stops no other.

        ``gas`` is for all of them: what a node estimates is too little where a call may fail.
        """
        entries = [(to_checksum_address(to), True, data) for to, data in calls]

        def write() -> str:
            self._gas_limit = gas
            return super(TransactionSender, self).write_contract(
                MULTICALL3, _AGGREGATE_ABI, "aggregate3", entries
            )

        return self._send(write)

    def has_multicall(self) -> bool:
        """Whether Multicall3 is on this chain."""
        return len(self.get_code(MULTICALL3)) > 0

    def send_transaction(self, to: str, data: bytes) -> str:
        """Send call data; returns its transaction hash."""

        def write() -> str:
            self._gas_limit = self._least_gas
            return super(TransactionSender, self).send_transaction(to, data)

        return self._send(write)

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        """Wait for a transaction; one that does not come may be lost, and its nonce free."""
        came = False
        try:
            receipt = super().wait_for_transaction_receipt(tx_hash)
            came = True
        finally:
            with self._sending:
                self._awaited.discard(tx_hash)
                if not came or not self._awaited:
                    self._next_nonce = None  # the node knows best
        return receipt

    def block_number(self) -> int:
        """The number of the newest block the node knows."""
        return int(self._w3.eth.block_number)

    def gas_balance(self) -> int:
        """The balance of the gas key, in wei."""
        return int(self._w3.eth.get_balance(self._account.address))

    def _estimate(
        self, address: str, abi: list[dict[str, Any]], name: str, values: tuple[Any, ...]
    ) -> int:
        contract = self._w3.eth.contract(to_checksum_address(address), abi=abi)
        call = contract.functions[name](*values)
        return int(call.estimate_gas({"from": self._account.address}) * GAS_MARGIN)

    def _send(self, send: Callable[[], str]) -> str:
        """Send; again with another nonce where a node says that somebody has used ours."""
        with self._sending:
            if time.monotonic() - self._sent_at > QUIET:
                self._next_nonce = None
                self._awaited.clear()
            for last in (*[False] * (NONCE_TRIES - 1), True):
                try:
                    tx_hash = send()
                    self._awaited.add(tx_hash)
                    return tx_hash
                except BaseException as error:
                    self._next_nonce = None
                    if last or not _is_nonce_taken(error):
                        raise
                finally:
                    self._sent_at = time.monotonic()
                time.sleep(NONCE_PAUSE * random.random())  # noqa: S311
        raise AssertionError("the last try neither returned nor raised")


def _is_nonce_taken(error: BaseException) -> bool:
    said = str(error).lower()
    return any(phrase in said for phrase in _NONCE_TAKEN)


def _checksummed(argument: Any) -> Any:
    """Addresses in mixed case, in lists and tuples too."""
    if isinstance(argument, list | tuple):
        return type(argument)(map(_checksummed, argument))
    return to_checksum_address(argument) if is_hex_address(argument) else argument

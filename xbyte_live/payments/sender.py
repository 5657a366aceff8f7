"""Adapter: the one sender of a gas key on one network: transactions leave one after another."""

import threading
from collections.abc import Callable
from typing import Any

from eth_utils.address import is_hex_address, to_checksum_address
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer


class OneSender(FacilitatorWeb3Signer):
    """The SDK's signer without two faults of its own.

    It reserves a nonce before it builds a transaction, so a failed send would leave a gap that
    every later transaction waits for; and it refuses a good payment whose addresses are not in
    mixed case.
    """

    def __init__(self, key: str, rpc_url: str, *, confirmation_timeout: float) -> None:
        super().__init__(key, rpc_url, confirmation_timeout_seconds=confirmation_timeout)
        self._sending = threading.Lock()

    def read_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any
    ) -> Any:
        """Call a view function."""
        return super().read_contract(address, abi, function_name, *map(_checksummed, args))

    def write_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any, **more: Any
    ) -> str:
        """Send a contract call; returns its transaction hash."""
        call = (address, abi, function_name, *map(_checksummed, args))
        return self._send(lambda: super(OneSender, self).write_contract(*call, **more))

    def send_transaction(self, to: str, data: bytes) -> str:
        """Send call data; returns its transaction hash."""
        return self._send(lambda: super(OneSender, self).send_transaction(to, data))

    def block_number(self) -> int:
        """The newest block the node knows."""
        return int(self._w3.eth.block_number)

    def gas_balance(self) -> int:
        """Wei the gas key holds."""
        return int(self._w3.eth.get_balance(self._account.address))

    def _send(self, send: Callable[[], str]) -> str:
        with self._sending:
            try:
                return send()
            except BaseException:
                self._next_nonce = None
                raise


def _checksummed(argument: Any) -> Any:
    return to_checksum_address(argument) if is_hex_address(argument) else argument

"""The channels' contract as a model in memory: what the SDK's facilitator sends, what we read.

It is both the signer of the SDK's own facilitator, which judges as it would on a chain, and all
that our parts read. Signatures of claims and refunds are not looked at: real chains do that.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, Literal, TypeVar

from eth_abi.abi import decode, encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from web3 import Web3
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.types import TransactionReceipt

from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.authorizations import Fate, Transfer
from xbyte_live.evm.channel_contract import ChannelState, Name, Receiver
from xbyte_live.evm.channels import ChannelConfig, channel_id_of, deposit_nonce
from xbyte_live.evm.eip712 import keccak, recover

T = TypeVar("T")

CHAIN_ID = 84532
NEW = ChannelState(0, 0, 0, 0)
_CODEC = Web3().eth.contract(abi=BATCH_SETTLEMENT_ABI)


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


class Reverted(Exception):
    """The contract refuses a call."""


@dataclass(frozen=True, slots=True)
class Event:
    tx_hash: str
    name: str
    subject: str


class ModelChain:
    """``tokens`` is what each account holds, ``wallets`` maps smart wallets to their owners.

    ``is_up``: the node answers; ``confirms``: a receipt comes for what is sent.
    """

    address = to_checksum_address("0x" + "fa" * 20)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.channels: dict[str, ChannelState] = {}
        self.tokens: dict[str, int] = {}
        self.used: dict[str, str] = {}
        self.wallets: dict[str, str] = {}
        self.events: list[Event] = []
        self.is_up = True
        self.confirms = True
        self.reads = 0
        self.sent = 0
        self._silent = False
        self._clock = clock
        self._lock = RLock()
        self._numbers = itertools.count(1)

    def move(self, channel_id: str, **changes: int) -> None:
        """Something happened to a channel."""
        self.channels[channel_id] = replace(self.channels.get(channel_id, NEW), **changes)

    # What our parts read

    async def states(self, channel_ids: Sequence[str]) -> dict[str, ChannelState]:
        self._ask()
        self.reads += 1
        return {channel_id: self.channels.get(channel_id, NEW) for channel_id in channel_ids}

    async def receiver(self, pay_to: str, token: str) -> Receiver:
        return Receiver(0, 0)

    async def landed(self, tx_hash: str) -> Literal["done", "reverted", "unknown"]:
        self._ask()
        return "done" if any(e.tx_hash == tx_hash for e in self.events) else "unknown"

    async def emitted(self, tx_hash: str, name: Name, subject: str) -> bool:
        self._ask()
        return Event(tx_hash, name, subject) in self.events

    async def trace(self, name: Name, *subjects: str, since: float) -> str | None:
        self._ask()
        found = [e.tx_hash for e in self.events if (e.name, e.subject) == (name, subjects[0])]
        return found[-1] if found else None

    async def gas_price(self) -> int:
        return 1

    async def fate(self, transfer: Transfer, sent: str | None = None) -> Fate:
        self._ask()
        if transfer.nonce in self.used:
            return Fate("moved", self.used[transfer.nonce])
        return Fate("void" if self._clock() >= transfer.valid_before else "open")

    def _ask(self) -> None:
        if not self.is_up:
            self._silent = True
            raise ChainUnavailable("the RPC node gave no answer")

    def heard(self, work: Callable[[], T]) -> tuple[T, bool]:
        """Do something, and tell whether every question was answered."""
        self._silent = False
        return work(), not self._silent

    # What the SDK's facilitator calls

    def get_addresses(self) -> list[str]:
        return [self.address]

    def get_chain_id(self) -> int:
        self._ask()
        return CHAIN_ID

    def block_number(self) -> int:
        self._ask()
        return 1

    def gas_balance(self) -> int:
        return 10**18

    def get_code(self, address: str) -> bytes:
        return b"\x01" if address.lower() in self.wallets else b""

    def read_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any
    ) -> Any:
        self._ask()
        if function_name == "tryAggregate":
            return [(True, self._view(bytes(data))) for _, data in args[1]]
        if function_name == "channels":
            state = self.channels.get(str(args[0]), NEW)
            return state.balance, state.claimed
        if function_name == "isValidSignature":
            good = recover(bytes(args[0]), bytes(args[1])) == self.wallets[address.lower()]
            return bytes.fromhex("1626ba7e") if good else bytes(4)
        with self._lock:
            before = (dict(self.channels), dict(self.tokens), dict(self.used), list(self.events))
            try:
                return self._call("", function_name, args)
            finally:
                self.channels, self.tokens, self.used, self.events = before

    def write_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any, **more: Any
    ) -> str:
        self._ask()
        tx_hash = f"0x{next(self._numbers):064x}"
        with self._lock:
            self._call(tx_hash, function_name, args)
            self.sent += 1
        return tx_hash

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        if not self.confirms:
            raise TimeoutError("no receipt")
        return TransactionReceipt(status=1, block_number=1, tx_hash=tx_hash)

    def _view(self, data: bytes) -> bytes:
        subject = data[4:36]
        state = self.channels.get("0x" + subject.hex(), NEW)
        return {
            _selector("channels(bytes32)"): encode(
                ["uint128", "uint128"], [state.balance, state.claimed]
            ),
            _selector("pendingWithdrawals(bytes32)"): encode(
                ["uint128", "uint40"], [0, state.withdraw_requested_at]
            ),
            _selector("refundNonce(bytes32)"): encode(["uint256"], [state.refund_nonce]),
            _selector("balanceOf(address)"): encode(
                ["uint256"], [self.tokens.get("0x" + subject[12:].hex(), 0)]
            ),
        }[data[:4]]

    def _call(self, tx_hash: str, name: str, args: Sequence[Any]) -> None:
        match name:
            case "deposit":
                self._deposit(tx_hash, *args)
            case "refundWithSignature":
                self._refund(tx_hash, *args)
            case "claimWithSignature":
                for row in args[0]:
                    voucher, _signature, total = _values(row)
                    config, ceiling = _values(voucher)
                    self._claim(tx_hash, config, ceiling, total)
            case "multicall":
                for data in args[0]:
                    function, values = _CODEC.decode_function_input(data)
                    self._call(tx_hash, function.fn_name, list(values.values()))
            case _:
                raise AssertionError(f"the model has no {name}")

    def _deposit(
        self, tx_hash: str, config: Sequence[Any], amount: int, collector: str, data: bytes
    ) -> None:
        channel_id, payer = _id_of(config), str(next(iter(_values(config)))).lower()
        _after, before, salt, _ = decode(["uint256", "uint256", "uint256", "bytes"], data)
        nonce = deposit_nonce(channel_id, f"0x{salt:064x}")
        if nonce in self.used or before <= time.time() or self.tokens.get(payer, 0) < amount:
            raise Reverted("execution reverted: deposit")
        self.used[nonce] = tx_hash
        self.tokens[payer] -= amount
        state = self.channels.get(channel_id, NEW)
        self.channels[channel_id] = replace(state, balance=state.balance + amount)
        self.events.append(Event(tx_hash, "Deposited", channel_id))

    def _claim(self, tx_hash: str, config: Sequence[Any], ceiling: int, total: int) -> None:
        channel_id = _id_of(config)
        state = self.channels.get(channel_id, NEW)
        if total > min(ceiling, state.balance):
            raise Reverted("execution reverted: claim")
        self.channels[channel_id] = replace(state, claimed=max(total, state.claimed))
        self.events.append(Event(tx_hash, "Claimed", channel_id))

    def _refund(
        self, tx_hash: str, config: Sequence[Any], amount: int, nonce: int, signature: bytes
    ) -> None:
        channel_id, payer = _id_of(config), str(next(iter(_values(config)))).lower()
        state = self.channels.get(channel_id, NEW)
        given = min(amount, state.balance - state.claimed)
        if nonce != state.refund_nonce or given <= 0:
            raise Reverted("execution reverted: refund")
        self.channels[channel_id] = replace(
            state, balance=state.balance - given, refund_nonce=nonce + 1
        )
        self.tokens[payer] = self.tokens.get(payer, 0) + given
        self.events.append(Event(tx_hash, "Refunded", channel_id))


def _id_of(config: Sequence[Any]) -> str:
    payer, key, receiver, authorizer, token, delay, salt = _values(config)
    addresses = (str(a).lower() for a in (payer, key, receiver, authorizer, token))
    return channel_id_of(ChannelConfig(*addresses, int(delay), "0x" + bytes(salt).hex()), CHAIN_ID)


def _values(row: Any) -> Sequence[Any]:
    """The values of a struct, however it was decoded."""
    return list(row.values()) if isinstance(row, dict) else row


def a_wallet(chain: ModelChain) -> tuple[Any, str]:
    """A smart wallet: the account of its owner, and its own address."""
    owner, wallet = Account.create(), Account.create().address.lower()
    chain.wallets[wallet] = owner.address.lower()
    return owner, wallet

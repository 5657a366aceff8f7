"""Pure: the calls a payer makes to the contract of ``batch-settlement``, as their ABI has them."""

from xbyte_live.evm.channels import COLLECTOR, CONTRACT, ChannelConfig, Deposit
from xbyte_live.evm.eip712 import address_word, word

ADDRESS = CONTRACT

_DEPOSIT = "140f1e75"  # deposit(config,uint128,address,bytes)
_INITIATE_WITHDRAW = "cf5cf3dc"  # initiateWithdraw(config,uint128)
_FINALIZE_WITHDRAW = "e88377b1"  # finalizeWithdraw(config)
_CHANNELS = "7a7ebd7b"  # channels(bytes32)
_PENDING_WITHDRAWALS = "b7f06ebe"  # pendingWithdrawals(bytes32)


def initiate_withdraw(config: ChannelConfig, amount: int) -> str:
    """Announces that the payer takes back ``amount`` after the channel's delay."""
    return _call(_INITIATE_WITHDRAW, _config(config), word(amount))


def finalize_withdraw(config: ChannelConfig) -> str:
    """Takes back what was announced, or what claims have left of it."""
    return _call(_FINALIZE_WITHDRAW, _config(config))


def deposit(config: ChannelConfig, order: Deposit) -> str:
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


def channels(channel_id: str) -> str:
    """Asks for a channel's balance and what was claimed of it."""
    return _call(_CHANNELS, bytes.fromhex(channel_id[2:]))


def pending_withdrawals(channel_id: str) -> str:
    """Asks for the amount of a channel's withdrawal and when it was announced."""
    return _call(_PENDING_WITHDRAWALS, bytes.fromhex(channel_id[2:]))


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

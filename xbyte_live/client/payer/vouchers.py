"""Pure: signs the vouchers, deposits and refunds of a channel.

Source: x402 ``scheme_batch_settlement_evm``, "Client: Payment Construction".
"""

from typing import Any

from xbyte_live.client.payer.channel import Open, PayerChannel, presented
from xbyte_live.client.payer.channel_reports import ChannelRequirement
from xbyte_live.client.payer.signing import PAYMENT_HEADERS, IssuedPayment, Signer, payment_header
from xbyte_live.client.payer.terms import Offers
from xbyte_live.evm.channels import (
    COLLECTOR,
    CONTRACT,
    ChannelConfig,
    ChannelPayment,
    Deposit,
    Voucher,
    channel_id_of,
    deposit_nonce,
    voucher_digest,
)
from xbyte_live.evm.eip712 import SigningKey
from xbyte_live.money import Asset

# Ours alone, so that another program with this key has channels of its own; the same for good,
# so that a lost state can be found again on the chain.
SALT = "0x" + b"xbyte-live".hex().ljust(64, "0")

_RECEIVE_TYPE = {
    "ReceiveWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}
_VOUCHER_TYPE = {
    "Voucher": [
        {"name": "channelId", "type": "bytes32"},
        {"name": "maxClaimableAmount", "type": "uint128"},
    ]
}


class VoucherSigner:
    """Signs the vouchers of one account, in microseconds where the account shows its key."""

    def __init__(self, account: Signer) -> None:
        key = getattr(account, "key", None)
        self._account = account
        self._key = None if key is None else SigningKey(bytes(key))

    def voucher(self, channel: PayerChannel, ceiling: int) -> Voucher:
        """A voucher up to ``ceiling``; the same one each time."""
        chain_id = int(channel.network.partition(":")[2])
        if self._key is None:
            signature = bytes(self._typed(channel.channel_id, ceiling, chain_id).signature)
        else:
            digest = voucher_digest(channel.channel_id, ceiling, chain_id)
            signature = self._key.sign(digest)
        return Voucher(channel.channel_id, ceiling, "0x" + signature.hex())

    def _typed(self, channel_id: str, ceiling: int, chain_id: int) -> Any:
        domain = {
            "name": "x402 Batch Settlement",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": CONTRACT,
        }
        message = {
            "channelId": bytes.fromhex(channel_id[2:]),
            "maxClaimableAmount": ceiling,
        }
        return self._account.sign_typed_data(domain, _VOUCHER_TYPE, message)


def channel_for(requirement: ChannelRequirement, payer: str, salt: str) -> PayerChannel:
    """The channel that pays a requirement, as it is before anything is known of it."""
    terms = requirement.channel
    config = ChannelConfig(
        payer=payer.lower(),
        payer_authorizer=payer.lower(),
        receiver=requirement.pay_to.lower(),
        receiver_authorizer=terms.receiver_authorizer,
        token=requirement.asset.address.lower(),
        withdraw_delay=terms.withdraw_delay,
        salt=salt,
    )
    channel_id = channel_id_of(config, requirement.asset.chain_id)
    return PayerChannel(channel_id, requirement.asset.network, config)


def sign_deposit(
    account: Signer, asset: Asset, channel_id: str, amount: int, *, valid_before: int, salt: bytes
) -> Deposit:
    """An order to move ``amount`` into a channel, good until ``valid_before`` (Unix seconds)."""
    signed = account.sign_typed_data(
        {
            "name": asset.name,
            "version": asset.version,
            "chainId": asset.chain_id,
            "verifyingContract": asset.address,
        },
        _RECEIVE_TYPE,
        {
            "from": account.address,
            "to": COLLECTOR,
            "value": amount,
            "validAfter": 0,
            "validBefore": valid_before,
            "nonce": bytes.fromhex(deposit_nonce(channel_id, "0x" + salt.hex())[2:]),
        },
    )
    signature = "0x" + bytes(signed.signature).hex()
    return Deposit(amount, 0, valid_before, "0x" + salt.hex(), signature)


def sign_charge(
    signer: VoucherSigner,
    requirement: ChannelRequirement,
    channel: PayerChannel,
    *,
    deposit: Deposit | None,
    item: str,
    resource: str,
    home: str,
    now: float,
    terms: Offers | None,
) -> tuple[IssuedPayment, PayerChannel]:
    """A voucher for one delivery, with a deposit or without, and the channel since.

    With a ``home`` a part of it may come back, and that is where to ask for it.
    """
    amount = requirement.amount
    voucher = signer.voucher(channel, channel.ceiling(amount))
    identity = f"{channel.channel_id}:{channel.serial}"
    content = ChannelPayment("deposit" if deposit else "voucher", channel.config, voucher, deposit)
    payment = IssuedPayment(
        resource=resource,
        item=item,
        header=PAYMENT_HEADERS[2],
        value=payment_header(requirement, content.wire(), terms),
        amount=amount,
        network=requirement.asset.network,
        asset=requirement.asset.address,
        pay_to=requirement.pay_to,
        payer=channel.config.payer,
        identity=identity,
        signed_at=now,
        valid_before=deposit.valid_before if deposit else int(now),
        at_stake=channel.at_stake(amount),
        channel_id=channel.channel_id,
        deposit=deposit.amount if deposit else 0,
    )
    shown = Open(identity, voucher.ceiling, amount, payment.deposit)
    return payment, presented(channel, shown, deposit, resource.partition("#")[0], home, now=now)


def sign_refund(
    signer: VoucherSigner,
    requirement: ChannelRequirement,
    channel: PayerChannel,
    amount: int | None,
    terms: Offers,
) -> tuple[str, str]:
    """The header (name, value) that asks for ``amount`` back, or for all that was not charged."""
    voucher = signer.voucher(channel, channel.charged)
    content = ChannelPayment("refund", channel.config, voucher, refund=amount)
    return PAYMENT_HEADERS[2], payment_header(requirement, content.wire(), terms)

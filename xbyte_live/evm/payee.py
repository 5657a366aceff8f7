"""Adapter: the payee's key, where we hold it, which gives back what sessions have left."""

from typing import Any

from eth_utils.address import to_checksum_address

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.authorizer import Authorizer
from xbyte_live.evm.eip3009 import Authorization, transfer_digest
from xbyte_live.evm.keys import is_key
from xbyte_live.money import Asset


class Payee(Authorizer):
    """Signs transfers out of the payee's account; ``address`` is lower case."""

    def sign_transfer(
        self, asset: Asset, to: str, amount: int, *, nonce: str, valid_before: int
    ) -> dict[str, Any]:
        """An ``exact`` payload that moves ``amount`` once, whoever sends it and however often."""
        order = Authorization(self.address, to.lower(), amount, 0, valid_before, nonce, b"")
        return {
            "signature": self._sign(transfer_digest(order, asset)),
            "authorization": {
                "from": to_checksum_address(self.address),
                "to": to_checksum_address(to),
                "value": str(amount),
                "validAfter": "0",
                "validBefore": str(valid_before),
                "nonce": nonce,
            },
        }


def own_payee(settings: Settings) -> Payee | None:
    """The payee whose key we hold, if we hold one; raises ``ConfigError``, which hides it."""
    key = settings.payee_key.reveal()
    if not key:
        return None
    if not is_key(key):
        raise ConfigError("XBYTE_PAYEE_KEY is not a private key of 64 hex digits")
    payee = Payee(key)
    if settings.pay_to and settings.pay_to.lower() != payee.address:
        raise ConfigError("XBYTE_PAYEE_KEY is not the key of pay_to")
    return payee

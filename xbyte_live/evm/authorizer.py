"""Adapter: the key that authorizes claims and refunds of our channels."""

import logging
from collections.abc import Sequence

import coincurve

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.channels import Claim, claim_digest, refund_digest
from xbyte_live.evm.eip712 import keccak
from xbyte_live.evm.keys import gas_key, is_key

log = logging.getLogger(__name__)


class Authorizer:
    """Signs as ``receiverAuthorizer``; ``address`` is lower case. ``key`` is in hex."""

    def __init__(self, key: str) -> None:
        self._key = coincurve.PrivateKey(bytes.fromhex(key.removeprefix("0x")))
        public = self._key.public_key.format(compressed=False)
        self.address = "0x" + keccak(public[1:])[-20:].hex()

    def sign_claims(self, claims: Sequence[Claim], chain_id: int) -> str:
        """The signature that lets anyone send this batch of claims."""
        return self._sign(claim_digest(claims, chain_id))

    def sign_refund(self, channel_id: str, nonce: int, amount: int, chain_id: int) -> str:
        """The signature that lets anyone send this refund, once."""
        return self._sign(refund_digest(channel_id, nonce, amount, chain_id))

    def _sign(self, digest: bytes) -> str:
        signature = self._key.sign_recoverable(digest, hasher=None)
        return "0x" + (signature[:64] + bytes([signature[64] + 27])).hex()


def own_authorizer(settings: Settings) -> Authorizer | None:
    """The authorizer whose key we hold: its own, or the gas key where we pay gas ourselves.

    ``None`` where a remote facilitator is to authorize. Raises ``ConfigError``, which never
    holds any of the key.
    """
    key = settings.receiver_authorizer_key.reveal()
    if key:
        return Authorizer(_checked(key, "XBYTE_RECEIVER_AUTHORIZER_KEY"))
    return None if settings.facilitators else Authorizer(gas_key(settings))


def earlier_authorizers(settings: Settings) -> list[Authorizer]:
    """Those that channels may have been opened with under other settings: named, or the gas key.

    A gas key that cannot be had is an error where it is in use, and else a warning. Raises
    ``ConfigError``.
    """
    named = settings.earlier_authorizer_keys.reveal().split(",")
    keys = [_checked(key.strip(), "XBYTE_EARLIER_AUTHORIZER_KEYS") for key in named if key.strip()]
    if settings.gas_key or settings.gas_keystore:
        try:
            keys.append(gas_key(settings))
        except ConfigError as error:
            if not settings.facilitators:
                raise
            log.warning("channels opened under the gas key cannot be claimed: %s", error)
    return [Authorizer(key) for key in keys]


def _checked(key: str, variable: str) -> str:
    if not is_key(key):
        raise ConfigError(f"{variable} is not a private key of 64 hex digits")
    return key

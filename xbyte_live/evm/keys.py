"""Adapter: our own keys (gas, claims, payee): read from the settings, used to sign."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.channels import Claim, claim_digest, refund_digest
from xbyte_live.evm.eip712 import SigningKey
from xbyte_live.evm.eip3009 import Authorization, transfer_digest
from xbyte_live.money import Asset

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")


def is_address(text: str) -> bool:
    """Whether a text is an EVM address in hex."""
    return _ADDRESS.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether a text has the form of a private key in hex."""
    return _KEY.fullmatch(text) is not None


def gas_key(settings: Settings) -> str:
    """The private key in hex; raises ``ConfigError``, which never holds any of it."""
    if settings.gas_key:
        if not is_key(settings.gas_key.reveal()):
            raise ConfigError("XBYTE_GAS_KEY is not a private key of 64 hex digits")
        return settings.gas_key.reveal()
    if settings.gas_keystore:
        return _from_keystore(Path(settings.gas_keystore), settings.gas_keystore_password.reveal())
    raise ConfigError(
        "nothing can settle payments: set XBYTE_FACILITATORS to facilitator URLs, "
        "or XBYTE_GAS_KEY (or gas_keystore) to settle with our own gas"
    )


def _from_keystore(path: Path, password: str) -> str:
    from eth_account import Account

    try:
        keystore = json.loads(path.read_text("utf-8"))
        return "0x" + bytes(Account.decrypt(keystore, password)).hex()
    except OSError:
        raise ConfigError("the file that gas_keystore names cannot be read") from None
    except (ValueError, TypeError, KeyError, NotImplementedError):
        raise ConfigError(
            "the gas keystore cannot be opened; check XBYTE_GAS_KEYSTORE_PASSWORD"
        ) from None


class Authorizer:
    """Signs as ``receiverAuthorizer``; ``address`` is lower case. ``key`` is in hex."""

    def __init__(self, key: str) -> None:
        self._key = SigningKey(bytes.fromhex(key.removeprefix("0x")))
        self.address = self._key.address

    def sign_claims(self, claims: Sequence[Claim], chain_id: int) -> str:
        """The signature that lets anyone send this batch of claims."""
        return self._sign(claim_digest(claims, chain_id))

    def sign_refund(self, channel_id: str, nonce: int, amount: int, chain_id: int) -> str:
        """The signature that lets anyone send this refund, once."""
        return self._sign(refund_digest(channel_id, nonce, amount, chain_id))

    def _sign(self, digest: bytes) -> str:
        return "0x" + self._key.sign(digest).hex()


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

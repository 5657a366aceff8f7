"""Adapter: the key that pays gas, from the environment or an encrypted keystore file."""

import json
import re
from pathlib import Path

from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError

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

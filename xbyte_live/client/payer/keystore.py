"""Adapter: the payer's key, in an encrypted keystore file or the environment."""

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from xbyte_live.errors import ConfigError, StoreError
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

KEY_ENV = "XBYTE_WALLET_KEY"
PASSWORD_ENV = "XBYTE_WALLET_PASSWORD"  # noqa: S105  the name of a variable
PATH_ENV = "XBYTE_WALLET"
WORK = 2**18  # scrypt's n: about a second and 256 MB for each try at a password

_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"(?:0x)?[0-9a-fA-F]{40}")
_MOST_WORK = {"n": 2**20, "r": 32, "p": 16, "c": 10_000_000}


def wallet_path(environ: Mapping[str, str]) -> Path:
    """Where the keystore lies: ``XBYTE_WALLET``, or the user's configuration directory."""
    if environ.get(PATH_ENV):
        return Path(environ[PATH_ENV]).expanduser()
    config = environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "xbyte-live" / "wallet.json"


def new_wallet(path: Path, password: str, *, work: int = WORK) -> str:
    """Make a key, keep it encrypted at ``path`` (mode 0600), and return its address.

    Raises ``ConfigError`` for an empty password or a file that is there already, which is never
    overwritten, and ``StoreError`` when it cannot be written.
    """
    if not password:
        raise ConfigError("a wallet needs a password")
    if path.exists():
        raise _taken(path)
    account: LocalAccount = Account.create()
    keystore = Account.encrypt(account.key, password, kdf="scrypt", iterations=work)
    _write_once(path, json.dumps(keystore).encode())
    return str(account.address)


def wallet_address(path: Path) -> str:
    """The address of the wallet at ``path``, which needs no password; raises ``ConfigError``."""
    address = _keystore(path).get("address")
    if not isinstance(address, str) or _ADDRESS.fullmatch(address) is None:
        raise _unreadable(path)
    return str(to_checksum_address(address))


def open_wallet(path: Path, password: str) -> LocalAccount:
    """The key at ``path``; raises ``ConfigError`` for a wrong password or another kind of file."""
    keystore = _keystore(path)
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(keystore, password))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise ConfigError(f"that is not the password of the wallet {path}") from None
        raise _unreadable(path) from None
    except (TypeError, KeyError, AttributeError, NotImplementedError):
        raise _unreadable(path) from None
    return account


def account_of_environment(environ: Mapping[str, str]) -> LocalAccount | None:
    """The key in ``XBYTE_WALLET_KEY``, if there is one; raises ``ConfigError`` if it is none."""
    key = environ.get(KEY_ENV, "").strip()
    if not key:
        return None
    try:
        if _KEY.fullmatch(key) is None:
            raise ValueError
        account: LocalAccount = Account.from_key(key)
    except Exception:  # whatever it is, its text may hold the key
        raise ConfigError(f"{KEY_ENV} is not a private key of 64 hex digits") from None
    return account


def _keystore(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no wallet at {path}; make one with `xbyte-live wallet new`"
        ) from None
    except OSError as error:
        raise ConfigError(f"the wallet {path} cannot be read: {error.strerror}") from None
    try:
        keystore = read_json(data, limit=MAX_DOCUMENT)
        work = keystore["crypto"]["kdfparams"]
        sane = all(0 < work.get(name, 1) <= most for name, most in _MOST_WORK.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _unreadable(path) from None
    if keystore.get("version") != 3 or not sane:
        raise _unreadable(path)
    return dict(keystore)


def _write_once(path: Path, data: bytes) -> None:
    """Make ``path`` appear whole and safe on disk, and only if nothing is there."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, data)
            os.fsync(file)
            _link(scratch, path)
        finally:
            os.close(file)
            scratch.unlink()
    except OSError as error:
        raise StoreError(f"the wallet {path} cannot be written: {error.strerror}") from None


def _link(scratch: Path, path: Path) -> None:
    try:
        os.link(scratch, path)
    except FileExistsError:
        raise _taken(path) from None


def _taken(path: Path) -> ConfigError:
    return ConfigError(f"there is a wallet at {path} already; it is never overwritten")


def _unreadable(path: Path) -> ConfigError:
    return ConfigError(f"{path} is not an encrypted keystore (version 3)")

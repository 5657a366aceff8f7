"""Wiring: the wallet of the settings and environment: its key, its channels, its limits."""

import os
import sys

import click
from eth_account.signers.local import LocalAccount

from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.channel_store import FileChannelStore, channels_folder
from xbyte_live.client.payer.keystore import (
    PASSWORD_ENV,
    account_of_environment,
    open_wallet,
    wallet_address,
    wallet_path,
)
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import KNOWN_ASSETS
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.money import PRICE_DECIMALS, Price, parse_decimal

DEPOSIT = "1.00"  # dollars that may lie unspent in one channel, unless told otherwise


def open_payer(
    settings: Settings,
    *,
    budget: str,
    max_price: str | None = None,
    max_per_minute: str | None = None,
    max_deposit: str = DEPOSIT,
) -> Payer:
    """The payer of the wallet, within limits in dollars; raises ``ConfigError``, ``MoneyError``."""
    limits = Budget(
        parse_decimal(budget, PRICE_DECIMALS),
        max_price=None if max_price is None else Price.parse(max_price),
        per_minute=None
        if max_per_minute is None
        else parse_decimal(max_per_minute, PRICE_DECIMALS),
    )
    return Payer(
        account(),
        limits,
        assets=(*settings.custom_assets, *KNOWN_ASSETS),
        deposit_cap=parse_decimal(max_deposit, PRICE_DECIMALS),
    )


def open_channels(address: str) -> FileChannelStore:
    """The store of an address's channels, beside its wallet."""
    return FileChannelStore(channels_folder(wallet_path(os.environ), address))


def account() -> LocalAccount:
    """The key that pays, from the environment or its file, whose password is asked for."""
    found = account_of_environment(os.environ)
    if found is not None:
        return found
    path = wallet_path(os.environ)
    wallet_address(path)  # says what is wrong with the file before a password is asked for
    return open_wallet(path, password(confirm=False))


def address() -> str:
    """The address that pays; no password is asked for."""
    found = account_of_environment(os.environ)
    if found is not None:
        return str(found.address)
    return wallet_address(wallet_path(os.environ))


def password(*, confirm: bool) -> str:
    """The wallet's password, from the environment or asked for; raises ``ConfigError``."""
    given = os.environ.get(PASSWORD_ENV)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"the wallet's password is asked on a terminal; or set {PASSWORD_ENV}")
    return str(
        click.prompt("Wallet password", hide_input=True, confirmation_prompt=confirm, err=True)
    )

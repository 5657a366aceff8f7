"""Wiring: the commands of the key that pays, and of its channels."""

import click

from xbyte_live.cli.options import json_option, run, settings_options
from xbyte_live.config import Settings


@click.group()
def wallet() -> None:
    """Keep the key that pays, encrypted (or in XBYTE_WALLET_KEY)."""


@wallet.command("new")
@json_option
def wallet_new(as_json: bool) -> None:
    """Make a wallet and print the address to fund."""
    from xbyte_live.cli.wallet_files import make_wallet

    make_wallet(as_json=as_json)


@wallet.command("show")
@json_option
def wallet_show(as_json: bool) -> None:
    """Print the wallet's address."""
    from xbyte_live.cli.wallet_files import show_wallet

    show_wallet(as_json=as_json)


@wallet.command("balance")
@json_option
@settings_options("networks", "rpc_urls", "assets")
def wallet_balance(settings: Settings, as_json: bool) -> None:
    """Print what the wallet holds on chain."""
    from xbyte_live.cli.wallet_files import show_balance

    run(show_balance(settings, as_json=as_json))


@wallet.command("channels")
@json_option
def wallet_channels(as_json: bool) -> None:
    """List the payment channels this wallet has opened, and what is left in them."""
    from xbyte_live.cli.wallets import show_channels

    show_channels(as_json=as_json)


@wallet.command("deposit")
@click.argument("url")
@click.argument("amount")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_deposit(settings: Settings, url: str, amount: str, as_json: bool) -> None:
    """Put AMOUNT dollars into the channel that pays for URL; costs the wallet gas."""
    from xbyte_live.cli.wallets import deposit

    run(deposit(settings, url, amount, as_json=as_json))


@wallet.command("refund")
@click.argument("target", required=False, metavar="[URL|CHANNEL]")
@click.option("--amount", help="Dollars to ask for; else all that was not charged.")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_refund(
    settings: Settings, target: str | None, amount: str | None, as_json: bool
) -> None:
    """Ask servers to give back what is left in channels; costs no gas."""
    from xbyte_live.cli.wallets import refund

    run(refund(settings, target, amount, as_json=as_json))


@wallet.command("withdraw")
@click.argument("channel")
@click.option("--finalize", is_flag=True, help="Take it, after the channel's delay.")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_withdraw(settings: Settings, channel: str, finalize: bool, as_json: bool) -> None:
    """Take back what is left in CHANNEL without its server; costs the wallet gas."""
    from xbyte_live.cli.wallets import withdraw

    run(withdraw(settings, channel, finalize=finalize, as_json=as_json))

"""Wiring: the commands that pay and keep a wallet, with what they show."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import httpx
from eth_account.signers.local import LocalAccount
from rich.progress import Progress as Bars
from rich.progress import TaskID

from xbyte_live.cli.output import print_json, progress_bar, size, warn
from xbyte_live.client.download.download import Options, Result, download
from xbyte_live.client.download.progress import DownloadPlan
from xbyte_live.client.payer.budget import Budget, dollars
from xbyte_live.client.payer.chain import channel_reader, read_balance
from xbyte_live.client.payer.channel_lock import Turns
from xbyte_live.client.payer.channel_store import FileChannelStore, channels_folder
from xbyte_live.client.payer.keystore import (
    PASSWORD_ENV,
    account_of_environment,
    new_wallet,
    open_wallet,
    wallet_address,
    wallet_path,
)
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import IssuedPayment
from xbyte_live.client.payer.terms import KNOWN_ASSETS, Receipt
from xbyte_live.client.payer.withdrawals import Closing
from xbyte_live.client.pieces import suggested_name
from xbyte_live.client.playlists import Selection
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, XByteError
from xbyte_live.money import PRICE_DECIMALS, Asset, Price, format_decimal, parse_decimal

DEPOSIT = "1.00"  # dollars that may lie unspent in one channel, unless told otherwise


async def pay(
    settings: Settings,
    url: str,
    *,
    out: Path | None,
    budget: str,
    max_price: str | None,
    max_per_minute: str | None,
    max_deposit: str,
    rendition: str | None,
    max_bandwidth: int | None,
    time_limit: float | None,
    close: bool,
    allow_plain_http: bool,
    as_json: bool,
) -> None:
    """Buy what a URL offers into a file, and say what it cost.

    With ``close`` the server is asked for what is left in the channel that was paid through.
    """
    payer = open_payer(
        settings,
        budget=budget,
        max_price=max_price,
        max_per_minute=max_per_minute,
        max_deposit=max_deposit,
    )
    target = out or Path(suggested_name(url))
    options = Options(
        wanted=Selection(rendition=rendition, max_bandwidth=max_bandwidth),
        time_limit=time_limit,
        allow_plain_http=allow_plain_http,
    )
    with progress_bar(quiet=as_json, download=True) as bars:
        result = await download(
            url,
            target,
            payer,
            options=options,
            progress=_Shown(bars),
            store=open_channels(payer.address),
            read_channel=channel_reader(settings.rpc_by_network),
        )
    refunds = await _closed(settings, payer) if close else []
    if as_json:
        print_json(_described(result) | ({"refunds": refunds} if close else {}))
    else:
        _tell(result)
        for refund in refunds:
            click.echo(f"{dollars(refund['amount'])} came back ({refund['transaction']})")


async def _closed(settings: Settings, payer: Payer) -> list[dict[str, Any]]:
    """Have the rest of every channel that was paid through given back; what came."""
    turns = Turns(
        payer.channels, open_channels(payer.address), channel_reader(settings.rpc_by_network)
    )
    found: list[dict[str, Any]] = []
    async with httpx.AsyncClient(timeout=httpx.Timeout(60.0, connect=10.0)) as client:
        for channel in payer.used:
            if channel.refundable:
                closing = Closing(payer, turns, client)
                try:
                    closed, refund = await closing.refund(channel.url, only=channel)
                except XByteError as error:
                    warn(f"what is left in {channel.channel_id} did not come back: {error}")
                    continue
                amount, transaction = refund.amount, refund.transaction
                name = closed.channel_id
                found.append({"channel": name, "amount": amount, "transaction": transaction})
    return found


def open_payer(
    settings: Settings,
    *,
    budget: str,
    max_price: str | None = None,
    max_per_minute: str | None = None,
    max_deposit: str = DEPOSIT,
) -> Payer:
    """The wallet behind limits in dollars."""
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
    """The channels of an address, beside its wallet."""
    return FileChannelStore(channels_folder(wallet_path(os.environ), address))


class _Shown:
    """A download's progress on a terminal: bytes so far, and what they cost."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID = bars.add_task("looking", total=None)
        self._spent = 0

    def planned(self, plan: DownloadPlan) -> None:
        self._bars.update(self._task, total=plan.size, completed=plan.have)
        if plan.cost is not None and self._spent == 0:
            self._bars.update(self._task, description=f"paying {dollars(plan.cost)}")

    def paid(self, payment: IssuedPayment, receipt: Receipt | None) -> None:
        self._spent += payment.amount
        self._bars.update(self._task, description=f"paid {dollars(self._spent)}")

    def received(self, size: int) -> None:
        self._bars.advance(self._task, size)


def _tell(result: Result) -> None:
    rate = f", {result.seconds:.1f} s" if result.seconds >= 0.1 else ""
    click.echo(
        f"{result.path}: {size(result.size)} in {result.pieces} pieces "
        f"for {dollars(result.cost)}{rate}"
    )
    if result.signed > result.cost:
        warn(f"{dollars(result.signed - result.cost)} more was signed for and not delivered")
    if result.ending != "complete":
        why = {"budget": "the budget is used up", "time": "the time is over"}[result.ending]
        warn(f"it goes on, but {why}")


def _described(result: Result) -> dict[str, object]:
    return {
        "path": str(result.path),
        "bytes": result.size,
        "pieces": result.pieces,
        "cost": result.cost,
        "signed": result.signed,
        "seconds": round(result.seconds, 3),
        "ending": result.ending,
        "receipts": [asdict(receipt) for receipt in result.receipts],
    }


def make_wallet(*, as_json: bool) -> None:
    """Make a key and keep it encrypted; prints where, and the address to fund."""
    path = wallet_path(os.environ)
    address = new_wallet(path, _password(confirm=True))
    if as_json:
        print_json({"address": address, "path": str(path)})
    else:
        click.echo(address)
        warn(f"kept in {path}; keep a copy, and its password: without both the money is lost")


def show_wallet(*, as_json: bool) -> None:
    """Print the address that pays."""
    if as_json:
        print_json({"address": address()})
    else:
        click.echo(address())


async def show_balance(settings: Settings, *, as_json: bool) -> None:
    """Print what the wallet holds on each network of the settings."""
    holder = address()
    found = []
    for network in settings.networks:
        asset, url = asset_on(settings, network), settings.rpc_by_network.get(network)
        if url is None:
            raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
        balance = await read_balance(url, asset, holder)
        found.append((asset, balance))
    if as_json:
        print_json(
            [
                {
                    "address": holder,
                    "network": asset.network,
                    "asset": asset.address,
                    "balance": balance.token,
                    "native": str(balance.native),
                }
                for asset, balance in found
            ]
        )
        return
    click.echo(holder)
    for asset, balance in found:
        held = format_decimal(balance.token, asset.decimals)
        click.echo(f"{held} {asset.symbol} on {asset.network}")


def account() -> LocalAccount:
    """The key that pays, from the environment or its file, whose password is asked for."""
    found = account_of_environment(os.environ)
    if found is not None:
        return found
    path = wallet_path(os.environ)
    wallet_address(path)  # says what is wrong with the file before a password is asked for
    return open_wallet(path, _password(confirm=False))


def address() -> str:
    """The address that pays; no password is asked for."""
    found = account_of_environment(os.environ)
    if found is not None:
        return str(found.address)
    return wallet_address(wallet_path(os.environ))


def _password(*, confirm: bool) -> str:
    given = os.environ.get(PASSWORD_ENV)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"the wallet's password is asked on a terminal; or set {PASSWORD_ENV}")
    return str(
        click.prompt("Wallet password", hide_input=True, confirmation_prompt=confirm, err=True)
    )


def asset_on(settings: Settings, network: str) -> Asset:
    """The token that is paid with on a network; raises ``ConfigError``."""
    for asset in (*settings.custom_assets, *KNOWN_ASSETS):
        if asset.network == network:
            return asset
    raise ConfigError(f"no token is known on {network}; name one in assets")

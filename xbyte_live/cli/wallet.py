"""Wiring: the ``wallet`` commands: the key that pays, and its payment channels."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import httpx2

from xbyte_live.cli.options import json_option, settings_options
from xbyte_live.cli.output import print_json, warn
from xbyte_live.cli.wallet_files import account, address, open_channels, open_payer, password
from xbyte_live.client.payer.budget import dollars
from xbyte_live.client.payer.chain import channel_reader, read_balance
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.client.payer.channel_lock import ChannelLock
from xbyte_live.client.payer.keystore import new_wallet, wallet_path
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import KNOWN_ASSETS, item_of, plain
from xbyte_live.client.payer.withdrawals import Withdrawals
from xbyte_live.client.playlists import Offered, PlaylistReader, Selection
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, DeliveryFailed, PaymentRefused
from xbyte_live.evm.channels import REFUND_NOTHING
from xbyte_live.money import PRICE_DECIMALS, Asset, format_decimal, parse_decimal


@click.group()
def wallet() -> None:
    """Keep the key that pays, encrypted (or in XBYTE_WALLET_KEY)."""


@wallet.command("new")
@json_option
def wallet_new(as_json: bool) -> None:
    """Make a wallet and print the address to fund."""
    path = wallet_path(os.environ)
    made = new_wallet(path, password(confirm=True))
    if as_json:
        print_json({"address": made, "path": str(path)})
    else:
        click.echo(made)
        warn(f"kept in {path}; keep a copy, and its password: without both the money is lost")


@wallet.command("show")
@json_option
def wallet_show(as_json: bool) -> None:
    """Print the wallet's address."""
    if as_json:
        print_json({"address": address()})
    else:
        click.echo(address())


@wallet.command("balance")
@json_option
@settings_options("networks", "rpc_urls", "assets")
async def wallet_balance(settings: Settings, as_json: bool) -> None:
    """Print what the wallet holds on chain."""
    holder = address()
    found = []
    for network in settings.networks:
        asset = _asset_on(settings, network)
        found.append((asset, await read_balance(_node(settings, network), asset, holder)))
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


@wallet.command("channels")
@json_option
def wallet_channels(as_json: bool) -> None:
    """List the payment channels this wallet has opened, and what is left in them."""
    channels = list(open_channels(address()).load().values())
    if as_json:
        print_json([_described(channel) for channel in channels])
        return
    if not channels:
        click.echo("no channels; `xbyte-live pay` opens them where a server takes them")
    for channel in channels:
        click.echo(f"{channel.channel_id}  {plain(_server(channel))}  {channel.network}")
        click.echo(
            f"  {channel.state}: {dollars(channel.charged)} charged of "
            f"{dollars(channel.balance)}, {dollars(channel.refundable)} refundable"
            f"{_about(channel)}"
        )


@wallet.command("deposit")
@click.argument("url")
@click.argument("amount")
@json_option
@settings_options("assets", "rpc_urls")
async def wallet_deposit(settings: Settings, url: str, amount: str, as_json: bool) -> None:
    """Put AMOUNT dollars into the channel that pays for URL; costs the wallet gas.

    Payments need no such thing: they bring a deposit along, at the server's gas.
    """
    async with _at_hand(settings) as tools:
        offered = await tools.survey(url)
        terms = offered.terms or offered.asked
        if terms is None:
            raise DeliveryFailed("nothing is sold there")
        requirement = tools.payer.channel_way(terms, 1)
        channel, transaction = await tools.closing.deposit(
            requirement,
            parse_decimal(amount, PRICE_DECIMALS),
            account(),
            _node(settings, requirement.asset.network),
            time.time(),
        )
    if as_json:
        print_json({**_described(channel), "transaction": transaction})
    else:
        click.echo(f"{dollars(channel.balance)} in {channel.channel_id} ({transaction})")


@wallet.command("refund")
@click.argument("target", required=False, metavar="[URL|CHANNEL]")
@click.option("--amount", help="Dollars to ask for; else all that was not charged.")
@json_option
@settings_options("assets", "rpc_urls")
async def wallet_refund(
    settings: Settings, target: str | None, amount: str | None, as_json: bool
) -> None:
    """Ask servers to give back what is left in channels; costs no gas."""
    wanted = None if amount is None else parse_decimal(amount, PRICE_DECIMALS)
    done: list[dict[str, object]] = []
    async with _at_hand(settings) as tools:
        for url, only in _to_refund(tools.payer, target):
            try:
                place = await tools.priced(url)
                channel, given = await tools.closing.refund(place, wanted, only=only)
            except PaymentRefused as refusal:
                if target is not None or refusal.code != REFUND_NOTHING:
                    raise
                continue
            done.append(
                {
                    "channel": channel.channel_id,
                    "amount": given.amount,
                    "transaction": given.transaction,
                }
            )
            if not as_json:
                click.echo(f"{dollars(given.amount)} came back ({given.transaction})")
    if as_json:
        print_json(done)
    elif not done:
        click.echo("there is nothing to refund")


@wallet.command("withdraw")
@click.argument("channel")
@click.option("--finalize", is_flag=True, help="Take it, after the channel's delay.")
@json_option
@settings_options("assets", "rpc_urls")
async def wallet_withdraw(settings: Settings, channel: str, finalize: bool, as_json: bool) -> None:
    """Take back what is left in CHANNEL without its server; costs the wallet gas."""
    async with _at_hand(settings) as tools:
        found = _named(tools.payer, channel)
        node = _node(settings, found.network)
        step = tools.closing.finish_withdrawal if finalize else tools.closing.begin_withdrawal
        done = await step(found, account(), node)
    if as_json:
        print_json(
            {
                "channel": found.channel_id,
                "amount": done.amount,
                "finalize_at": done.finalize_at or None,
                "transaction": done.transaction,
            }
        )
    elif finalize:
        click.echo(f"{dollars(done.amount)} came back ({done.transaction})")
    else:
        click.echo(
            f"{dollars(done.amount)} can be taken back after {_time(done.finalize_at)}: "
            f"`xbyte-live wallet withdraw {found.channel_id} --finalize`"
        )
        warn("until then its server may claim what it has charged")


@dataclass(frozen=True, slots=True)
class _Tools:
    payer: Payer
    closing: Withdrawals
    playlists: PlaylistReader

    async def survey(self, url: str) -> Offered:
        return await self.playlists.survey(url, Selection())

    async def priced(self, url: str) -> str:
        """The URL of a priced piece of a URL's item, else the URL: refunds are asked for there."""
        item = item_of(url)
        for place in (url, f"{item}/index.m3u8") if "/hls/" in item else (url,):
            try:
                offered = await self.survey(place)
            except DeliveryFailed:
                continue
            for piece in offered.pieces:
                if piece.amount or (piece.amount is None and offered.asked is not None):
                    return piece.url
        return url


@asynccontextmanager
async def _at_hand(settings: Settings) -> AsyncIterator[_Tools]:
    payer = open_payer(settings, budget="0")
    reader = channel_reader(settings.rpc_by_network)
    turns = ChannelLock(payer.channels, open_channels(payer.address), reader)
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(60.0, connect=10.0)) as client:
        yield _Tools(payer, Withdrawals(payer, turns, client), PlaylistReader(client))


def _to_refund(payer: Payer, target: str | None) -> list[tuple[str, PayerChannel | None]]:
    """The URLs to ask, each with the channel to ask about if it is not the one that pays there."""
    if target is not None and target.startswith(("http://", "https://")):
        return [(target, None)]
    if target is not None:
        named = _named(payer, target)
        return [(named.url, named)]
    asked = (c for c in payer.channels.values() if c.state in ("open", "empty") and c.may_refund)
    return [(channel.url, channel) for channel in asked]


def _named(payer: Payer, channel_id: str) -> PayerChannel:
    """The channel whose id is, or alone begins with, ``channel_id``; raises ``ConfigError``."""
    name = channel_id.lower()
    found = [channel for known, channel in payer.channels.items() if known.startswith(name)]
    if len(found) != 1 or not name.startswith("0x"):
        raise ConfigError(
            "no single channel of this wallet has that id; `xbyte-live wallet channels` lists them"
        )
    return found[0]


def _node(settings: Settings, network: str) -> str:
    url = settings.rpc_by_network.get(network)
    if url is None:
        raise ConfigError(f"no RPC node is known for {network}; set rpc_urls={network}=URL")
    return url


def _asset_on(settings: Settings, network: str) -> Asset:
    for asset in (*settings.custom_assets, *KNOWN_ASSETS):
        if asset.network == network:
            return asset
    raise ConfigError(f"no token is known on {network}; name one in assets")


def _described(channel: PayerChannel) -> dict[str, object]:
    return {
        "channel": channel.channel_id,
        "server": _server(channel),
        "network": channel.network,
        "payee": channel.config.receiver,
        "charged": channel.charged,
        "signed": channel.signed,
        "balance": channel.balance,
        "refundable": channel.refundable,
        "state": channel.state,
        "finalize_at": channel.withdrawn_at or None,
        "fault": channel.fault or None,
    }


def _about(channel: PayerChannel) -> str:
    if channel.fault:
        return f"; {plain(channel.fault, 300)}"
    if channel.withdrawn_at:
        return f"; it can be taken back after {_time(channel.withdrawn_at)}"
    return ""


def _server(channel: PayerChannel) -> str:
    parts = httpx2.URL(channel.url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}" if parts.host else ""


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

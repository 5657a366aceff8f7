"""Wiring: the commands about a wallet's payment channels, with what they show."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import httpx

from xbyte_live.cli.output import print_json, warn
from xbyte_live.cli.wallet_files import account, address, open_channels, open_payer
from xbyte_live.client.payer.budget import dollars
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.client.payer.channel_lock import Turns
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import item_of, plain
from xbyte_live.client.payer.withdrawals import Closing
from xbyte_live.client.playlists import Offered, PlaylistReader, Selection
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, DeliveryFailed, PaymentRefused
from xbyte_live.evm.channels import REFUND_NOTHING
from xbyte_live.money import PRICE_DECIMALS, parse_decimal


def show_channels(*, as_json: bool) -> None:
    """Print every channel of the wallet as it is known here; nobody is asked."""
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


async def deposit(settings: Settings, url: str, amount: str, *, as_json: bool) -> None:
    """Put money into the channel of what a URL sells, in a transaction of the wallet's own.

    A channel needs no such thing: a payment brings its deposit along, at the server's gas. This
    is for who wants another amount in it.
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


async def refund(
    settings: Settings, target: str | None, amount: str | None, *, as_json: bool
) -> None:
    """Ask servers for what they did not charge: that of a URL or a channel, or all of them."""
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


async def withdraw(settings: Settings, channel_id: str, *, finalize: bool, as_json: bool) -> None:
    """Take money out of a channel without its server: announce it, and after the delay take it."""
    async with _at_hand(settings) as tools:
        channel = _named(tools.payer, channel_id)
        node = _node(settings, channel.network)
        step = tools.closing.finish_withdrawal if finalize else tools.closing.begin_withdrawal
        done = await step(channel, account(), node)
    if as_json:
        print_json(
            {
                "channel": channel.channel_id,
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
            f"`xbyte-live wallet withdraw {channel.channel_id} --finalize`"
        )
        warn("until then its server may claim what it has charged")


@dataclass(frozen=True, slots=True)
class _Tools:
    payer: Payer
    closing: Closing
    surveyor: PlaylistReader

    async def survey(self, url: str) -> Offered:
        return await self.surveyor.survey(url, Selection())

    async def priced(self, url: str) -> str:
        """Something that a URL's item sells, if it does: a refund goes where a payment goes."""
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
    turns = Turns(payer.channels, open_channels(payer.address), reader)
    async with httpx.AsyncClient(timeout=httpx.Timeout(60.0, connect=10.0)) as client:
        yield _Tools(payer, Closing(payer, turns, client), PlaylistReader(client))


def _to_refund(payer: Payer, target: str | None) -> list[tuple[str, PayerChannel | None]]:
    """Whom to ask, and about which channel, if not about the one that pays there."""
    if target is not None and target.startswith(("http://", "https://")):
        return [(target, None)]
    if target is not None:
        named = _named(payer, target)
        return [(named.url, named)]
    asked = (c for c in payer.channels.values() if c.state in ("open", "empty") and c.may_refund)
    return [(channel.url, channel) for channel in asked]


def _named(payer: Payer, channel_id: str) -> PayerChannel:
    """A channel by its id, or by what no other's id begins with."""
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
    parts = httpx.URL(channel.url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}" if parts.host else ""


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

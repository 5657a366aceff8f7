"""Wiring: ``session``: a URL for players that cannot pay, bought for a budget."""

import click
import httpx2

from xbyte_live.cli.options import (
    PAYER_SETTINGS,
    json_option,
    plain_http_option,
    settings_options,
)
from xbyte_live.cli.output import print_json, warn
from xbyte_live.cli.wallet_files import open_channels, open_payer
from xbyte_live.client.http.transport import PayingTransport
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.sessions import PATIENCE, buy_session
from xbyte_live.config import Settings
from xbyte_live.money import PRICE_DECIMALS, parse_decimal

_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)


@click.command()
@click.argument("url")
@click.option("--budget", default="0.50", show_default=True, help="Dollars to buy it for.")
@plain_http_option
@json_option
@settings_options(*PAYER_SETTINGS)
async def session(
    url: str, settings: Settings, budget: str, allow_plain_http: bool, as_json: bool
) -> None:
    """Buy a URL that any player plays, for a budget; what is left of it goes back."""
    payer = open_payer(settings, budget=budget)
    paying = PayingTransport(
        payer,
        store=open_channels(payer.address),
        read_channel=channel_reader(settings.rpc_by_network),
        patience=PATIENCE,
        allow_plain_http=allow_plain_http,
    )
    async with httpx2.AsyncClient(transport=paying, timeout=_TIMEOUT) as http:
        bought = await buy_session(
            http,
            url,
            dollars=budget.strip().removeprefix("$"),
            budget=parse_decimal(budget, PRICE_DECIMALS),
        )
    if as_json:
        shown = {name: getattr(bought, name) for name in bought.__slots__}
        print_json(shown)
        return
    click.echo(bought.url)
    warn(f"{bought.left} dollars to spend; whoever has this URL can spend them")

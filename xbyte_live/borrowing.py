"""Wiring: the command that buys a session, for players that cannot pay."""

import click
import httpx

from xbyte_live.client.budget import Budget
from xbyte_live.client.payer import Payer
from xbyte_live.client.session import buy_session
from xbyte_live.client.terms import KNOWN_ASSETS
from xbyte_live.config import Settings
from xbyte_live.display import print_json, warn
from xbyte_live.money import PRICE_DECIMALS, parse_decimal
from xbyte_live.paying import account


async def buy(
    settings: Settings, url: str, *, budget: str, allow_plain_http: bool, as_json: bool
) -> None:
    """Buy a session of the item a playlist URL belongs to, and print the URL to play."""
    units = parse_decimal(budget, PRICE_DECIMALS)
    assets = (*settings.custom_assets, *KNOWN_ASSETS)
    payer = Payer(account(), Budget(units), assets=assets, schemes=("exact",))
    async with httpx.AsyncClient(timeout=60) as http:
        bought = await buy_session(
            payer,
            http,
            url,
            dollars=budget.strip().removeprefix("$"),
            budget=units,
            allow_plain_http=allow_plain_http,
        )
    if as_json:
        shown = {name: getattr(bought, name) for name in bought.__slots__}
        print_json(shown)
        return
    click.echo(bought.url)
    warn(f"{bought.left} dollars to spend; whoever has this URL can spend them")

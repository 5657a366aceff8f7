"""Wiring: ``pay``: a playlist or an object bought into a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import httpx2
from rich.progress import Progress as Bars
from rich.progress import TaskID

from xbyte_live.cli.options import PAYER_SETTINGS, json_option, limit_options, settings_options
from xbyte_live.cli.output import print_json, progress_bar, warn
from xbyte_live.cli.wallet_files import open_channels, open_payer
from xbyte_live.client.download.download import Options, Result, download
from xbyte_live.client.download.progress import DownloadPlan
from xbyte_live.client.payer.budget import dollars
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.payer.channel_lock import ChannelLock
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import IssuedPayment
from xbyte_live.client.payer.terms import Receipt
from xbyte_live.client.payer.withdrawals import Withdrawals
from xbyte_live.client.pieces import suggested_name
from xbyte_live.client.playlists import Selection
from xbyte_live.config import Settings
from xbyte_live.errors import XByteError
from xbyte_live.runtime.format import size_text


@click.command()
@click.argument("url")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@limit_options
@click.option("--time-limit", type=float, help="Seconds after which a live stream is left.")
@click.option("--close", is_flag=True, help="Have what is left in the channel given back after.")
@json_option
@settings_options(*PAYER_SETTINGS)
async def pay(
    url: str,
    settings: Settings,
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
    """Buy a playlist or an object into a file, within a budget."""
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
    refunds = await _refunds(settings, payer) if close else []
    if as_json:
        print_json(_described(result) | ({"refunds": refunds} if close else {}))
    else:
        _tell(result)
        for refund in refunds:
            click.echo(f"{dollars(refund['amount'])} came back ({refund['transaction']})")


async def _refunds(settings: Settings, payer: Payer) -> list[dict[str, Any]]:
    """Ask for the rest of every channel that was paid through; returns what came back."""
    turns = ChannelLock(
        payer.channels, open_channels(payer.address), channel_reader(settings.rpc_by_network)
    )
    found: list[dict[str, Any]] = []
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(60.0, connect=10.0)) as client:
        for channel in payer.used:
            if channel.refundable:
                closing = Withdrawals(payer, turns, client)
                try:
                    closed, refund = await closing.refund(channel.url, only=channel)
                except XByteError as error:
                    warn(f"what is left in {channel.channel_id} did not come back: {error}")
                    continue
                amount, transaction = refund.amount, refund.transaction
                name = closed.channel_id
                found.append({"channel": name, "amount": amount, "transaction": transaction})
    return found


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
        f"{result.path}: {size_text(result.size)} in {result.pieces} pieces "
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

"""Wiring: ``bench``: a server measured with viewers who pay."""

from dataclasses import asdict
from typing import Literal

import click
from rich.progress import Progress, TaskID

from xbyte_live.cli.options import (
    PAYER_SETTINGS,
    json_option,
    plain_http_option,
    rendition_option,
    settings_options,
)
from xbyte_live.cli.output import print_json, print_table, progress_bar, warn
from xbyte_live.cli.wallet_files import account, open_channels
from xbyte_live.client.load_figures import LoadFigures
from xbyte_live.client.load_test import Load, LoadOptions
from xbyte_live.client.payer.budget import Budget, dollars
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import KNOWN_ASSETS
from xbyte_live.client.playlists import Selection
from xbyte_live.config import Settings
from xbyte_live.money import PRICE_DECIMALS, parse_decimal
from xbyte_live.runtime.format import size_text

_BUSY = 0.7  # of a core: from here on this program may be the limit


@click.command()
@click.argument("url")
@click.option("--viewers", default=4, show_default=True, type=click.IntRange(1, 1000))
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--budget", default="0.10", show_default=True, help="Most dollars of all viewers.")
@click.option(
    "--rate",
    type=click.Choice(["max", "realtime"]),
    default="max",
    show_default=True,
    help="As fast as they can, or as fast as they would watch.",
)
@rendition_option
@click.option("--no-refund", is_flag=True, help="Leave what was deposited for the next run.")
@plain_http_option
@json_option
@settings_options(*PAYER_SETTINGS)
async def bench(
    url: str,
    settings: Settings,
    viewers: int,
    seconds: float,
    budget: str,
    rate: Literal["max", "realtime"],
    rendition: str | None,
    no_refund: bool,
    allow_plain_http: bool,
    as_json: bool,
) -> None:
    """Measure your own server: viewers who pay, each through a channel of its own."""
    limit = Budget(parse_decimal(budget, PRICE_DECIMALS))
    key = account()
    assets = (*settings.custom_assets, *KNOWN_ASSETS)

    def new_payer(salt: str) -> Payer:
        share = limit.total // viewers
        return Payer(
            key,
            limit,
            assets=assets,
            deposit_cap=share,
            least_deposit=share if rate == "max" else 0,
            salt=salt,
        )

    options = LoadOptions(
        viewers=viewers,
        seconds=seconds,
        rate=rate,
        wanted=Selection(rendition=rendition),
        refund=not no_refund,
        allow_plain_http=allow_plain_http,
    )
    with progress_bar(quiet=as_json) as bars:
        load = Load(
            url,
            options,
            limit,
            new_payer,
            open_channels(str(key.address)),
            read_channel=channel_reader(settings.rpc_by_network),
            stages=_Shown(bars),
        )
        figures = await load.run()
    if as_json:
        print_json(asdict(figures))
    else:
        _tell(figures)


class _Shown:
    """The stages of a measurement as bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: float) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total)

    def step(self, steps: float = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, steps)


def _tell(figures: LoadFigures) -> None:
    latency = figures.latency_ms
    refused = ", ".join(f"{count} × {code}" for code, count in figures.refusals.items())
    print_table(
        ("measured", ">value"),
        (
            ("viewers", str(figures.viewers)),
            ("seconds", f"{figures.seconds:.1f}"),
            ("segments (paid)", f"{figures.segments} ({figures.paid_segments})"),
            ("segments a second", f"{figures.segments_per_second:,.1f}"),
            ("bytes a second", size_text(round(figures.bytes_per_second))),
            ("to the headers, p50", f"{latency['p50']:.1f} ms"),
            ("p90", f"{latency['p90']:.1f} ms"),
            ("p99", f"{latency['p99']:.1f} ms"),
            ("refusals", refused or "none"),
            ("cost", dollars(figures.cost)),
            ("cores this program took", f"{figures.client_cpu:.2f}"),
        ),
    )
    click.echo(f"{dollars(figures.deposited)} was deposited, {dollars(figures.refunded)} came back")
    for code, count in figures.not_refunded.items():
        warn(f"{count} channels were not refunded ({code}); `xbyte-live wallet refund` asks again")
    if figures.client_cpu >= _BUSY:
        warn(
            f"this program took {figures.client_cpu:.2f} of a core: it may be the limit; "
            "run it on several machines, with a wallet each"
        )

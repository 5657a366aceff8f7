"""Wiring: the commands that pay: pay, proxy, play, bench, session."""

from pathlib import Path
from typing import Any

import click

from xbyte_live.cli.options import Command, json_option, run, settings_options
from xbyte_live.config import Settings


@click.command()
@click.argument("url")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--budget", default="0.10", show_default=True, help="Most dollars to spend in all.")
@click.option("--max-price", help="Most dollars per MB.")
@click.option("--max-per-minute", help="Most dollars to spend within a minute; slower then.")
@click.option(
    "--max-deposit",
    default="1.00",
    show_default=True,
    help="Most dollars that lie unspent in one channel.",
)
@click.option("--rendition", help="Which rendition of a playlist; else the best.")
@click.option("--max-bandwidth", type=int, help="Most bits a second a rendition may have.")
@click.option("--time-limit", type=float, help="Seconds after which a live stream is left.")
@click.option("--close", is_flag=True, help="Have what is left in the channel given back after.")
@click.option("--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts.")
@json_option
@settings_options("assets", "rpc_urls")
def pay(url: str, settings: Settings, **given: Any) -> None:
    """Buy a playlist or an object into a file, within a budget."""
    from xbyte_live.cli.wallet_files import pay as buy

    run(buy(settings, url, **given))


def playing_options(command: Command) -> Command:
    """The options of what is played by a player on this machine, and for how much."""
    for option in (
        click.option(
            "--port", default=0, type=click.IntRange(0, 65535), help="Port; else any free one."
        ),
        click.option("--budget", default="0.10", show_default=True, help="Most dollars in all."),
        click.option("--max-per-minute", help="Most dollars to spend within a minute."),
        click.option("--max-price", help="Most dollars per MB."),
        click.option(
            "--max-deposit",
            default="1.00",
            show_default=True,
            help="Most dollars that lie unspent in one channel.",
        ),
        click.option("--rendition", help="Which rendition; else the player's choice."),
        click.option("--max-bandwidth", type=int, help="Most bits a second a rendition may have."),
        click.option(
            "--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts."
        ),
        json_option,
        settings_options("assets", "rpc_urls"),
    )[::-1]:
        command = option(command)
    return command


@click.command()
@click.argument("url")
@playing_options
def proxy(url: str, settings: Settings, **given: Any) -> None:
    """Offer what URL sells to any player on this machine, paying as it plays."""
    from xbyte_live.cli.play import serve_player

    run(serve_player(settings, url, **given))


@click.command()
@click.argument("url")
@click.option(
    "--player", type=click.Choice(["mpv", "vlc", "ffplay"]), help="Else whichever is installed."
)
@playing_options
def play(url: str, settings: Settings, **given: Any) -> None:
    """Play what URL sells, paying as it plays."""
    from xbyte_live.cli.play import serve_player

    if status := run(serve_player(settings, url, play=True, **given)):
        raise click.exceptions.Exit(status)


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
@click.option("--rendition", help="Which rendition; else the best.")
@click.option("--no-refund", is_flag=True, help="Leave what was deposited for the next run.")
@click.option("--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts.")
@json_option
@settings_options("assets", "rpc_urls")
def bench(url: str, settings: Settings, **given: Any) -> None:
    """Measure your own server: viewers who pay, each through a channel of its own."""
    from xbyte_live.cli.bench import measure

    run(measure(settings, url, **given))


@click.command()
@click.argument("url")
@click.option("--budget", default="0.50", show_default=True, help="Dollars to buy it for.")
@click.option("--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts.")
@json_option
@settings_options("assets", "rpc_urls")
def session(url: str, settings: Settings, **given: Any) -> None:
    """Buy a URL that any player plays, for a budget; what is left of it goes back."""
    from xbyte_live.cli.session import buy

    run(buy(settings, url, **given))

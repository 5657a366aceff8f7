"""Wiring: the command line; every command imports what it needs when it runs."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from xbyte_live import __version__
from xbyte_live.config import SettingRow, Settings, load_settings, setting_rows
from xbyte_live.errors import XByteError

T = TypeVar("T")
Command = Callable[..., Any]

CATALOG_SETTINGS = ("data_dir", "database_url")
_DAY = click.DateTime(["%Y-%m-%d"])
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


class Main(click.Group):
    """Says every deliberate error in one line and ends with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a traceback is shown only for our own bugs."""
        try:
            return super().invoke(ctx)
        except XByteError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Options for these settings (all without names), passed on as one ``settings``."""
    rows = [row for row in setting_rows() if row.flag and (not names or row.name in names)]

    def decorate(command: Command) -> Command:
        def run(*args: Any, config: Path | None, **given: Any) -> Any:
            flags = {row.name: given.pop(row.name) for row in rows}
            settings = load_settings(environ=os.environ, file=config, overrides=flags)
            return command(*args, settings=settings, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        for row in reversed(rows):
            run = _setting_option(row)(run)
        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        return click.option(
            "--config", type=file, envvar="XBYTE_CONFIG", help="TOML file with settings."
        )(run)

    return decorate


def _setting_option(row: SettingRow) -> Callable[[Command], Command]:
    kind: Any = str
    if row.kind is int:
        kind = int
    elif get_args(row.kind) and get_origin(row.kind) is not tuple:
        kind = click.Choice(get_args(row.kind))
    about = row.about.replace("`", "")
    shown = f"  [{row.env}; default: {row.default}]" if row.default else f"  [{row.env}]"
    return click.option(
        str(row.flag), row.name, type=kind, default=None, help=about[0].upper() + about[1:] + shown
    )


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xbyte-live")
def main() -> None:
    """Live feeds and files as HLS, sold by the byte over x402.

    Try it: `xbyte-live demo` needs nothing but this machine.
    """


@main.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("xbyte-demo"),
    show_default=True,
    help="Where the demo keeps its chain, database and media.",
)
@click.option("--port", default=8402, show_default=True, help="HTTP port.")
@click.option("--rpc-port", default=8545, show_default=True, help="Port of the local chain.")
@click.option("--rtmp-port", default=1935, show_default=True, help="Port publishers push to.")
def demo(data_dir: Path, port: int, rpc_port: int, rtmp_port: int) -> None:
    """Show the whole path here: a local chain, sample titles, a broadcast, a funded wallet."""
    from xbyte_live.demo import run_demo
    from xbyte_live.display import log_to_stderr

    log_to_stderr("warning")
    _run(run_demo(data_dir, port=port, rpc_port=rpc_port, rtmp_port=rtmp_port))


@main.command()
@settings_options()
def serve(settings: Settings) -> None:
    """Serve the catalog and take payments."""
    from xbyte_live.display import log_to_stderr
    from xbyte_live.service import serve as run_server

    log_to_stderr(settings.log_level)
    _run(run_server(settings))


def terms_options(command: Command) -> Command:
    """The options that say on which terms a file goes on sale."""
    for option in (
        click.option("--pay-to", help="The payee's address, if not the server's."),
        click.option(
            "--rewatch",
            type=click.Choice(["paid", "free"]),
            default="paid",
            show_default=True,
            help="Whether watching again is a sale again.",
        ),
        click.option(
            "--replace", "replace_old", is_flag=True, help="Replace the item of that slug."
        ),
    ):
        command = option(command)
    return command


@main.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE…|DIR…",
)
@click.option("--slug", help="Name in URLs (for a single file); else from the file's name.")
@click.option("--title", "name", help="Name people see (for a single file).")
@click.option(
    "--preview",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Seconds at the start that are free.",
)
@click.option("--no-transcode", is_flag=True, help="Refuse what would have to be re-encoded.")
@terms_options
@json_option
@settings_options(*CATALOG_SETTINGS, "segment_target", "price")
def package(sources: tuple[Path, ...], settings: Settings, **given: Any) -> None:
    """Package media files, or all in a folder, as HLS and put them on sale."""
    from xbyte_live.shelving import package_all

    if _run(package_all(settings, sources, **given)):
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--slug", help="Name in URLs; else from the file's name.")
@click.option("--title", "name", help="Name people see.")
@click.option("--content-type", help="Media type; else guessed from the file's name.")
@terms_options
@json_option
@settings_options(*CATALOG_SETTINGS, "price")
def add(file: Path, settings: Settings, **given: Any) -> None:
    """Put any file on sale as it is, by the bytes of each range."""
    from xbyte_live.shelving import add_object

    _run(add_object(settings, file, **given))


@main.command("list")
@json_option
@settings_options(*CATALOG_SETTINGS)
def list_items(settings: Settings, as_json: bool) -> None:
    """List what is for sale."""
    from xbyte_live.shelving import list_catalog

    _run(list_catalog(settings, as_json=as_json))


@main.command("price")
@click.argument("slug")
@click.argument("price", required=False)
@click.option("--pay-to", help="The payee's address.")
@click.option("--preview", type=click.IntRange(0), help="Seconds at the start that are free.")
@click.option("--rewatch", type=click.Choice(["paid", "free"]), help="Sell again, or once.")
@json_option
@settings_options(*CATALOG_SETTINGS)
def set_price(settings: Settings, **given: Any) -> None:
    """Change what an item costs: `price SLUG 0.001` is dollars per MB."""
    from xbyte_live.shelving import change_terms

    _run(change_terms(settings, **given))


@main.command()
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
def remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take items off sale; what was sold stays for its retry window."""
    from xbyte_live.shelving import remove_items

    _run(remove_items(settings, slugs))


LIVE_SETTINGS = (*CATALOG_SETTINGS, "host", "public_url", "rtmp_host", "rtmp_port", "rtmps_port")


@main.group()
def stream() -> None:
    """Live streams: make them, their keys, and see how they are doing."""


@stream.command("create")
@click.argument("slug")
@click.option("--title", "name", help="Name people see.")
@click.option("--pay-to", help="The payee's address, if not the server's.")
@click.option(
    "--preview",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Seconds at the start of each broadcast that are free.",
)
@click.option(
    "--rewatch",
    type=click.Choice(["paid", "free"]),
    default="paid",
    show_default=True,
    help="Whether watching again is a sale again.",
)
@click.option(
    "--playlist",
    type=click.Choice(["window", "event"]),
    default="window",
    show_default=True,
    help="List the last minute or so, or the whole broadcast (DVR).",
)
@click.option("--segment", type=click.IntRange(1, 10), help="Seconds a segment lasts.")
@click.option("--window", type=click.IntRange(6), help="Seconds the playlist lists.")
@click.option("--record", is_flag=True, help="Put each broadcast on sale as a title when it ends.")
@click.option("--source", help="Pull from this URL instead of waiting for a publisher.")
@json_option
@settings_options(
    *LIVE_SETTINGS,
    *("price", "live_segment_target", "live_window", "pull_schemes", "pull_private"),
)
def stream_create(settings: Settings, **given: Any) -> None:
    """Put a stream on sale and print what OBS needs."""
    from xbyte_live.streaming import create

    _run(create(settings, **given))


@stream.command("list")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_list(settings: Settings, as_json: bool) -> None:
    """List the streams."""
    from xbyte_live.streaming import list_streams

    _run(list_streams(settings, as_json=as_json))


@stream.command("keys")
@click.argument("slug")
@click.option("--add", is_flag=True, help="Make one more key.")
@click.option("--expires", type=click.IntRange(1), help="Seconds the new key is good for.")
@click.option("--revoke", type=int, multiple=True, metavar="ID", help="Revoke a key.")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_keys(settings: Settings, **given: Any) -> None:
    """List, add or revoke the keys of a stream."""
    from xbyte_live.streaming import show_keys

    _run(show_keys(settings, **given))


@stream.command("rotate")
@click.argument("slug")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_rotate(settings: Settings, slug: str, as_json: bool) -> None:
    """Revoke every key of a stream and make a new one."""
    from xbyte_live.streaming import rotate

    _run(rotate(settings, slug, as_json=as_json))


@stream.command("status")
@click.argument("slug")
@json_option
@settings_options(*CATALOG_SETTINGS)
def stream_status(settings: Settings, slug: str, as_json: bool) -> None:
    """Show how a stream is doing, and what is wrong with its feed."""
    from xbyte_live.streaming import show_status

    _run(show_status(settings, slug, as_json=as_json))


@stream.command("remove")
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
def stream_remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take streams off sale and off the air; what was sold stays for its retry window."""
    from xbyte_live.shelving import remove_items

    _run(remove_items(settings, slugs))


@main.command()
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
    from xbyte_live.paying import pay as buy

    _run(buy(settings, url, **given))


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


@main.command()
@click.argument("url")
@playing_options
def proxy(url: str, settings: Settings, **given: Any) -> None:
    """Offer what URL sells to any player on this machine, paying as it plays."""
    from xbyte_live.playing import serve_player

    _run(serve_player(settings, url, **given))


@main.command()
@click.argument("url")
@click.option(
    "--player", type=click.Choice(["mpv", "vlc", "ffplay"]), help="Else whichever is installed."
)
@playing_options
def play(url: str, settings: Settings, **given: Any) -> None:
    """Play what URL sells, paying as it plays."""
    from xbyte_live.playing import serve_player

    if status := _run(serve_player(settings, url, play=True, **given)):
        raise click.exceptions.Exit(status)


@main.command()
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
    from xbyte_live.measuring import measure

    _run(measure(settings, url, **given))


@main.command()
@click.argument("url")
@click.option("--budget", default="0.50", show_default=True, help="Dollars to buy it for.")
@click.option("--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts.")
@json_option
@settings_options("assets", "rpc_urls")
def session(url: str, settings: Settings, **given: Any) -> None:
    """Buy a URL that any player plays, for a budget; what is left of it goes back."""
    from xbyte_live.borrowing import buy

    _run(buy(settings, url, **given))


@main.group()
def wallet() -> None:
    """Keep the key that pays, encrypted (or in XBYTE_WALLET_KEY)."""


@wallet.command("new")
@json_option
def wallet_new(as_json: bool) -> None:
    """Make a wallet and print the address to fund."""
    from xbyte_live.paying import make_wallet

    make_wallet(as_json=as_json)


@wallet.command("show")
@json_option
def wallet_show(as_json: bool) -> None:
    """Print the wallet's address."""
    from xbyte_live.paying import show_wallet

    show_wallet(as_json=as_json)


@wallet.command("balance")
@json_option
@settings_options("networks", "rpc_urls", "assets")
def wallet_balance(settings: Settings, as_json: bool) -> None:
    """Print what the wallet holds on chain."""
    from xbyte_live.paying import show_balance

    _run(show_balance(settings, as_json=as_json))


@wallet.command("channels")
@json_option
def wallet_channels(as_json: bool) -> None:
    """List the payment channels this wallet has opened, and what is left in them."""
    from xbyte_live.wallets import show_channels

    show_channels(as_json=as_json)


@wallet.command("deposit")
@click.argument("url")
@click.argument("amount")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_deposit(settings: Settings, url: str, amount: str, as_json: bool) -> None:
    """Put AMOUNT dollars into the channel that pays for URL; costs the wallet gas."""
    from xbyte_live.wallets import deposit

    _run(deposit(settings, url, amount, as_json=as_json))


@wallet.command("refund")
@click.argument("target", required=False, metavar="[URL|CHANNEL]")
@click.option("--amount", help="Dollars to ask for; else all that was not charged.")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_refund(
    settings: Settings, target: str | None, amount: str | None, as_json: bool
) -> None:
    """Ask servers to give back what is left in channels; costs no gas."""
    from xbyte_live.wallets import refund

    _run(refund(settings, target, amount, as_json=as_json))


@wallet.command("withdraw")
@click.argument("channel")
@click.option("--finalize", is_flag=True, help="Take it, after the channel's delay.")
@json_option
@settings_options("assets", "rpc_urls")
def wallet_withdraw(settings: Settings, channel: str, finalize: bool, as_json: bool) -> None:
    """Take back what is left in CHANNEL without its server; costs the wallet gas."""
    from xbyte_live.wallets import withdraw

    _run(withdraw(settings, channel, finalize=finalize, as_json=as_json))


@main.command()
@click.option("--rpc-port", default=8545, show_default=True, help="Port the chain answers on.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("xbyte-devnet"),
    show_default=True,
    help="Where its state is kept.",
)
@click.option("--chain-id", default=84532, show_default=True, help="EVM chain id.")
def devnet(rpc_port: int, data_dir: Path, chain_id: int) -> None:
    """Run a local chain with test money until interrupted."""
    from xbyte_live.demo import run_devnet
    from xbyte_live.display import log_to_stderr

    log_to_stderr("warning")
    _run(run_devnet(data_dir, rpc_port=rpc_port, chain_id=chain_id))


@main.group()
def ledger() -> None:
    """The books: what was charged, and bringing it to the chain."""


@ledger.command("settle")
@json_option
@settings_options()
def ledger_settle(settings: Settings, as_json: bool) -> None:
    """Claim what channels were charged and pay it out, now."""
    from xbyte_live.display import log_to_stderr
    from xbyte_live.settling import settle_now

    log_to_stderr(settings.log_level)
    if not _run(settle_now(settings, as_json=as_json)):
        raise click.exceptions.Exit(1)


@ledger.command("audit")
@click.option("--no-chain", is_flag=True, help="Look at the database alone.")
@json_option
@settings_options(*CATALOG_SETTINGS, "rpc_urls", "confirmations", "facilitator_timeout")
def ledger_audit(settings: Settings, no_chain: bool, as_json: bool) -> None:
    """Prove from database and chain that not one unit is lost, or say where.

    Exit codes: 0 all agrees, 1 something disagrees, 3 the chain could not be checked.
    """
    from xbyte_live.auditing import audit
    from xbyte_live.display import log_to_stderr

    log_to_stderr("warning")
    if code := _run(audit(settings, chain=not no_chain, as_json=as_json)):
        raise click.exceptions.Exit(code)


@ledger.command("export")
@click.option("--from", "first", required=True, type=_DAY, help="First day, UTC, included.")
@click.option("--to", "before", required=True, type=_DAY, help="Day to stop before, UTC.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json"]),
    default="csv",
    show_default=True,
    help="CSV with a header, or one JSON list.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@settings_options(*CATALOG_SETTINGS)
def ledger_export(settings: Settings, first: datetime, before: datetime, **given: Any) -> None:
    """Write every delivery of some days for bookkeeping, a row each."""
    from xbyte_live.auditing import export

    _run(export(settings, first=first.date(), before=before.date(), **given))


@main.command()
@json_option
@settings_options("data_dir", "host", "port", "public_url")
def studio(settings: Settings, as_json: bool) -> None:
    """Print a link that opens the studio, and where its admin token is."""
    from xbyte_live.admitting import show_login

    show_login(settings, as_json=as_json)


@main.command()
@json_option
@settings_options()
def doctor(settings: Settings, as_json: bool) -> None:
    """Check settings, ports, database, store, chain, facilitator and keys."""
    from xbyte_live.doctor import examine

    if not _run(examine(settings, as_json=as_json)):
        raise click.exceptions.Exit(1)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)


if __name__ == "__main__":
    main()

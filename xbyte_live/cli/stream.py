"""Wiring: the commands of live streams."""

from typing import Any

import click

from xbyte_live.cli.options import CATALOG_SETTINGS, json_option, run, settings_options
from xbyte_live.config import Settings

LIVE_SETTINGS = (*CATALOG_SETTINGS, "host", "public_url", "rtmp_host", "rtmp_port", "rtmps_port")


@click.group()
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
    from xbyte_live.cli.streaming import create

    run(create(settings, **given))


@stream.command("list")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_list(settings: Settings, as_json: bool) -> None:
    """List the streams."""
    from xbyte_live.cli.streaming import list_streams

    run(list_streams(settings, as_json=as_json))


@stream.command("keys")
@click.argument("slug")
@click.option("--add", is_flag=True, help="Make one more key.")
@click.option("--expires", type=click.IntRange(1), help="Seconds the new key is good for.")
@click.option("--revoke", type=int, multiple=True, metavar="ID", help="Revoke a key.")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_keys(settings: Settings, **given: Any) -> None:
    """List, add or revoke the keys of a stream."""
    from xbyte_live.cli.streaming import show_keys

    run(show_keys(settings, **given))


@stream.command("rotate")
@click.argument("slug")
@json_option
@settings_options(*LIVE_SETTINGS)
def stream_rotate(settings: Settings, slug: str, as_json: bool) -> None:
    """Revoke every key of a stream and make a new one."""
    from xbyte_live.cli.streaming import rotate

    run(rotate(settings, slug, as_json=as_json))


@stream.command("status")
@click.argument("slug")
@json_option
@settings_options(*CATALOG_SETTINGS)
def stream_status(settings: Settings, slug: str, as_json: bool) -> None:
    """Show how a stream is doing, and what is wrong with its feed."""
    from xbyte_live.cli.streaming import show_status

    run(show_status(settings, slug, as_json=as_json))


@stream.command("remove")
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
def stream_remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take streams off sale and off the air; what was sold stays for its retry window."""
    from xbyte_live.cli.shelving import remove_items

    run(remove_items(settings, slugs))

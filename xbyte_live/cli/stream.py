"""Wiring: the ``stream`` commands: live streams, their keys, and how they are doing."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import click

from xbyte_live.catalog.item_json import stream_json
from xbyte_live.catalog.streams import Streams
from xbyte_live.cli.catalog import payee, remove_items
from xbyte_live.cli.options import CATALOG_SETTINGS, json_option, settings_options
from xbyte_live.cli.output import on_terminal, print_json, print_table, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, ItemNotFound
from xbyte_live.live import urls
from xbyte_live.live.build import pull_source
from xbyte_live.models import NewStream, Offer, PlaylistKind, Rewatch, Stream, StreamKey
from xbyte_live.money import Price
from xbyte_live.runtime.format import clock, size_text
from xbyte_live.server.catalog_access import open_catalog

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
async def stream_create(
    settings: Settings,
    slug: str,
    name: str | None,
    pay_to: str | None,
    preview: int,
    rewatch: Rewatch,
    playlist: PlaylistKind,
    segment: int | None,
    window: int | None,
    record: bool,
    source: str | None,
    as_json: bool,
) -> None:
    """Put a stream on sale and print what OBS needs."""
    if source is not None:
        pull_source(settings, source)
    new = NewStream(
        slug=slug,
        name=name or slug,
        playlist=playlist,
        window_us=(window or settings.live_window) * 1_000_000,
        segment_target_us=(segment or settings.live_segment_target) * 1_000_000,
        recording=record,
        rewatch=rewatch,
        source=source,
    )
    terms = Offer(Price.parse(settings.price), payee(pay_to), time.time(), preview * 1_000_000)
    async with _streams(settings) as streams:
        key = await streams.create(new, terms)
    described = {**_urls(settings, slug), "price_per_mb": str(terms.price)}
    if source is None:
        described["stream_key"] = key
    if as_json:
        print_json({"slug": slug, **described})
        return
    click.echo(f"stream {slug} is for sale at ${terms.price} per MB (1,048,576 bytes)")
    click.echo(f"  watch       {described['url']}")
    if source is None:
        _show_key(settings, slug, key)
    else:
        click.echo("  a running server begins to pull it within seconds")


@stream.command("list")
@json_option
@settings_options(*LIVE_SETTINGS)
async def stream_list(settings: Settings, as_json: bool) -> None:
    """List the streams."""
    async with open_catalog(settings) as access:
        found = [item for item in await access.catalog.items() if isinstance(item, Stream)]
    if as_json:
        print_json([_described(settings, stream) for stream in found])
        return
    if not found:
        warn("there are no streams yet; `xbyte-live stream create SLUG` makes one")
        return
    rows = [
        (s.slug, s.name, _state(s), str(s.offers[0].price), "yes" if s.recording else "no")
        for s in found
    ]
    print_table(["slug", "name", "state", ">$/MB", "recorded"], rows)


@stream.command("keys")
@click.argument("slug")
@click.option("--add", is_flag=True, help="Make one more key.")
@click.option("--expires", type=click.IntRange(1), help="Seconds the new key is good for.")
@click.option("--revoke", type=int, multiple=True, metavar="ID", help="Revoke a key.")
@json_option
@settings_options(*LIVE_SETTINGS)
async def stream_keys(
    settings: Settings,
    slug: str,
    add: bool,
    expires: int | None,
    revoke: tuple[int, ...],
    as_json: bool,
) -> None:
    """List, add or revoke the keys of a stream."""
    if expires is not None and not add:
        raise ConfigError("--expires is for a new key; give it with --add")
    async with _streams(settings) as streams:
        key = await streams.add_key(slug, lasts=expires) if add else None
        gone = await streams.revoke(slug, revoke) if revoke else []
        keys = await streams.keys(slug)
    missing = sorted(set(revoke) - set(gone))
    if missing:
        raise ItemNotFound(f"{slug!r} has no key {missing[0]}; `stream keys {slug}` lists them")
    if as_json:
        listed: dict[str, Any] = {"slug": slug, "keys": [_key(k) for k in keys]}
        print_json(listed | ({"stream_key": key} if key else {}))
        return
    if key:
        _show_key(settings, slug, key)
    rows = [
        (str(k.id), f"…{k.hint}", _date(k.created_at), _date(k.expires_at), _date(k.used_at))
        for k in keys
    ]
    print_table([">id", "ends in", "made", "good until", "last used"], rows)


@stream.command("rotate")
@click.argument("slug")
@json_option
@settings_options(*LIVE_SETTINGS)
async def stream_rotate(settings: Settings, slug: str, as_json: bool) -> None:
    """Revoke every key of a stream and make a new one."""
    async with _streams(settings) as streams:
        key = await streams.rotate(slug)
    if as_json:
        print_json({"slug": slug, **_urls(settings, slug), "stream_key": key})
        return
    click.echo(f"the old keys of {slug} are revoked")
    _show_key(settings, slug, key)


@stream.command("status")
@click.argument("slug")
@json_option
@settings_options(*CATALOG_SETTINGS)
async def stream_status(settings: Settings, slug: str, as_json: bool) -> None:
    """Show how a stream is doing, and what is wrong with its feed."""
    async with open_catalog(settings) as access:
        found = await access.catalog.item(slug)
    if not isinstance(found, Stream):
        raise ItemNotFound(f"there is no stream {slug!r}; `xbyte-live stream list` shows them")
    status = stream_json(found, time.time())
    if as_json:
        print_json(status)
        return
    feed = status["feed"] or {}
    click.echo(f"{found.name} ({slug}): {_state(found)}")
    for label, value in _facts(found, status, feed):
        click.echo(f"  {label:18} {value}")
    for warning in feed.get("warnings", []):
        click.echo(click.style(f"  ! {warning['text']}", fg="yellow" if on_terminal() else None))


@stream.command("remove")
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
async def stream_remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take streams off sale and off the air; what was sold stays for its retry window."""
    await remove_items(settings, slugs)


@asynccontextmanager
async def _streams(settings: Settings) -> AsyncIterator[Streams]:
    async with open_catalog(settings) as access:
        yield Streams(access.database, access.catalog)


def _facts(stream: Stream, status: dict[str, Any], feed: dict[str, Any]) -> list[tuple[str, str]]:
    """Labels and values of a stream's status, in the order people ask for them."""
    facts = []
    if status["on_air_for_s"] is not None:
        facts.append(("on air for", clock(status["on_air_for_s"])))
    if feed.get("codecs"):
        picture = f"{feed['width']}x{feed['height']} " if feed["width"] else "sound only "
        rate = f"{feed['frame_rate']:g} frames/s" if feed["frame_rate"] else ""
        facts.append(("media", f"{picture}{rate} ({feed['codecs']})"))
        facts.append(("bit rate", f"{feed['bit_rate'] / 1e6:.2f} Mb/s"))
    if feed.get("keyframe_interval_s"):
        facts.append(("keyframe every", f"{feed['keyframe_interval_s']:g} s"))
    if feed:
        facts += [
            ("segments", f"{feed['segments']}, {size_text(feed['bytes'])}"),
            ("segments lost", str(feed["segments_lost"])),
            ("packets", f"{feed['packets_late']} late, {feed['packets_dropped']} dropped"),
            ("restarts", str(feed["restarts"])),
        ]
    facts.append(("playlist", f"{stream.playlist}, {stream.window_us // 1_000_000} s"))
    facts.append(("price", f"${stream.offers[0].price} per MB"))
    return facts


def _show_key(settings: Settings, slug: str, key: str) -> None:
    server = _urls(settings, slug)["rtmp_url"]
    bold = (lambda text: click.style(text, bold=True)) if on_terminal() else str
    click.echo("\nOBS: Settings, Stream, Service “Custom…”")
    click.echo(f"  Server      {server}")
    click.echo(f"  Stream Key  {bold(key)}")
    click.echo("  and under Output: Keyframe Interval 2 s")
    click.echo("ffmpeg:")
    click.echo(f"  ffmpeg -re -i FILE -c copy -f flv {server}/{key}")
    click.echo(f"\nThe key is shown this once. `xbyte-live stream rotate {slug}` makes another.")


def _urls(settings: Settings, slug: str) -> dict[str, str]:
    base = urls.public_url(settings)
    return {"url": f"{base}/hls/{slug}/index.m3u8", "rtmp_url": rtmp_url(settings)}


def rtmp_url(settings: Settings) -> str:
    """The URL publishers push to, as OBS takes it."""
    return urls.rtmp_url(settings, socket.gethostname())


def _described(settings: Settings, stream: Stream) -> dict[str, Any]:
    status = stream_json(stream, time.time())
    return status | _urls(settings, stream.slug) | {"price_per_mb": str(stream.offers[0].price)}


def _state(stream: Stream) -> str:
    words = {"idle": "never on air yet", "on_air": "on air", "ended": "off air"}
    return words.get(stream.state, "waiting for its publisher")


def _key(key: StreamKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "ends_in": key.hint,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "used_at": key.used_at,
    }


def _date(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"

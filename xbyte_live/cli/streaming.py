"""Wiring: the `stream` commands: streams, their keys, and how they are doing."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import click

from xbyte_live.catalog.streams import Streams
from xbyte_live.cli.output import on_terminal, print_json, print_table, warn
from xbyte_live.cli.shelving import payee
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, ItemNotFound
from xbyte_live.live import urls as addresses
from xbyte_live.live.build import pull_source
from xbyte_live.models import NewStream, Offer, PlaylistKind, Rewatch, Stream, StreamKey
from xbyte_live.money import Price
from xbyte_live.runtime.format import clock, size_text
from xbyte_live.server.service import open_shelf, public_url
from xbyte_live.web.api.streams import stream_status


@asynccontextmanager
async def open_streams(settings: Settings) -> AsyncIterator[Streams]:
    """The streams of a database, without anything that serves."""
    async with open_shelf(settings) as shelf:
        yield Streams(shelf.database, shelf.catalog)


async def create(
    settings: Settings,
    slug: str,
    *,
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
    """Put a stream on sale and show how to publish to it."""
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
    async with open_streams(settings) as streams:
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


async def list_streams(settings: Settings, *, as_json: bool) -> None:
    """Show every stream."""
    async with open_shelf(settings) as shelf:
        found = [item for item in await shelf.catalog.items() if isinstance(item, Stream)]
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


async def show_keys(
    settings: Settings,
    slug: str,
    *,
    add: bool,
    expires: int | None,
    revoke: tuple[int, ...],
    as_json: bool,
) -> None:
    """Add or revoke keys of a stream, then show what is known of those it has."""
    if expires is not None and not add:
        raise ConfigError("--expires is for a new key; give it with --add")
    async with open_streams(settings) as streams:
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


async def rotate(settings: Settings, slug: str, *, as_json: bool) -> None:
    """Replace every key of a stream by a new one."""
    async with open_streams(settings) as streams:
        key = await streams.rotate(slug)
    if as_json:
        print_json({"slug": slug, **_urls(settings, slug), "stream_key": key})
        return
    click.echo(f"the old keys of {slug} are revoked")
    _show_key(settings, slug, key)


async def show_status(settings: Settings, slug: str, *, as_json: bool) -> None:
    """Show how a stream is doing, as its server last noted it."""
    async with open_shelf(settings) as shelf:
        stream = await shelf.catalog.item(slug)
    if not isinstance(stream, Stream):
        raise ItemNotFound(f"there is no stream {slug!r}; `xbyte-live stream list` shows them")
    status = stream_status(stream, time.time())
    if as_json:
        print_json(status)
        return
    feed = status["feed"] or {}
    click.echo(f"{stream.name} ({slug}): {_state(stream)}")
    for label, value in _facts(stream, status, feed):
        click.echo(f"  {label:18} {value}")
    for warning in feed.get("warnings", []):
        click.echo(click.style(f"  ! {warning['text']}", fg="yellow" if on_terminal() else None))


def _facts(stream: Stream, status: dict[str, Any], feed: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to say, in the order people ask for it."""
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
    urls = _urls(settings, slug)
    bold = (lambda text: click.style(text, bold=True)) if on_terminal() else str
    click.echo("\nOBS: Settings, Stream, Service “Custom…”")
    click.echo(f"  Server      {urls['rtmp_url']}")
    click.echo(f"  Stream Key  {bold(key)}")
    click.echo("  and under Output: Keyframe Interval 2 s")
    click.echo("ffmpeg:")
    click.echo(f"  ffmpeg -re -i FILE -c copy -f flv {urls['rtmp_url']}/{key}")
    click.echo(f"\nThe key is shown this once. `xbyte-live stream rotate {slug}` makes another.")


def _urls(settings: Settings, slug: str) -> dict[str, str]:
    base = public_url(settings)
    return {"url": f"{base}/hls/{slug}/index.m3u8", "rtmp_url": rtmp_url(settings)}


def rtmp_url(settings: Settings) -> str:
    """Where publishers push to, as OBS wants it."""
    return addresses.rtmp_url(settings, socket.gethostname())


def _described(settings: Settings, stream: Stream) -> dict[str, Any]:
    status = stream_status(stream, time.time())
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

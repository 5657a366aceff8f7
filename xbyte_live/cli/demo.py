"""Wiring: ``demo`` and ``devnet``: the whole path on one machine, or its local chain alone."""

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.catalog.streams import Streams
from xbyte_live.cli.options import run
from xbyte_live.cli.output import on_terminal, progress_bar
from xbyte_live.cli.serve import login_url
from xbyte_live.cli.stream import rtmp_url
from xbyte_live.config import Secret, Settings
from xbyte_live.devnet.accounts import BANNER, GAS, PAYEE, PAYER
from xbyte_live.devnet.chain import Devnet
from xbyte_live.devnet.faucet import open_faucet
from xbyte_live.devnet.publisher import URL_VARIABLE
from xbyte_live.devnet.samples import SAMPLES, Sample
from xbyte_live.errors import ConfigError, DevnetError
from xbyte_live.live.urls import public_url
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.models import Item, NewStream, Offer, Stream, Title
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.runtime.aio import background
from xbyte_live.runtime.logs import log_to_stderr
from xbyte_live.runtime.processes import worker_environment
from xbyte_live.server.catalog_access import open_catalog
from xbyte_live.server.service import HttpServer, listening, open_service

STREAM = "live"
_LOOK_EVERY = 1.0  # seconds
_FREE_LOOKS = (
    2  # in a row, before the demo's broadcast comes back: one publisher may follow another
)
_LOOKS = 120  # four a second: so long the demo waits to be on air
PAYER_FUNDS = 100_000_000  # the demo wallet is filled up to $100 of test USDC


@click.command()
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
    log_to_stderr("warning")
    run(run_demo(data_dir, port=port, rpc_port=rpc_port, rtmp_port=rtmp_port))


@click.command()
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
    log_to_stderr("warning")
    run(run_devnet(data_dir, rpc_port=rpc_port, chain_id=chain_id))


async def run_demo(data_dir: Path, *, port: int, rpc_port: int, rtmp_port: int) -> None:
    """Start everything, print what to try, and serve until interrupted.

    ``demo.json`` appears in ``data_dir`` once everything answers and the broadcast can be watched.
    A second start uses what the first one made. Raises ``ConfigError`` for a bad folder or port,
    ``DevnetError``.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise ConfigError(f"the folder {data_dir} cannot be made; choose another") from None
    described = data_dir / "demo.json"
    with listening(Settings(port=port)) as listener:
        await _show(
            data_dir, described, listener, port=port, rpc_port=rpc_port, rtmp_port=rtmp_port
        )


async def _show(
    data_dir: Path,
    described: Path,
    listener: socket.socket,
    *,
    port: int,
    rpc_port: int,
    rtmp_port: int,
) -> None:
    click.echo("starting a local chain …")
    async with (
        Devnet(data_dir / "chain", rpc_port=rpc_port) as devnet,
        open_faucet(devnet.chain, _origins(port)) as faucet_url,
    ):
        described.unlink(missing_ok=True)
        settings = _settings(data_dir, devnet, port, rtmp_port, faucet_url)
        await _fill_wallet(devnet)
        titles = await _titles(settings)
        key = await _stream_key(settings)
        async with open_service(settings) as app, background(_broadcast(settings, key)):
            server = HttpServer(app, settings)
            serving = asyncio.create_task(server.run(listener))
            await _first(serving, server.ready.wait())
            if not serving.done():
                await _first(serving, _on_air(settings))
            if not serving.done():
                _describe(described, settings, devnet, titles, key)
                _tell(settings, titles, key)
            try:
                await _first(serving, devnet.ended())
            finally:
                described.unlink(missing_ok=True)
                server.leave()
                await asyncio.gather(serving, return_exceptions=True)


async def run_devnet(data_dir: Path, *, rpc_port: int, chain_id: int) -> None:
    """Run the local chain alone until interrupted."""
    async with Devnet(data_dir, rpc_port=rpc_port, chain_id=chain_id) as devnet:
        click.echo(BANNER)
        click.echo(f"RPC    {devnet.rpc_url}  ({devnet.network})")
        click.echo(f"USDC   {devnet.asset.address}")
        for role, account in (("payer", PAYER), ("payee", PAYEE), ("gas", GAS)):
            click.echo(f"{role:6} {account.address}  key {account.key}")
        await devnet.ended()


def _settings(
    data_dir: Path, devnet: Devnet, port: int, rtmp_port: int, faucet_url: str
) -> Settings:
    return Settings(
        data_dir=data_dir,
        port=port,
        rtmp_port=rtmp_port,
        second_publisher="take_over",  # whoever tries the demo comes before its own broadcast
        pay_to=PAYEE.address,
        networks=(devnet.network,),
        rpc_urls=(f"{devnet.network}={devnet.rpc_url}",),
        gas_key=Secret(GAS.key),
        faucet_url=faucet_url,
        log_level="warning",
    )


def _origins(port: int) -> list[str]:
    """The demo's pages, under each name this machine has for itself."""
    return [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]


async def _fill_wallet(devnet: Devnet) -> None:
    missing = PAYER_FUNDS - await devnet.chain.usdc_balance(PAYER.address)
    if missing > 0:
        await devnet.chain.fund(PAYER.address, usdc=missing)


async def _titles(settings: Settings) -> list[Title]:
    """The sample titles, made and packaged where they are not there yet."""
    async with open_catalog(settings) as access:
        wanted = [s for s in SAMPLES if await access.catalog.item(s.slug) is None]
        if wanted:
            click.echo(f"making {len(wanted)} sample titles, a minute each …")
        importer = Importer(access.catalog, access.store)
        with progress_bar(quiet=not wanted) as bars:

            async def make(sample: Sample) -> None:
                task = bars.add_task(f"making {sample.name}", total=None)
                path = settings.data_dir / sample.file_name

                def packaged(done: float) -> None:
                    bars.update(task, description=f"packaging {sample.name}", completed=done)

                try:
                    await _make_in_a_child(sample, path)
                    terms = SaleTerms(settings.default_price)
                    bars.update(task, total=1.0)
                    await importer.title(
                        path, sample.slug, terms, PackageOptions(), progress=packaged
                    )
                finally:
                    path.unlink(missing_ok=True)

            await asyncio.gather(*(make(sample) for sample in wanted))
        found = [await access.catalog.item(sample.slug) for sample in SAMPLES]
    return [item for item in found if isinstance(item, Title)]


async def _stream_key(settings: Settings) -> str:
    """A new key of the demo's stream, which is made if it is not there yet."""
    async with open_catalog(settings) as access:
        streams = Streams(access.database, access.catalog)
        if await access.catalog.item(STREAM) is not None:
            return await streams.rotate(STREAM)
        terms = Offer(settings.default_price, None, time.time())
        return await streams.create(NewStream(slug=STREAM, name="Demo broadcast"), terms)


async def _broadcast(settings: Settings, key: str) -> None:
    """Keep the generated broadcast on air whenever nobody else publishes."""
    url = f"{rtmp_url(settings)}/{key}"
    async with open_catalog(settings) as access:
        free = _FREE_LOOKS
        while True:
            stream = await access.catalog.item(STREAM)
            taken = isinstance(stream, Stream) and stream.connected
            free = 0 if taken else free + 1
            if free > _FREE_LOOKS:
                await _publish_in_a_child(url)
                free = 0
            await asyncio.sleep(_LOOK_EVERY)


async def _on_air(settings: Settings) -> None:
    """Wait until the broadcast can be watched, for half a minute at most."""
    click.echo("going on air …")
    async with open_catalog(settings) as access:
        for _ in range(_LOOKS):
            if _watchable(await access.catalog.item(STREAM)):
                break
            await asyncio.sleep(_LOOK_EVERY / 4)


def _watchable(item: Item | None) -> bool:
    return isinstance(item, Stream) and item.state == "on_air" and item.renditions[0].segments != ()


async def _publish_in_a_child(url: str) -> None:
    """Broadcast until another publisher takes over; other users cannot see the key."""
    await _in_a_child("xbyte_live.devnet.publisher", **{URL_VARIABLE: url})


async def _make_in_a_child(sample: Sample, path: Path) -> None:
    """Draw and encode a sample in a child process."""
    if await _in_a_child("xbyte_live.devnet.samples", sample.slug, str(path)) != 0:
        raise DevnetError(f"the sample {sample.name} could not be made; see above")


async def _in_a_child(module: str, *args: str, **environment: str) -> int | None:
    """Run a module in a child process that ends with us; its exit status."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *args),
        env=worker_environment(os.environ) | environment,
        stderr=asyncio.subprocess.DEVNULL if environment else None,
        start_new_session=True,  # Ctrl-C is for us to pass on
    )
    try:
        await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode


def _describe(
    path: Path, settings: Settings, devnet: Devnet, titles: list[Title], key: str
) -> None:
    url = public_url(settings)
    document: dict[str, Any] = {
        "http_url": url,
        "rpc_url": devnet.rpc_url,
        "chain_id": devnet.asset.chain_id,
        "network": devnet.network,
        "asset": devnet.asset.address,
        "pay_to": PAYEE.address,
        "payer_key": PAYER.key,
        "faucet_url": settings.faucet_url,
        "rtmp_url": rtmp_url(settings),
        "stream_slug": STREAM,
        "stream_key": key,
        "items": [
            {
                "slug": title.slug,
                "kind": "title",
                "name": title.name,
                "url": f"{url}/hls/{title.slug}/index.m3u8",
                "renditions": [rendition.name for rendition in title.renditions],
            }
            for title in titles
        ]
        + [
            {
                "slug": STREAM,
                "kind": "stream",
                "name": "Demo broadcast",
                "url": f"{url}/hls/{STREAM}/index.m3u8",
                "renditions": ["source"],
            }
        ],
    }
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    draft.replace(path)


def _tell(settings: Settings, titles: list[Title], key: str) -> None:
    url = public_url(settings)
    bold = (lambda text: click.style(text, bold=True)) if on_terminal() else str
    click.echo()
    click.echo(bold(f"Open {url}/ in a browser"))
    click.echo("and choose what to play: a test wallet in it pays, a meter shows each cent.")
    click.echo("what it earns shows in the studio, which this link opens once:")
    click.echo(f"  {login_url(settings)}")
    place = f"--data-dir {settings.data_dir} --port {settings.port}"
    click.echo(f"  (for another: {_command()} studio {place})")
    click.echo("and in the books, which are proved against the chain by:")
    node = f"--rpc-urls {settings.rpc_urls[0]}"
    click.echo(f"  {_command()} ledger audit --data-dir {settings.data_dir} {node}")
    click.echo(f"{BANNER}\n")
    click.echo(f"for sale at ${settings.price} per MB (1,048,576 bytes):")
    for title in titles:
        segments = title.renditions[0].segments
        cost = sum(title.offers[0].price.amount_for(s.size) for s in segments)
        whole = format_decimal(cost, PRICE_DECIMALS)
        click.echo(f"  {url}/hls/{title.slug}/index.m3u8   ${whole} for all {len(segments)}")
    click.echo(f"  {url}/hls/{STREAM}/index.m3u8   live, with a clock to see the delay by")
    first = titles[0]
    segment = f"{first.renditions[0].name}/{first.renditions[0].segments[0].msn}.ts"
    click.echo("\nask for a segment, and be asked for money:")
    click.echo(f"  curl -si {url}/hls/{first.slug}/{segment} | head -4")
    click.echo("pay, with the demo wallet:")
    playlist = f"{url}/hls/{first.slug}/index.m3u8"
    click.echo(f"  XBYTE_WALLET_KEY={PAYER.key} {_command()} pay {playlist}")
    click.echo("go on air yourself, in place of the demo's broadcast (OBS: server, stream key):")
    click.echo(f"  ffmpeg -re -i FILE -c copy -f flv {rtmp_url(settings)}/{key}")
    click.echo("\nCtrl-C ends it.")


def _command() -> str:
    """The command this program was called by, for commands that people paste."""
    called = sys.argv[0]
    return called if Path(called).name == "xbyte-live" else "xbyte-live"


async def _first(*work: Any) -> None:
    """Wait for whichever ends first and raise its error; cancel all but the first given."""
    tasks = [asyncio.ensure_future(job) for job in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)

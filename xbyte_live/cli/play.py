"""Wiring: ``play`` and ``proxy``: any player on this machine plays what is sold by the byte."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import wraps
from typing import Any

import click
import httpx2
import uvicorn

from xbyte_live.cli.options import (
    PAYER_SETTINGS,
    Command,
    json_option,
    limit_options,
    settings_options,
    together,
)
from xbyte_live.cli.output import SpendingLine, print_json_line, warn
from xbyte_live.cli.wallet_files import open_channels, open_payer
from xbyte_live.client.payer.budget import dollars
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.playlists import Selection
from xbyte_live.client.proxy.app import Proxy, ProxyOptions, open_proxy
from xbyte_live.client.proxy.http import listen_on_loopback
from xbyte_live.client.proxy.spend_meter import Spent
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.runtime.format import size_text
from xbyte_live.runtime.processes import without_settings

# The command of each player to play one URL, quietly, and to end when it is through.
PLAYERS: dict[str, tuple[str, ...]] = {
    "mpv": ("mpv", "--no-terminal"),
    "vlc": ("vlc", "--quiet", "--no-one-instance", "--play-and-exit"),
    "ffplay": ("ffplay", "-hide_banner", "-loglevel", "error", "-nostats", "-autoexit"),
}
_SWITCHING = ("vlc",)  # changes renditions as it plays; others would buy a piece of each

_EVERY = 0.5  # seconds between two looks at what was spent
_CONNECTIONS = 64
_PATIENCE = 5.0  # seconds a player has to end by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayOptions:
    """An item to play through a proxy on this machine, and the limits of its payer."""

    url: str
    port: int
    budget: str
    max_price: str | None
    max_per_minute: str | None
    max_deposit: str
    rendition: str | None
    max_bandwidth: int | None
    allow_plain_http: bool


def play_options(command: Command) -> Command:
    """The options of ``PlayOptions``, passed on as one ``options``."""

    @wraps(command)
    def with_options(**given: Any) -> Any:
        names = (field.name for field in fields(PlayOptions))
        options = PlayOptions(**{name: given.pop(name) for name in names})
        return command(options=options, **given)

    return together(
        click.argument("url"),
        click.option(
            "--port", default=0, type=click.IntRange(0, 65535), help="Port; else any free one."
        ),
        limit_options,
    )(with_options)


@click.command()
@play_options
@json_option
@settings_options(*PAYER_SETTINGS)
async def proxy(settings: Settings, options: PlayOptions, as_json: bool) -> None:
    """Offer what URL sells to any player on this machine, paying as it plays."""
    await _serve_player(settings, options, player="", as_json=as_json)


@click.command()
@click.option(
    "--player", type=click.Choice(["mpv", "vlc", "ffplay"]), help="Else whichever is installed."
)
@play_options
@json_option
@settings_options(*PAYER_SETTINGS)
async def play(settings: Settings, options: PlayOptions, player: str | None, as_json: bool) -> None:
    """Play what URL sells, paying as it plays."""
    name = _find(player)
    if status := await _serve_player(settings, options, player=name, as_json=as_json):
        raise click.exceptions.Exit(status)


async def _serve_player(
    settings: Settings, options: PlayOptions, *, player: str, as_json: bool
) -> int:
    """Offer an item on loopback until interrupted, or until its player ends; the exit status.

    Without a ``player`` none is started.
    """
    payer = open_payer(
        settings,
        budget=options.budget,
        max_price=options.max_price,
        max_per_minute=options.max_per_minute,
        max_deposit=options.max_deposit,
    )
    proxy_options = ProxyOptions(
        wanted=Selection(rendition=options.rendition, max_bandwidth=options.max_bandwidth),
        best=bool(player) and player not in _SWITCHING,
        allow_plain_http=options.allow_plain_http,
    )
    listener, authority = listen_on_loopback(options.port)
    _, _, bound = authority.rpartition(":")
    shown = _Shown(as_json=as_json)
    with listener, shown.line, _interruptions() as interrupted:
        async with open_proxy(
            options.url,
            payer,
            frozenset({authority, f"localhost:{bound}"}),
            shown,
            options=proxy_options,
            store=open_channels(payer.address),
            read_channel=channel_reader(settings.rpc_by_network),
        ) as proxy:
            async with _answering(proxy, listener):
                local = f"http://{authority}{proxy.path}"
                shown.ready(local, player)
                status = await _until_over(proxy, shown, interrupted, player, local)
            shown.end(proxy.spent, payer, options.url)
    return status


async def _until_over(
    proxy: Proxy, shown: "_Shown", interrupted: asyncio.Event, player: str, url: str
) -> int:
    watching = asyncio.create_task(_watch(proxy, shown))
    over = asyncio.create_task(interrupted.wait())
    try:
        if not player:
            await over
            return 0
        async with _player(player, url) as process:
            ended = asyncio.create_task(process.wait())
            await asyncio.wait((over, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                return 0
            if process.returncode:
                warn(f"{player} ended with status {process.returncode}")
            return 1 if process.returncode else 0
    finally:
        for task in (watching, over):
            task.cancel()
        await asyncio.gather(watching, over, return_exceptions=True)


async def _watch(proxy: Proxy, shown: "_Shown") -> None:
    while True:
        shown.spent(proxy.spent)
        await asyncio.sleep(_EVERY)


@asynccontextmanager
async def _answering(proxy: Proxy, listener: object) -> AsyncIterator[None]:
    """Answer HTTP for a proxy; what is under way when it ends is broken off."""
    server = _Server(
        uvicorn.Config(
            proxy,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))  # type: ignore[list-item]
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _interruptions() -> Iterator[asyncio.Event]:
    """An event that is set at SIGINT or SIGTERM."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    try:
        yield over
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _player(name: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A player as a child process, ended with us."""
    process = await asyncio.create_subprocess_exec(
        *PLAYERS[name],
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env=without_settings(os.environ),
        start_new_session=True,  # Ctrl-C is for us to pass on
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _PATIENCE)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _find(wanted: str | None) -> str:
    """The player to start; raises ``ConfigError`` when there is none."""
    for name in (wanted,) if wanted else PLAYERS:
        if shutil.which(PLAYERS[name][0]):
            return name
    which = wanted or "none of mpv, vlc and ffplay"
    raise ConfigError(
        f"{which} is {'not ' if wanted else ''}installed; install mpv (`apt install mpv`, "
        "`brew install mpv`), or run `xbyte-live proxy` and open its URL in any player"
    )


class _Shown:
    """What a player's payer spends, as a line that changes on a terminal, else now and then."""

    def __init__(self, *, as_json: bool) -> None:
        self.line = SpendingLine(quiet=as_json)
        self._as_json = as_json
        self._last: Spent | None = None
        self._reasons: set[str] = set()

    def ready(self, url: str, player: str) -> None:
        """Show the URL to play, or which ``player`` is about to play it."""
        if self._as_json:
            print_json_line({"event": "ready", "url": url})
        elif player:
            warn(f"playing with {player}; Ctrl-C ends it")
        else:
            click.echo(url)

    def spent(self, spent: Spent) -> None:
        """Show what is spent so far."""
        if self._as_json and spent != self._last:
            print_json_line({"event": "spent", **asdict(spent)})
        self._last = spent
        self.line.show(
            spent.paid,
            spent.cap,
            f"{dollars(spent.paid)} of {dollars(spent.cap)}",
            f"{dollars(spent.minute)} in the last minute, {size_text(spent.bytes)}, "
            f"{spent.segments} segments, {spent.ahead} ahead",
            now=time.monotonic(),
        )

    def stopped(self, reason: str) -> None:
        """Show why the player was refused something, once for each reason."""
        if reason in self._reasons:
            return
        self._reasons.add(reason)
        if self._as_json:
            print_json_line({"event": "stopped", "reason": reason})
        else:
            self.line.say(f"stopped: {reason}")

    def end(self, spent: Spent, payer: Payer, url: str) -> None:
        """Show what was spent in all, and what is left in channels."""
        signed, left = payer.budget.signed, _left(payer, url)
        if self._as_json:
            print_json_line({"event": "ended", **asdict(spent), "signed": signed, "left": left})
            return
        self.line.close()
        warn(f"paid {dollars(spent.paid)} for {spent.segments} segments, {size_text(spent.bytes)}")
        if signed > spent.paid:
            warn(f"{dollars(signed - spent.paid)} more was signed for and not delivered")
        if left:
            warn(
                f"{dollars(left)} is left in the channel to this server for another time; "
                f"`xbyte-live wallet refund {url}` gives it back"
            )


def _left(payer: Payer, url: str) -> int:
    """What can be refunded from channels to a server, in atomic units."""
    server = httpx2.URL(url).netloc
    return sum(
        channel.refundable
        for channel in payer.channels.values()
        if channel.state == "open" and httpx2.URL(channel.url).netloc == server
    )

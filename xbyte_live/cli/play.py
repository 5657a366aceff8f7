"""Wiring: the commands that let any player on this machine play what is sold by the byte."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict

import click
import httpx
import uvicorn

from xbyte_live.cli.output import SpendingLine, print_json_line, size, warn
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
from xbyte_live.runtime.processes import without_settings

# How each player is told to play one URL, say little, and end when it is through.
PLAYERS: dict[str, tuple[str, ...]] = {
    "mpv": ("mpv", "--no-terminal"),
    "vlc": ("vlc", "--quiet", "--no-one-instance", "--play-and-exit"),
    "ffplay": ("ffplay", "-hide_banner", "-loglevel", "error", "-nostats", "-autoexit"),
}
_SWITCHING = ("vlc",)  # changes renditions as it plays; others would buy a piece of each

_EVERY = 0.5  # seconds between two looks at what was spent
_CONNECTIONS = 64
_PATIENCE = 5.0  # seconds a player has to end by itself


async def serve_player(
    settings: Settings,
    url: str,
    *,
    port: int,
    budget: str,
    max_per_minute: str | None,
    max_price: str | None,
    max_deposit: str,
    rendition: str | None,
    max_bandwidth: int | None,
    allow_plain_http: bool,
    as_json: bool,
    player: str | None = None,
    play: bool = False,
) -> int:
    """Offer an item on loopback until interrupted, or until its player ends; the exit status.

    With ``play`` the player is started, any that is installed unless one is named.
    """
    name = _find(player) if play else ""
    payer = open_payer(
        settings,
        budget=budget,
        max_price=max_price,
        max_per_minute=max_per_minute,
        max_deposit=max_deposit,
    )
    options = ProxyOptions(
        wanted=Selection(rendition=rendition, max_bandwidth=max_bandwidth),
        best=play and name not in _SWITCHING,
        allow_plain_http=allow_plain_http,
    )
    listener, authority = listen_on_loopback(port)
    _, _, bound = authority.rpartition(":")
    shown = _Shown(as_json=as_json)
    with listener, shown.line, _interruptions() as interrupted:
        async with open_proxy(
            url,
            payer,
            frozenset({authority, f"localhost:{bound}"}),
            shown,
            options=options,
            store=open_channels(payer.address),
            read_channel=channel_reader(settings.rpc_by_network),
        ) as proxy:
            async with _answering(proxy, listener):
                local = f"http://{authority}{proxy.path}"
                shown.ready(local, name)
                status = await _until_over(proxy, shown, interrupted, name, local)
            shown.end(proxy.spent, payer, url)
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
    """Set when somebody wants an end."""
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
    """A player of our own, ended with us."""
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
    """What is said while it plays: a line that changes on a terminal, else lines now and then."""

    def __init__(self, *, as_json: bool) -> None:
        self.line = SpendingLine(quiet=as_json)
        self._as_json = as_json
        self._last: Spent | None = None
        self._reasons: set[str] = set()

    def ready(self, url: str, player: str) -> None:
        """It can be played at ``url``, and ``player`` is about to, if there is one."""
        if self._as_json:
            print_json_line({"event": "ready", "url": url})
        elif player:
            warn(f"playing with {player}; Ctrl-C ends it")
        else:
            click.echo(url)

    def spent(self, spent: Spent) -> None:
        """How it stands now."""
        if self._as_json and spent != self._last:
            print_json_line({"event": "spent", **asdict(spent)})
        self._last = spent
        self.line.show(
            spent.paid,
            spent.cap,
            f"{dollars(spent.paid)} of {dollars(spent.cap)}",
            f"{dollars(spent.minute)} in the last minute, {size(spent.bytes)}, "
            f"{spent.segments} segments, {spent.ahead} ahead",
            now=time.monotonic(),
        )

    def stopped(self, reason: str) -> None:
        """The player was refused something."""
        if reason in self._reasons:
            return
        self._reasons.add(reason)
        if self._as_json:
            print_json_line({"event": "stopped", "reason": reason})
        else:
            self.line.say(f"stopped: {reason}")

    def end(self, spent: Spent, payer: Payer, url: str) -> None:
        """It is over."""
        signed, left = payer.budget.signed, _left(payer, url)
        if self._as_json:
            print_json_line({"event": "ended", **asdict(spent), "signed": signed, "left": left})
            return
        self.line.close()
        warn(f"paid {dollars(spent.paid)} for {spent.segments} segments, {size(spent.bytes)}")
        if signed > spent.paid:
            warn(f"{dollars(signed - spent.paid)} more was signed for and not delivered")
        if left:
            warn(
                f"{dollars(left)} is left in the channel to this server for another time; "
                f"`xbyte-live wallet refund {url}` gives it back"
            )


def _left(payer: Payer, url: str) -> int:
    """What lies in channels to a server."""
    server = httpx.URL(url).netloc
    return sum(
        channel.refundable
        for channel in payer.channels.values()
        if channel.state == "open" and httpx.URL(channel.url).netloc == server
    )

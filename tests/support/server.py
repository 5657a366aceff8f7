"""The real server as a process of its own, on a real chain, to be paid, killed, started again."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.config import Settings, load_settings
from xbyte_live.models import Rewatch
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

SIZE = 300_000


def is_there(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def free_port() -> int:
    """A port nothing listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """`xbyte-live serve` over ``data_dir``; ``env`` holds its settings, ``log`` what it says."""

    data_dir: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    log: Path | None = None
    group: int | None = None  # it runs as, where we are root; else as ours

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        own = {"XBYTE_DATA_DIR": str(self.data_dir), "XBYTE_PORT": str(self.port)}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("XBYTE_")}
        return kept | own | self.env

    @property
    def settings(self) -> Settings:
        return load_settings(environ=self.environment)

    async def start(self) -> None:
        """Start it and return once it answers."""
        command = (sys.executable, "-m", "xbyte_live", "serve")
        with self.log.open("ab") if self.log else nullcontext() as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, env=self.environment, stderr=log, group=self.group
            )
        async with asyncio.timeout(60), httpx2.AsyncClient() as http:
            while self.process.returncode is None:
                try:
                    await http.get(f"{self.url}/healthz")
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)  # there is no event in another process
                else:
                    return
        raise AssertionError(f"the server ended with {self.process.returncode}")

    async def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it as an operator would; it must end well."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 40) == 0

    async def sell(self, slug: str, data: bytes, price: int, *, rewatch: Rewatch = "paid") -> None:
        """Put an object on sale, at so many millionths of a dollar per MB."""
        source = self.data_dir.parent / f"{slug}.bin"
        source.write_bytes(data)
        async with open_catalog(self.settings) as shelf:
            terms = SaleTerms(Price(price), rewatch=rewatch)
            await Importer(shelf.catalog, shelf.store).object(source, slug, terms)


@asynccontextmanager
async def a_server(
    tmp_path: Path, rpc_url: str, pay_to: str, gas_key: str, **settings: str
) -> AsyncIterator[Server]:
    """A running server that settles with its own gas key unless ``facilitators`` says other."""
    data_dir = tmp_path / "server"
    data_dir.mkdir()
    env = {
        "XBYTE_PAY_TO": pay_to,
        "XBYTE_NETWORKS": "eip155:84532",
        "XBYTE_RPC_URLS": f"eip155:84532={rpc_url}",
        "XBYTE_GAS_KEY": gas_key,
        "XBYTE_LOG_LEVEL": "warning",
        "XBYTE_RTMP_PORT": "0",
    } | {f"XBYTE_{name.upper()}": value for name, value in settings.items()}
    server = Server(data_dir, env)
    await server.sell("bytes", os.urandom(SIZE), 1_000_000)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()

"""Free segments against a bare Starlette ``Response(bytes)``: ``python -m tests.bench.free_path``.

Both serve the same 200 kB from memory on uvicorn (uvloop, httptools), each in a process of its
own; wrk asks them in turn, several rounds, and the medians make the ratio.
"""

import asyncio
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.support.web import Site, a_title, segment_bytes
from xbyte_live.web.common.middleware import Cors

SIZE = 200_000
URL = "/hls/plasma/source/2.ts"
CONNECTIONS = 32
ROUNDS = 5
SECONDS = 4


def bare() -> ASGIApp:
    """Starlette with the bytes in a variable."""
    body = segment_bytes(2, SIZE)

    async def answer(_: Request) -> Response:
        return Response(body, 200, {"content-type": "video/mp2t"})

    return Starlette(routes=[Route("/hls/{slug}/{rendition}/{msn}.ts", answer)])


def dressed() -> ASGIApp:
    """The same under the headers that our answer has: what they alone cost."""
    body = segment_bytes(2, SIZE)
    headers = {
        "content-type": "video/mp2t",
        "etag": f'"{hashlib.sha256(body).hexdigest()}"',
        "cache-control": "public, max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        **{name.decode(): value.decode() for name, value in Cors(["*"]).headers(URL, [])},
    }

    async def answer(_: Request) -> Response:
        return Response(body, 200, headers)

    return Starlette(routes=[Route("/hls/{slug}/{rendition}/{msn}.ts", answer)])


def ours() -> ASGIApp:
    """The product over a catalog and store in memory, every segment free."""
    site = Site()
    site.add_title(a_title(price=0, count=600, size=SIZE))
    return site.app


class _Server(uvicorn.Server):
    async def startup(self, sockets: Sequence[Any] | None = None) -> None:
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def serve(name: str) -> None:
    """Be one of the two servers; prints the port once it listens."""
    app = {"bare": bare, "dressed": dressed, "ours": ours}[name]()
    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_Server(config).serve())


@dataclass(frozen=True, slots=True)
class Round:
    """What one run of wrk measured: rate by the clock, and CPU the server spent a request."""

    per_second: float
    cpu_us: float


def load(wrk: str, server: subprocess.Popen[bytes], port: int, seconds: int) -> Round:
    """Ask for the segment on one thread; raises ``RuntimeError`` if an answer was not 2xx."""
    url = f"http://127.0.0.1:{port}{URL}"
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    before = cpu_seconds(server.pid)
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spent = cpu_seconds(server.pid) - before
    rate = re.search(r"Requests/sec:\s*([0-9.]+)", report)
    count = re.search(r"([0-9]+) requests in", report)
    if rate is None or count is None or "Non-2xx" in report:
        raise RuntimeError(f"wrk reports: {report}")
    return Round(float(rate[1]), spent / int(count[1]) * 1e6)


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print; 1 with one sentence where wrk is missing."""
    wrk = shutil.which("wrk")
    if wrk is None:
        print("this benchmark needs wrk (Debian: apt install wrk)", file=sys.stderr)
        return 1
    names = ("bare", "dressed", "ours")
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.free_path", name], stdout=subprocess.PIPE
        )
        for name in names
    ]
    rounds: dict[str, list[Round]] = {name: [] for name in names}
    try:
        ports = [int(server.stdout.readline()) for server in servers if server.stdout]
        for server, port in zip(servers, ports, strict=True):
            load(wrk, server, port, 1)
        for _ in range(ROUNDS):
            for name, server, port in zip(names, servers, ports, strict=True):
                rounds[name].append(load(wrk, server, port, SECONDS))
    finally:
        for server in servers:
            server.terminate()
            server.wait()
    for name in names:
        rate = statistics.median(each.per_second for each in rounds[name])
        cpu = statistics.median(each.cpu_us for each in rounds[name])
        print(f"{name:7} {rate:8,.0f} requests/s of {SIZE:,} bytes, {cpu:6.1f} µs of CPU each")
    for other in ("bare", "dressed"):
        pairs = list(zip(rounds[other], rounds["ours"], strict=True))
        by_clock = statistics.median(ours.per_second / each.per_second for each, ours in pairs)
        by_cpu = statistics.median(each.cpu_us / ours.cpu_us for each, ours in pairs)
        print(f"ours against {other}: {by_clock:.2f} by the clock, {by_cpu:.2f} by CPU")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        sys.exit(main())

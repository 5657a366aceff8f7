"""Live packaging against nginx with its RTMP module: ``python -m tests.bench.live``.

Needs ``nginx`` with ``libnginx-mod-rtmp`` on the machine, and two cores to itself. In one run:

- one 6 Mb/s publisher pushes the same file to both at the same time for half a minute; the
  processor time of all processes of each is compared (publishers do not count);
- what each further publisher adds to the memory of all our processes (proportional set size);
- 20 publishers of 3 Mb/s at once, not in step: how long the keyframe that closes a segment takes
  to its line in the playlist, then how late segments are to players that wait for them;
- an hour of a feed as fast as it goes: whether memory stays flat.
"""

import asyncio
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx2
import imageio_ffmpeg

from tests.support.server import free_port

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SECONDS = 30
MANY, TARGET = 20, 2.0
FURTHER = 5
TICKS = os.sysconf("SC_CLK_TCK")

NGINX = """
load_module {modules}/ngx_rtmp_module.so;
daemon off; master_process off; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096;
  application live {{ live on; hls on; hls_path {folder}/hls; hls_fragment 2s; }} }} }}
"""


@dataclass(slots=True)
class Site:
    """Our server as a process, and the keys of its streams by slug."""

    folder: Path
    port: int = field(default_factory=free_port)
    rtmp_port: int = field(default_factory=free_port)
    keys: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "XBYTE_DATA_DIR": str(self.folder),
            "XBYTE_PORT": str(self.port),
            "XBYTE_RTMP_PORT": str(self.rtmp_port),
            "XBYTE_RTMP_CONNECTIONS_PER_ADDRESS": "100",
            "XBYTE_PAY_TO": "0x00000000000000000000000000000000000000aa",
            "XBYTE_NETWORKS": "eip155:84532",
            "XBYTE_FACILITATORS": "http://127.0.0.1:9",
            "XBYTE_LOG_LEVEL": "warning",
        }

    def command(self, *args: str) -> str:
        """Run a command of ours; what it prints."""
        program = [sys.executable, "-m", "xbyte_live", *args]
        run = subprocess.run(program, env=self.environment, check=True, capture_output=True)
        return run.stdout.decode()

    def add_stream(self, slug: str) -> None:
        """A free stream."""
        said = self.command("stream", "create", slug, "--preview", "86400")
        self.keys[slug] = re.findall(r"xb_[0-9a-f]{40}", said)[0]

    def target(self, slug: str) -> str:
        """Where a publisher pushes to."""
        return f"rtmp://127.0.0.1:{self.rtmp_port}/live/{self.keys[slug]}"

    async def start(self) -> None:
        """Start serving."""
        program = [sys.executable, "-m", "xbyte_live", "serve"]
        self.process = subprocess.Popen(program, env=self.environment)
        async with httpx2.AsyncClient() as http, asyncio.timeout(60):
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{self.port}/healthz")
                    return
                except httpx2.TransportError:
                    await asyncio.sleep(0.1)


def encode(path: Path, bit_rate: int, size: str) -> None:
    """A minute of H.264 with a keyframe every two seconds, and AAC."""
    command = [FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=30"]
    command += ["-f", "lavfi", "-i", "sine=440:r=48000", "-t", "60"]
    command += ["-vf", "noise=alls=20:allf=t", "-c:v", "libx264", "-preset", "ultrafast"]
    command += ["-b:v", str(bit_rate), "-minrate", str(bit_rate), "-maxrate", str(bit_rate)]
    command += ["-bufsize", str(bit_rate), "-g", "60", "-keyint_min", "60", "-sc_threshold", "0"]
    command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "128k", str(path)]
    subprocess.run(command, check=True)


def push(source: Path, target: str, seconds: float) -> subprocess.Popen[bytes]:
    """Push a file in real time, again and again."""
    command = [FFMPEG, "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(source)]
    command += ["-c", "copy", "-t", str(seconds), "-f", "flv", target]
    return subprocess.Popen(command)


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found += family(int(stat.parent.name))
    return found


def processor_time(pid: int) -> float:
    """Seconds of processor time a family has taken, its ended children included."""
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
        if member == pid:
            total += int(fields[13]) + int(fields[14])
    return total / TICKS


def memory(pid: int) -> float:
    """The proportional set size of a family in MB."""
    total = 0
    for member in family(pid):
        rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        total += int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0])
    return total / 1024


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """nginx as one process, and its port."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    port = free_port()
    config = folder / "nginx.conf"
    modules = next(Path("/usr").glob("lib*/nginx/modules"))
    config.write_text(NGINX.format(folder=folder, port=port, modules=modules))
    process = subprocess.Popen([program, "-c", str(config), "-p", str(folder)])
    try:
        await asyncio.sleep(1)
        yield process, port
    finally:
        process.terminate()
        process.wait()


async def compare_processor_time(site: Site, folder: Path, source: Path) -> None:
    """One publisher each, at the same time."""
    assert site.process is not None
    async with nginx(folder) as (peer, port):
        pushing = [
            push(source, site.target("one"), SECONDS + 10),
            push(source, f"rtmp://127.0.0.1:{port}/live/one", SECONDS + 10),
        ]
        await asyncio.sleep(5)  # the start is not counted: imports, the fork
        before = processor_time(site.process.pid), processor_time(peer.pid)
        await asyncio.sleep(SECONDS)
        after = processor_time(site.process.pid), processor_time(peer.pid)
        for publisher in pushing:
            publisher.wait()
    ours, theirs = (b - a for a, b in zip(before, after, strict=True))
    print(
        f"one 6 Mb/s publisher, {SECONDS} s: ours {ours:.2f} s ({ours / SECONDS:.1%} of a core), "
        f"nginx {theirs:.2f} s ({theirs / SECONDS:.1%}): {ours / theirs:.2f} x (budget 3 x)"
    )


async def measure_many(site: Site, source: Path) -> None:
    """Memory with more and more publishers, then lateness with all of them."""
    assert site.process is not None
    slugs = [f"many{number}" for number in range(MANY)]
    pushing = [push(source, site.target(slugs[0]), 190)]
    await asyncio.sleep(8)
    one = memory(site.process.pid)
    pushing += await push_all(site, source, slugs[1 : 1 + FURTHER])
    await asyncio.sleep(10)
    each = (memory(site.process.pid) - one) / FURTHER
    print(f"memory: {one:.0f} MB with one publisher, {each:.1f} MB a further one (budget 25 MB)")
    pushing += await push_all(site, source, slugs[1 + FURTHER :])
    await asyncio.sleep(10)
    async with httpx2.AsyncClient(timeout=30) as http:
        delays = await listing_delays(http, site, 60)
        late = await asyncio.gather(*(lateness(http, site, slug) for slug in slugs))
    for publisher in pushing:
        publisher.send_signal(signal.SIGINT)
    for publisher in pushing:
        publisher.wait()
    worst = max(max(one) for one in late)
    counted = sum(map(len, late))
    print(
        f"{MANY} publishers of 3 Mb/s: {counted} segments, the longest wait from one to the next "
        f"{worst:.2f} s = {worst / TARGET:.2f} x target (budget 1.5 x)"
    )
    cuts = quantiles(delays, n=100)
    print(
        f"keyframe to playlist, {len(delays)} segments: median {cuts[49] * 1e3:.0f} ms, "
        f"p99 {cuts[98] * 1e3:.0f} ms (budget 100 ms)"
    )


async def push_all(site: Site, source: Path, slugs: list[str]) -> list[subprocess.Popen[bytes]]:
    """One publisher after the other, as people are not in step to the tenth of a second."""
    pushing = []
    for slug in slugs:
        pushing.append(push(source, site.target(slug), 170))
        await asyncio.sleep(0.13)
    return pushing


async def lateness(http: httpx2.AsyncClient, site: Site, slug: str) -> list[float]:
    """Seconds from segment to segment as a player sees them come, for a minute."""
    url = f"http://127.0.0.1:{site.port}/hls/{slug}/source/index.m3u8"
    msn = last_msn((await http.get(url)).text)
    seen: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < 60:
        msn += 1
        answer = await http.get(url, params={"_HLS_msn": msn})
        assert last_msn(answer.text) >= msn, f"{slug} lists no segment {msn}"
        seen.append(time.monotonic())
    return [b - a for a, b in itertools.pairwise(seen)]


def last_msn(text: str) -> int:
    """The newest segment of a playlist."""
    return int(re.findall(r"^(\d+)\.ts$", text, re.MULTILINE)[-1])


async def listing_delays(http: httpx2.AsyncClient, site: Site, seconds: float) -> list[float]:
    """What the server says every segment took, read more often than segments come."""
    found: dict[tuple[str, str], float] = {}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        text = (await http.get(f"http://127.0.0.1:{site.port}/metrics")).text
        segments = dict(re.findall(r'xbyte_feed_segments_total{stream="(\w+)"} (\S+)', text))
        delays = re.findall(r'xbyte_feed_listing_delay_seconds{stream="(\w+)"} (\S+)', text)
        found |= {(slug, segments[slug]): float(delay) for slug, delay in delays}
        await asyncio.sleep(0.5)
    return list(found.values())


async def an_hour(site: Site, folder: Path, source: Path) -> None:
    """Push an hour of media as fast as it is taken, looking at memory on the way."""
    assert site.process is not None
    command = [FFMPEG, "-v", "error", "-nostdin", "-stream_loop", "-1", "-i", str(source)]
    command += ["-c", "copy", "-t", "3600", "-f", "flv", site.target("hour")]
    publisher = subprocess.Popen(command)
    async with httpx2.AsyncClient(timeout=30) as http:
        url = f"http://127.0.0.1:{site.port}/api/v1/streams/hour"
        marks = [600, 1800, 3500]
        sizes = []
        while marks and publisher.poll() is None:
            feed = (await http.get(url)).json()["feed"] or {"segments": 0}
            if feed["segments"] * TARGET >= marks[0]:
                sizes.append(f"{memory(site.process.pid):.0f} MB at {marks.pop(0) // 60} min")
            await asyncio.sleep(0.2)
    publisher.wait()
    print("an hour of 3 Mb/s as fast as it goes, memory of all processes: " + ", ".join(sizes))


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="xbyte-bench-"))
    site = Site(folder / "data")
    try:
        six, three = folder / "six.mp4", folder / "three.mp4"
        encode(six, 5_900_000, "1280x720")
        encode(three, 2_900_000, "960x540")
        for slug in ("one", "hour", *(f"many{number}" for number in range(MANY))):
            site.add_stream(slug)
        await site.start()
        await compare_processor_time(site, folder, six)
        await measure_many(site, three)
        await an_hour(site, folder, three)
    finally:
        if site.process is not None:
            site.process.terminate()
            site.process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())

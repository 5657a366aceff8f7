"""What the container costs, and packaging against FFmpeg: ``python -m tests.bench.packaging``.

Overhead is the bytes of all segments beyond the elementary streams of the source. The time is
that of ``package()`` writing its segments to a folder, the poster included, over that of
``ffmpeg -c copy -f hls`` with the same target; of three runs each, in turn, the best counts.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from tests.support.media import Audio, Recipe, h264
from xbyte_live.media.vod.packager import package

SECONDS, ROUNDS = 60, 3
KINDS = {
    "4 Mb/s video + audio": Recipe(
        ".mp4", "mp4", h264(bit_rate=3_872_000, b_frames=2), seconds=SECONDS
    ),
    "128 kb/s AAC alone": Recipe(".m4a", "ipod", None, Audio(bit_rate=128_000), seconds=SECONDS),
}


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of the best run, and the bytes it wrote as segments."""

    seconds: float
    size: int


def ours(source: Path, folder: Path) -> None:
    """Package with ours."""

    def sink(rendition: str, index: int, data: bytes) -> None:
        (folder / f"{index}.ts").write_bytes(data)

    package(source, sink)


def theirs(ffmpeg: str) -> Callable[[Path, Path], None]:
    """Package with FFmpeg's command line."""

    def run(source: Path, folder: Path) -> None:
        command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(source), "-c", "copy"]
        command += ["-f", "hls", "-hls_time", "6", "-hls_playlist_type", "vod"]
        subprocess.run([*command, str(folder / "list.m3u8")], check=True)

    return run


def once(work: Callable[[Path, Path], None], source: Path) -> Result:
    """Run one packager into a fresh folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        work(source, folder)
        took = time.perf_counter() - began
        return Result(took, sum(file.stat().st_size for file in folder.glob("*.ts")))


def content(source: Path) -> int:
    """The bytes of the elementary streams."""
    with av.open(str(source)) as media:
        return sum(packet.size for packet in media.demux())


def main() -> None:
    """Measure and print a table."""
    ffmpeg = shutil.which("ffmpeg", path="/usr/bin") or shutil.which("ffmpeg")
    if ffmpeg is None:
        raise SystemExit("this benchmark needs ffmpeg (Debian: apt install ffmpeg)")
    print(f"{'input':22} {'Mb/s':>6} {'overhead':>9} {'ffmpeg':>7} {'time':>9} {'ffmpeg':>9} ratio")
    with tempfile.TemporaryDirectory() as name:
        for kind, recipe in KINDS.items():
            source = recipe.make(Path(name) / f"source{recipe.suffix}")
            pairs = [(once(ours, source), once(theirs(ffmpeg), source)) for _ in range(ROUNDS)]
            we, they = (min(runs, key=lambda run: run.seconds) for runs in zip(*pairs, strict=True))
            bare = content(source)
            print(
                f"{kind:22} {bare * 8 / SECONDS / 1e6:6.2f} {we.size / bare - 1:9.1%}"
                f" {they.size / bare - 1:7.1%} {we.seconds * 1000:6.0f} ms"
                f" {they.seconds * 1000:6.0f} ms {we.seconds / they.seconds:5.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())

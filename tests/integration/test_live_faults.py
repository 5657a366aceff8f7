"""What publishers, processes, disks and clocks do to a broadcast, and what viewers see of it."""

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.broadcaster import Broadcaster, a_broadcaster
from tests.support.media import Audio, Recipe, h264
from tests.support.players import Span, Viewer
from tests.support.publishers import Publication, Wire, a_wire, publishing

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = Recipe(".flv", "flv", h264(group=25, b_frames=2), Audio(rate=44100), seconds=20)
CLOCKWORK = Path(__file__).parents[1] / "support" / "clockwork"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLIP.make(tmp_path_factory.mktemp("clips") / "clip.flv")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def air(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broadcaster]:
    async with a_broadcaster(tmp_path_factory.mktemp("air"), rtmp_idle_timeout="5") as running:
        yield running


async def resumed(viewer: Viewer, *, segments: int = 2) -> list[Span]:
    """Follow a stream until segments were listed behind its one discontinuity; what plays."""

    def is_on_again(_: object) -> bool:
        breaks = [s.msn for s in viewer.segments if s.discontinuity]
        return bool(breaks) and viewer.segments[-1].msn >= breaks[-1] + segments - 1

    await viewer.until(is_on_again)
    assert sum(segment.discontinuity for segment in viewer.segments) == 1
    assert [segment.msn for segment in viewer.segments] == list(range(len(viewer.segments)))
    spans = await viewer.played()
    assert len(spans) == 2
    for span in spans:
        span.check()
    seen = await viewer.stock(sum(len(span.played.picture.times) for span in spans) - 10)
    assert (seen.picture.corrupt, len(seen.picture.jumps)) == (0, 1)
    return spans


def gap(spans: list[Span]) -> float:
    """Seconds nothing is listed of."""
    before, after = spans
    return (after.first.at_us - before.last.end_us) / 1e6


@asynccontextmanager
async def through_a_wire(
    air: Broadcaster, key: str, clip: Path, limit: int | None = None
) -> AsyncIterator[tuple[Wire, Publication]]:
    """A publisher whose connection is cut after so many bytes."""
    async with (
        a_wire(air.rtmp_port, limit) as wire,
        publishing(air.rtmp(key, wire.port), clip) as publication,
    ):
        yield wire, publication


async def test_a_connection_cut_anywhere_costs_no_more_than_the_cut(
    air: Broadcaster, clip: Path
) -> None:
    key = await air.stream("cut")
    viewer = air.viewer("cut")
    async with through_a_wire(air, key, clip, 80_001) as (first, publication):
        await viewer.until_last(0)
        playing = asyncio.create_task(viewer.stock(100))
        assert (await publication.ended())[0] != 0
    for within_the_handshake in (1, 1000, 1537, 3000):
        async with through_a_wire(air, key, clip, within_the_handshake) as (_, publication):
            assert (await publication.ended())[0] != 0
    assert (await air.until(lambda s: s["state"] == "waiting", "cut"))["broadcast"] == 1
    async with through_a_wire(air, key, clip) as (last, _):
        spans = await resumed(viewer, segments=3)
        assert abs(gap(spans) - (last.began_at - first.cut_at)) < 1.0
        played = await playing
        assert played.picture.corrupt == 0
        assert len(played.picture.jumps) == 1
    assert key not in air.log


async def test_a_second_publisher_is_refused_and_told_why(air: Broadcaster, clip: Path) -> None:
    key = await air.stream("taken")
    viewer = air.viewer("taken")
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(0)
        async with publishing(air.rtmp(key), clip) as second:
            code, said = await second.ended()
            assert code != 0
            assert "this stream is on air already" in said
        await viewer.until_last(2)
        [span] = await viewer.played()
        span.check()


@asynccontextmanager
async def insisting(url: str, clip: Path) -> AsyncIterator[None]:
    """A publisher that connects again whenever it is turned away, as OBS does."""

    async def insist() -> None:
        while True:
            async with publishing(url, clip) as publication:
                await publication.ended(60)

    task = asyncio.create_task(insist())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_publisher_that_hangs_is_replaced_within_seconds(
    air: Broadcaster, clip: Path
) -> None:
    key = await air.stream("stuck")
    viewer = air.viewer("stuck")
    async with publishing(air.rtmp(key), clip) as first:
        await viewer.until_last(1)
        first.freeze()
        async with insisting(air.rtmp(key), clip):
            assert 2 < gap(await resumed(viewer)) < 8  # FFmpeg may have sent half a second ahead


async def test_a_publisher_that_hangs_is_let_go_and_its_broadcast_waits(
    air: Broadcaster, clip: Path
) -> None:
    key = await air.stream("hung")
    viewer = air.viewer("hung")
    async with publishing(air.rtmp(key), clip) as publication:
        await viewer.until_last(1)
        publication.freeze()
        await air.until(lambda status: status["state"] == "waiting", "hung")
    assert "sent no sound or picture for 5 s" in air.log
    await viewer.reload()
    await viewer.take_free()
    [span] = await viewer.played()
    span.check()


async def test_a_second_publisher_takes_over_where_that_is_the_rule(
    tmp_path: Path, clip: Path
) -> None:
    async with a_broadcaster(tmp_path, second_publisher="take_over") as air:
        key = await air.stream()
        viewer = air.viewer()
        async with publishing(air.rtmp(key), clip) as first:
            await viewer.until_last(1)
            async with publishing(air.rtmp(key), clip):
                code, said = await first.ended()
                assert code != 0
                assert "another publisher took over" in said
                assert gap(await resumed(viewer)) < 4


async def quiet(air: Broadcaster) -> None:
    """Return once no feed is packaged any more."""
    async with asyncio.timeout(20):
        while air.feeds():
            await asyncio.sleep(0.02)  # the system tells only a parent


async def a_feed(air: Broadcaster, publication: Publication) -> int:
    """The process that packages what is published; the server's log where there comes none."""
    until = asyncio.get_running_loop().time() + 20
    while not (feeds := air.feeds()):
        gone = publication.process.returncode is not None
        assert not gone and asyncio.get_running_loop().time() < until, air.log
        await asyncio.sleep(0.02)  # it is started again without a word
    return feeds[0]


async def test_a_killed_packaging_process_costs_seconds(air: Broadcaster, clip: Path) -> None:
    await quiet(air)
    key = await air.stream("killed")
    viewer = air.viewer("killed")
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(1)
        [feed] = air.feeds()
        os.kill(feed, signal.SIGKILL)
        spans = await resumed(viewer)
        assert gap(spans) < 5
        status = await air.until(lambda status: status["feed"]["restarts"] == 1, "killed")
        [warning] = [w for w in status["feed"]["warnings"] if w["code"] == "restarted"]
        assert "killed" in warning["text"]


async def test_a_feed_whose_process_dies_again_and_again_is_ended(
    air: Broadcaster, clip: Path
) -> None:
    await quiet(air)
    key = await air.stream("dying")
    async with publishing(air.rtmp(key), clip) as publication:
        for _ in range(4):
            feed = await a_feed(air, publication)
            os.kill(feed, signal.SIGKILL)
            async with asyncio.timeout(20):
                while feed in air.feeds():
                    await asyncio.sleep(0.02)
        code, said = await publication.ended()
        assert code != 0
        assert "cannot be packaged" in said
    await quiet(air)


async def test_a_killed_server_goes_on_where_it_stood(tmp_path: Path, clip: Path) -> None:
    async with a_broadcaster(tmp_path) as air:
        key = await air.stream()
        viewer = air.viewer()
        async with publishing(air.rtmp(key), clip) as publication:
            await viewer.until_last(1)
            playlist = viewer.playlist
            feeds = air.feeds()
            await air.server.kill()
            assert (await publication.ended())[0] != 0
        await air.server.start()
        again = await viewer.reload()
        assert again is not None and playlist is not None
        assert again.segments[: len(playlist.segments)] == playlist.segments
        assert not again.ended
        await viewer.fetch_all()
        assert (await air.status())["state"] == "waiting"
        assert not any(Path(f"/proc/{feed}").exists() for feed in feeds)
        async with publishing(air.rtmp(key), clip):
            await resumed(viewer)
        await viewer.fetch_all()


async def test_a_stopping_server_lists_all_it_was_sent(tmp_path: Path, clip: Path) -> None:
    async with a_broadcaster(tmp_path) as air:
        key = await air.stream()
        viewer = air.viewer()
        async with publishing(air.rtmp(key), clip) as publication:
            await viewer.until_last(1)
            await air.server.stop()
            assert air.server.process is not None
            assert air.server.process.returncode == 0
            assert (await publication.ended())[0] != 0
        await air.server.start()
        await viewer.reload()
        await viewer.take_free()
        assert viewer.segments[-1].duration_us < 900_000  # what there was of a segment
        [span] = await viewer.played()
        span.check()
        assert (await air.status())["state"] == "waiting"


async def test_a_publisher_that_comes_back_with_other_media_goes_on(
    air: Broadcaster, clip: Path, tmp_path: Path
) -> None:
    other = replace(CLIP, video=h264(group=100), audio=Audio(rate=48000), seconds=10)
    key = await air.stream("other")
    viewer = air.viewer("other")
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(0)
    async with publishing(air.rtmp(key), other.make(tmp_path / "other.flv")):
        await resumed(viewer, segments=3)
        status = await air.until(lambda status: status["feed"]["warnings"], "other")
    [warning] = status["feed"]["warnings"]
    assert warning["code"] == "keyframes"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No room at all in a file system."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    yield
    ballast.unlink()


def may_mount() -> bool:
    """Whether this user can make a small file system of his own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


if may_mount():

    async def test_a_full_disk_takes_a_stream_off_and_on_again(tmp_path: Path, clip: Path) -> None:
        with small_disk(tmp_path / "server" / "store") as disk:
            async with a_broadcaster(tmp_path) as air:
                key = await air.stream()
                viewer = air.viewer()
                async with publishing(air.rtmp(key), clip):
                    await viewer.until_last(1)
                    with filled(disk):
                        status = await air.until(lambda s: s["feed"]["segments_lost"] > 0)
                        [warning] = [
                            w for w in status["feed"]["warnings"] if w["code"] == "storage"
                        ]
                        assert "No space left" in warning["text"]
                        assert status["state"] == "on_air"
                        await viewer.reload()
                        await viewer.fetch_all()
                    spans = await resumed(viewer)
                    assert gap(spans) > 1
                    await viewer.fetch_all()


async def test_no_room_for_anything_takes_a_stream_off_and_on_again(
    tmp_path: Path, clip: Path
) -> None:
    async with a_broadcaster(tmp_path) as air:
        key = await air.stream()
        viewer = air.viewer()
        assert air.server.process is not None
        pid = air.server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        async with publishing(air.rtmp(key), clip):
            await viewer.until_last(1)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            async with asyncio.timeout(20):
                while not await _lost(air):
                    await asyncio.sleep(0.1)  # metrics can only be asked for
            ready = await air.http.get(f"{air.server.url}/readyz")
            assert ready.status_code == 503
            assert "store" in ready.json()["problems"]
            await viewer.fetch_all()
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            await resumed(viewer)
            await viewer.fetch_all()


async def _lost(air: Broadcaster) -> bool:
    text = (await air.http.get(f"{air.server.url}/metrics")).text
    lost = [line for line in text.splitlines() if line.startswith("xbyte_feed_segments_lost")]
    return any(float(line.split()[-1]) > 0 for line in lost)


async def test_a_clock_that_is_set_does_not_show(tmp_path: Path, clip: Path) -> None:
    clock = tmp_path / "clock"
    env = {"PYTHONPATH": str(CLOCKWORK), "PYTHON_TEST_CLOCK": str(clock)}
    async with a_broadcaster(tmp_path, env) as air:
        key = await air.stream()
        viewer = air.viewer()
        async with publishing(air.rtmp(key), clip):
            await viewer.until_last(1)
            for msn, seconds in enumerate(("3600", "7200", "10800", "-3600"), start=2):
                clock.write_text(seconds)
                await viewer.until_last(msn)
        await air.until(lambda status: status["state"] == "waiting")
        [span] = await viewer.played()
        span.check()
        assert abs(span.first.at_us / 1e6 - time.time()) < 30
        async with publishing(air.rtmp(key), clip):  # an hour ago, by the clock of now
            spans = await resumed(viewer)
            assert 0 <= gap(spans) < 1

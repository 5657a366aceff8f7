"""Broadcasts from real publishers, through the whole server, to players."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.broadcaster import Broadcaster, a_broadcaster
from tests.support.media import RECIPES, Audio, Recipe, h264
from tests.support.players import Viewer, read_playlist, stock
from tests.support.publishers import PUBLISHERS, Command, a_wire, ffmpeg, publishing, pyav
from tests.support.web import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a long and random secret"
CLIP = Recipe(".flv", "flv", h264(group=25, b_frames=2), Audio(rate=44100), seconds=20)
HEVC = RECIPES["hevc"].video
assert HEVC is not None


@dataclass(slots=True)
class Receiver:
    """An HTTP server that is told what happens; it says no to the streams named in ``vetoed``."""

    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    vetoed: set[str] = field(default_factory=set)
    url: str = ""

    async def take(self, request: Request) -> Response:
        """An event, or a question, which must be signed."""
        body = await request.body()
        signed = dict(
            part.split("=", 1) for part in request.headers["X-XByte-Signature"].split(",")
        )
        text = signed["t"].encode() + b"." + body
        assert signed["v1"] == hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        message = json.loads(body)
        if request.url.path == "/events":
            self.events.append(message)
            return Response(status_code=204)
        self.asked.append(message)
        return Response(status_code=403 if message["slug"] in self.vetoed else 204)

    def of(self, slug: str) -> list[str]:
        """The kinds of events there were of a stream."""
        return [event["kind"] for event in self.events if event["slug"] == slug]


@asynccontextmanager
async def a_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    routes = [Route(path, receiver.take, methods=["POST"]) for path in ("/events", "/leave")]
    async with serving(Starlette(routes=routes)) as (host, port):
        receiver.url = f"http://{host}:{port}"
        yield receiver


@dataclass(slots=True)
class Clips:
    """Media to publish, each made when it is first asked for."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def get(self, recipe: Recipe = CLIP) -> Path:
        name = repr(recipe)
        if name not in self.made:
            self.made[name] = recipe.make(self.folder / f"{len(self.made)}{recipe.suffix}")
        return self.made[name]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def air(
    receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Broadcaster]:
    """One server for the streams of all these tests."""
    async with a_broadcaster(
        tmp_path_factory.mktemp("air"),
        republish_window="2",
        pull_private="allow",
        publish_failures="3",
        webhook_urls=f"{receiver.url}/events",
        webhook_secret=SECRET,
        on_publish_url=f"{receiver.url}/leave",
    ) as running:
        yield running


# Publishers


@pytest.mark.parametrize("name", PUBLISHERS)
async def test_what_is_pushed_plays_within_two_segments(
    air: Broadcaster, clips: Clips, name: str
) -> None:
    slug = f"push-{name}"
    key = await air.stream(slug)
    viewer = air.viewer(slug)
    async with publishing(air.rtmp(key), clips.get(), PUBLISHERS[name]) as publication:
        await viewer.until_last(1)
        assert viewer.segments[0].msn == 0
        played = await stock(f"{air.server.url}/hls/{slug}/index.m3u8", pictures=60)
        assert (played.picture.corrupt, played.picture.jumps) == (0, [])
        await publication.stop()
    status = await air.until(lambda status: status["state"] == "waiting", slug)
    assert status["feed"]["codecs"].startswith("avc1.")
    assert (status["feed"]["width"], status["feed"]["height"]) == (160, 120)
    assert status["feed"]["keyframe_interval_s"] == 1
    assert status["feed"]["packets_dropped"] == 0
    await _is_whole(viewer)
    assert key not in air.log


KINDS: dict[str, tuple[Recipe, Command, set[str]]] = {
    "hevc": (replace(CLIP, video=replace(HEVC, group=25)), pyav, {"hvc1", "mp4a"}),
    "sound-only": (replace(CLIP, video=None), ffmpeg, {"mp4a"}),
    "pictures-only": (replace(CLIP, audio=None), ffmpeg, {"avc1"}),
    "mp3": (replace(CLIP, audio=Audio("libmp3lame", 44100)), ffmpeg, {"avc1", "mp4a"}),
    "uneven": (
        replace(CLIP, video=h264(group=25, times=[*range(0, 8000, 20), *range(8000, 16000, 70)])),
        ffmpeg,
        {"avc1", "mp4a"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_media_of_every_kind_plays(air: Broadcaster, clips: Clips, kind: str) -> None:
    recipe, command, codecs = KINDS[kind]
    key = await air.stream(kind)
    viewer = air.viewer(kind)
    async with publishing(air.rtmp(key), clips.get(replace(recipe, seconds=8)), command):
        await viewer.until_last(2)
    status = await air.until(lambda status: status["state"] == "waiting", kind)
    assert {codec.split(".")[0] for codec in status["feed"]["codecs"].split(",")} == codecs
    await _is_whole(viewer)


async def test_sound_that_comes_late_joins(air: Broadcaster, clips: Clips) -> None:
    key = await air.stream("late-sound")
    viewer = air.viewer("late-sound")

    def late(file: Path, url: str) -> list[str]:
        *options, to = ffmpeg(file, url)
        [at] = [number for number, option in enumerate(options) if option == "-c"]
        delayed = ["-re", "-itsoffset", "3", "-i", str(file), "-map", "0:v", "-map", "1:a"]
        return [*options[:at], *delayed, *options[at:], to]

    async with publishing(air.rtmp(key), clips.get(), late):
        await viewer.until(lambda _: any(segment.discontinuity for segment in viewer.segments))
        await viewer.until_last(viewer.segments[-1].msn + 1)
    before, after = await viewer.played()
    before.check()
    after.check()
    assert not before.played.sound.times
    assert after.played.sound.times
    assert after.first.at_us - before.last.end_us < 50_000


async def _is_whole(viewer: Viewer) -> None:
    """Everything is listed from the beginning on, without a break, and plays."""
    await viewer.reload()
    await viewer.take_free()
    assert [segment.msn for segment in viewer.segments] == list(range(len(viewer.segments)))
    [span] = await viewer.played()
    span.check()


# Who may publish


async def test_wrong_keys_are_no_news_after_a_few_and_keep_out_nobody_with_a_right_one(
    air: Broadcaster, clips: Clips
) -> None:
    key = await air.stream("guessed")
    wrong = "xb_" + "0" * 40
    async with a_wire(air.rtmp_port, address="127.0.0.2") as wire:
        for _ in range(3):
            async with publishing(air.rtmp(wrong, wire.port), clips.get()) as publication:
                code, said = await publication.ended()
                assert code != 0
                assert "this is no valid stream key" in said
        async with publishing(air.rtmp(wrong, wire.port), clips.get()) as publication:
            assert "too many wrong stream keys" in (await publication.ended())[1]
        assert (await air.status("guessed"))["state"] == "idle"
        async with publishing(air.rtmp(key, wire.port), clips.get()):
            await air.viewer("guessed").until_last(0)
    assert air.log.count("publisher 127.0.0.2: wrong stream key") == 3
    assert wrong not in air.log
    assert key not in air.log


async def test_a_slug_and_its_key_may_be_given_apart(air: Broadcaster, clips: Clips) -> None:
    key = await air.stream("apart")
    other = await air.stream("another")
    async with publishing(air.rtmp(f"apart?key={other}"), clips.get()) as publication:
        assert "this is no valid stream key" in (await publication.ended())[1]
    async with publishing(air.rtmp(f"apart?key={key}"), clips.get()):
        await air.viewer("apart").until_last(0)
    assert key not in air.log


async def test_another_key_cuts_who_came_with_the_old_one(air: Broadcaster, clips: Clips) -> None:
    old = await air.stream("rotated")
    viewer = air.viewer("rotated")
    async with publishing(air.rtmp(old), clips.get()) as publication:
        await viewer.until_last(0)
        new = await air.rotate("rotated")
        code, said = await publication.ended(10)
        assert code != 0
        assert "no longer yours" in said
    async with publishing(air.rtmp(old), clips.get()) as publication:
        assert "this is no valid stream key" in (await publication.ended())[1]
    async with publishing(air.rtmp(new), clips.get()):
        await viewer.until(lambda _: any(segment.discontinuity for segment in viewer.segments))


async def test_a_stream_that_is_removed_goes_off_the_air(air: Broadcaster, clips: Clips) -> None:
    key = await air.stream("removed")
    viewer = air.viewer("removed")
    async with publishing(air.rtmp(key), clips.get()) as publication:
        await viewer.until_last(1)
        await air.remove("removed")
        code, said = await publication.ended(10)
        assert code != 0
        assert "no longer yours" in said


async def test_on_publish_may_say_no(air: Broadcaster, receiver: Receiver, clips: Clips) -> None:
    key = await air.stream("vetoed")
    receiver.vetoed.add("vetoed")
    async with publishing(air.rtmp(key), clips.get()) as publication:
        code, said = await publication.ended()
        assert code != 0
        assert "not allowed" in said
    [asked] = [question for question in receiver.asked if question["slug"] == "vetoed"]
    assert asked["address"] == "127.0.0.1"
    assert receiver.of("vetoed") == []
    receiver.vetoed.clear()
    async with publishing(air.rtmp(key), clips.get()):
        await air.viewer("vetoed").until_last(0)


# Ends, recordings, what others are told


async def test_a_broadcast_that_ended_is_told_of_and_on_sale_as_it_was(
    air: Broadcaster, receiver: Receiver, clips: Clips
) -> None:
    key = await air.stream("kept", recording=True, window_us=6_000_000)
    viewer = air.viewer("kept")
    async with publishing(air.rtmp(key), clips.get()) as publication:
        await viewer.until_last(6)
        await publication.stop()
    await viewer.until(lambda playlist: playlist.ended)
    assert viewer.playlist is not None
    assert viewer.playlist.first > 0
    async with asyncio.timeout(10):
        while "recording.ready" not in receiver.of("kept"):
            await asyncio.sleep(0.05)  # it is told as it likes
    assert receiver.of("kept") == ["stream.started", "stream.ended", "recording.ready"]
    data = receiver.events[-1]["data"]
    lasted = sum(segment.duration_us for segment in viewer.segments) / 1e6
    assert data["duration_s"] == pytest.approx(lasted)
    title = air.viewer(data["recording"])
    answer = await air.http.get(f"{air.server.url}/hls/{data['recording']}/source/index.m3u8")
    listed = read_playlist(answer.text).segments
    assert [s.msn for s in listed] == [s.msn for s in viewer.segments]
    assert [s.at_us for s in listed] == [s.at_us for s in viewer.segments]
    for segment in listed:
        assert await title.fetch(segment) == viewer.data[segment.msn]
    played = await stock(f"{air.server.url}/hls/{data['recording']}/index.m3u8")
    assert (played.picture.corrupt, played.picture.jumps) == (0, [])
    async with publishing(air.rtmp(key), clips.get()):
        last = viewer.segments[-1].msn
        again = await air.viewer("kept").until(lambda playlist: playlist.first == last + 1)
        assert not again.ended


async def test_a_stream_is_pulled_from_a_url_again_and_again(
    air: Broadcaster, clips: Clips
) -> None:
    data = clips.get(Recipe(".ts", "mpegts", h264(group=25), seconds=3)).read_bytes()

    async def give(_: Request) -> Response:
        return Response(data, media_type="video/mp2t")

    async with serving(Starlette(routes=[Route("/clip.ts", give)])) as (host, port):
        await air.stream("pulled", source=f"http://{host}:{port}/clip.ts")
        viewer = air.viewer("pulled")
        await viewer.until(lambda _: sum(s.discontinuity for s in viewer.segments) == 1)
        await air.remove("pulled")
    span, _ = await viewer.played()
    span.check()
    assert span.duration_us == pytest.approx(3_000_000, abs=100_000)

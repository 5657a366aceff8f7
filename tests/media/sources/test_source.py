"""Pulled sources: what may be opened, and that each kind of them ends up as segments."""

import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.media import Audio, Recipe, h264
from xbyte_live.errors import MediaError, SourceRefused
from xbyte_live.media.live.interleave import HOLD_S, Interleave
from xbyte_live.media.live.messages import FeedEvent, FeedOptions, FeedSegment, FeedTrack
from xbyte_live.media.live.pull import Throttle, pull
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.sources import network, source
from xbyte_live.media.sources.http import HttpSource
from xbyte_live.media.sources.source import check_source, open_source
from xbyte_live.media.sources.url import SCHEMES, Source, is_public, parse_url

SECONDS = 4
SECRET = b"root:x:0:0"


@dataclass(slots=True)
class Collected:
    """Takes what a feed hands out; wants no more once it has ``enough`` segments."""

    enough: int = 1000
    events: list[FeedEvent] = field(default_factory=list)

    def put(self, event: FeedEvent) -> None:
        self.events.append(event)

    def wanted(self) -> bool:
        return len(self.segments) < self.enough

    @property
    def segments(self) -> list[FeedSegment]:
        return [event for event in self.events if isinstance(event, FeedSegment)]


def pulled(url: str, *, enough: int = 1000, timeout: float = 5.0) -> Collected:
    out = Collected(enough)
    pull_into(out, url, timeout)
    return out


def pull_into(out: Collected, url: str, timeout: float = 5.0) -> None:
    options = FeedOptions(segment_target_us=1_000_000)
    state = LiveState(options, out, lambda: time.time_ns() // 1000)
    pull(Source(url, allow_private=True, timeout_s=timeout), state)


def lasts(out: Collected) -> float:
    return sum(segment.duration_us for segment in out.segments) / 1e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same few seconds as a file of each kind, and as HLS."""
    folder = tmp_path_factory.mktemp("web")
    for suffix, container in ((".ts", "mpegts"), (".flv", "flv"), (".mkv", "matroska")):
        recipe = Recipe(suffix, container, h264(group=25), Audio(), SECONDS)
        recipe.make(folder / f"footage{suffix}")
    with (
        av.open(str(folder / "footage.ts")) as source,
        av.open(
            str(folder / "index.m3u8"),
            "w",
            format="hls",
            options={"hls_time": "1", "hls_list_size": "0"},
        ) as output,
    ):
        tracks = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream_index]
                output.mux(packet)
    (folder / "master.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=400000\nindex.m3u8\n")
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and what the test adds: redirects and texts by path."""

    extra: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path not in self.extra:
            super().do_GET()
            return
        status, headers, body = self.extra[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class Site:
    """A web server: add answers to ``extra``, read what was asked in ``asked``."""

    url: str
    extra: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[str]

    def text(self, path: str, body: str | bytes) -> str:
        data = body.encode() if isinstance(body, str) else body
        self.extra[path] = (200, {}, data)
        return self.url + path

    def redirect(self, path: str, to: str, status: int = 302) -> str:
        self.extra[path] = (status, {"Location": to}, b"")
        return self.url + path


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    extra: dict[str, tuple[int, dict[str, str], bytes]] = {}
    asked: list[str] = []
    handler = type("Here", (Handler,), {"extra": extra, "asked": asked})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{server.server_address[1]}", extra, asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# What may be opened


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.2.3",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "192.0.0.1",
        "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fe80::1%1",
        "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:53aa:64c:0:fbf8:8000:1", "100::1", "4000::1", "", "nonsense", "1.2.3",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "223.255.255.1", "2606:4700::1111",
        "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
    ],
)  # fmt: skip
def test_an_address_that_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST.", "2130706433", "0x7f000001", "0177.0.0.1", "127.1",
        "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a00:1]", "[64:ff9b::7f00:1]", "169.254.169.254", "10.0.0.1",
        "100.64.0.1", "239.0.0.1", "user:pw@127.0.0.1", "8.8.8.8@127.0.0.1", "3232235777",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_no_spelling_of_a_private_address_is_pulled_from(scheme: str, host: str) -> None:
    url = f"{scheme}://{host}:5000/live/x"
    with pytest.raises(SourceRefused, match=r"private|cannot be found"):
        check_source(url, sorted(SCHEMES), False)
    with pytest.raises(SourceRefused), open_source(Source(url, timeout_s=1)):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "/etc/passwd", "file:///etc/passwd", "concat:http://a/b", "pipe:0",
        "subfile,,start,0,end,9,,:/etc/passwd", "data:video/mp2t;base64,AAAA", "ftp://8.8.8.8/x",
        "crypto+http://8.8.8.8/x", "async:http://8.8.8.8/x", "gopher://8.8.8.8/", "unix:/run/x",
        "rtp://8.8.8.8:5000", "srt://8.8.8.8:5000", "http:8.8.8.8", "http:///x", "http://",
        "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://8.8.8.8:x/", "tcp://8.8.8.8",
        "udp://8.8.8.8", "http://8.8.8.8\\@127.0.0.1/", "http://a b/", "http://[::1", "http://[x]/",
        "http://8.8.8.8/a\\b", "http://8.8.8.8/ä", "http://exa\u3002mple/", "http://a@b@8.8.8.8/",
        "http://[fe80::1%25lo]/", "http://8.8.8.8%00.example/", "http://@8.8.8.8/",
        "http://-x/", "http://8.8.8.8 /",
    ],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(SourceRefused):
        check_source(url, sorted(SCHEMES), True)
    with pytest.raises(SourceRefused), open_source(Source(url, allow_private=True, timeout_s=1)):
        pass


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, "http://" + text, "rtmp://host/" + text):
        try:
            target = parse_url(url)
        except SourceRefused:
            continue
        assert parse_url(target.url()) == target
        assert target.url().isascii()


def test_only_the_operators_schemes_are_pulled() -> None:
    check_source("http://8.8.8.8/x.ts", ("http", "https"), False)
    with pytest.raises(SourceRefused, match="rtmp sources are not allowed, only http, https"):
        check_source("rtmp://8.8.8.8/live/x", ("https", "http", "file"), False)
    with pytest.raises(SourceRefused):
        check_source("file:///etc/passwd", ("file",), True)


def test_a_host_nobody_knows_is_refused() -> None:
    with pytest.raises(SourceRefused, match="cannot be found"):
        check_source("http://nobody.invalid/x.ts", ("http",), True)


def test_refusals_hold_no_password() -> None:
    for url in ("http://me:hunter2@127.0.0.1/?key=hush", "http://me:hunter2@a b/?key=hush"):
        with pytest.raises(SourceRefused) as refused:
            check_source(url, ("http",), False)
        assert "hunter2" not in str(refused.value) and "hush" not in str(refused.value)


def test_private_addresses_are_pulled_from_when_that_is_allowed(site: Site) -> None:
    check_source(site.url + "/footage.ts", ("http",), True)
    with open_source(Source(site.url + "/footage.ts", allow_private=True)) as opened:
        assert opened.container.format.name == "mpegts"
        assert opened.hurries


def public_first(monkeypatch: pytest.MonkeyPatch, site: Site) -> HttpSource:
    """A web whose first address is taken for public, as if it were: what is asked later is not."""

    real = network.addresses
    seen: list[str] = []

    def addresses(target: object, allow_private: bool) -> list[str]:
        seen.append("")
        return real(target, allow_private or len(seen) == 1)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "addresses", addresses)
    return HttpSource(allow_private=False, timeout=5)


def test_a_redirect_to_a_private_address_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    url = site.redirect("/there", site.url + "/footage.ts")
    with pytest.raises(SourceRefused, match="private"):
        public_first(monkeypatch, site).get(url)
    assert site.asked == ["/there"]


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "ftp://8.8.8.8/x", "rtmp://8.8.8.8/x", "http://[::1/"]
)
def test_a_redirect_to_something_else_is_not_followed(site: Site, where: str) -> None:
    url = site.redirect("/there", where)
    with pytest.raises(SourceRefused):
        HttpSource(allow_private=True, timeout=5).get(url)


def test_redirects_end(site: Site) -> None:
    url = site.redirect("/round", "/round")
    with pytest.raises(MediaError, match="again and again"):
        HttpSource(allow_private=True, timeout=5).get(url)


def test_what_https_names_is_https_too() -> None:
    with pytest.raises(SourceRefused, match="https to http"):
        HttpSource(allow_private=True, timeout=5).get(
            "http://8.8.8.8/1.ts", base="https://8.8.8.8/a"
        )


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "named",
    [
        "file:///etc/passwd", "/etc/../../etc/passwd", "concat:/etc/passwd", "pipe:0",
        "subfile,,start,0,end,9,,:/etc/passwd", "data:video/mp2t;base64,AAAA",
        "crypto+file:///etc/passwd", "crypto:file:///etc/passwd", "async:file:///etc/passwd",
        "ftp://127.0.0.1/x", "tcp://127.0.0.1:9", "udp://127.0.0.1:9", "rtmp://127.0.0.1/x/y",
    ],
)  # fmt: skip
def test_a_playlist_opens_nothing_but_the_web(site: Site, named: str) -> None:
    url = site.text("/evil.m3u8", PLAYLIST.format(named))
    with pytest.raises(MediaError):
        pulled(url)


def test_a_playlist_that_names_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    public_first(monkeypatch, site)
    url = site.text("/evil.m3u8", PLAYLIST.format(site.url + "/footage.ts"))
    with pytest.raises(SourceRefused, match="private"), open_source(Source(url)):
        pass
    assert site.asked == ["/evil.m3u8"]


@pytest.mark.parametrize("tag", ['#EXT-X-MAP:URI="{}"', '#EXT-X-KEY:METHOD=AES-128,URI="{}"'])
def test_neither_do_its_tags(site: Site, tag: str) -> None:
    text = PLAYLIST.format("footage.ts").replace(
        "#EXTINF", tag.format("file:///etc/passwd") + "\n#EXTINF"
    )
    with pytest.raises(MediaError):
        pulled(site.text("/evil.m3u8", text))


def test_a_multivariant_playlist_does_not_either(site: Site) -> None:
    text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile:///etc/passwd\n"
    with pytest.raises(MediaError):
        pulled(site.text("/evil.m3u8", text))


def test_neither_does_a_script_for_ffmpeg(site: Site) -> None:
    for number, text in enumerate(
        [
            "ffconcat version 1.0\nfile /etc/passwd\n",
            "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        ]
    ):
        with pytest.raises(MediaError):
            pulled(site.text(f"/script{number}", text))


# What becomes of them


@pytest.mark.parametrize(
    "path", ["/footage.ts", "/footage.flv", "/footage.mkv", "/index.m3u8", "/master.m3u8"]
)
def test_the_web_is_pulled_in_real_time(site: Site, path: str) -> None:
    began = time.monotonic()
    out = pulled(site.url + path)
    assert lasts(out) == pytest.approx(SECONDS, abs=0.25)
    assert len(out.segments) >= SECONDS - 1
    assert not any(segment.discontinuity for segment in out.segments)
    assert time.monotonic() - began > SECONDS - 2


def test_fragments_with_all_pictures_before_their_sound(site: Site, folder: Path) -> None:
    options = {"hls_time": "2", "hls_list_size": "0", "hls_segment_type": "fmp4"}
    with (
        av.open(str(folder / "footage.mkv")) as given,
        av.open(str(folder / "parts.m3u8"), "w", format="hls", options=options) as output,
    ):
        tracks = {s.index: output.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream_index]
                output.mux(packet)
    out = pulled(site.url + "/parts.m3u8")
    assert lasts(out) == pytest.approx(SECONDS, abs=0.25)
    assert out.segments[-1].dropped == 0
    (track,) = [event for event in out.events if isinstance(event, FeedTrack)]
    assert "mp4a" in track.codecs and "avc1" in track.codecs


def test_https_needs_a_server_that_speaks_it(site: Site) -> None:
    with pytest.raises(MediaError, match="cannot be reached"):
        pulled(site.url.replace("http:", "https:") + "/footage.ts")


def test_a_live_playlist_is_read_again_and_again(site: Site) -> None:
    over = threading.Event()

    def publish() -> None:
        for number in range(SECONDS):
            window = [n for n in (number - 1, number) if n >= 0]
            text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{window[0]}\n"
            text += "".join(f"#EXTINF:1,\nindex{n}.ts\n" for n in window)
            site.text("/live.m3u8", text + "#EXT-X-ENDLIST\n" * (number == SECONDS - 1))
            begun.set()
            over.wait(1)

    begun = threading.Event()
    with threaded(publish):
        begun.wait()
        try:
            out = pulled(site.url + "/live.m3u8")
        finally:
            over.set()
    assert lasts(out) == pytest.approx(SECONDS, abs=0.25)
    assert site.asked.count("/live.m3u8") > 2


def test_only_the_best_variant_is_fetched(site: Site, folder: Path) -> None:
    text = (folder / "index.m3u8").read_text()
    site.text("/small.m3u8", text.replace("index", "small"))
    for number in range(SECONDS):
        site.text(f"/small{number}.ts", (folder / f"index{number}.ts").read_bytes())
    url = site.text(
        "/two.m3u8",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\nsmall.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=900000\nindex.m3u8\n",
    )
    assert lasts(pulled(url)) == pytest.approx(SECONDS, abs=0.25)
    assert "/index3.ts" in site.asked and "/small3.ts" not in site.asked


def test_encrypted_segments_are_refused(site: Site, folder: Path) -> None:
    text = (folder / "index.m3u8").read_text()
    text = text.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="key"\n#EXTINF', 1)
    site.text("/key", bytes(16))
    with pytest.raises(MediaError, match="crypto"):
        pulled(site.text("/secret.m3u8", text))


async def events_of(options: FeedOptions) -> list[FeedEvent]:
    spawner = FeedSpawner()
    try:
        process = await spawner.start(options)
        try:
            return [event async for event in process.events()]
        finally:
            await process.kill()
    finally:
        await spawner.close()


async def test_a_source_is_pulled_by_a_child_process(site: Site) -> None:
    there = Source(site.url + "/footage.ts", allow_private=True)
    events = await events_of(FeedOptions(source=there, segment_target_us=1_000_000))
    segments = [event for event in events if isinstance(event, FeedSegment)]
    assert sum(segment.duration_us for segment in segments) == pytest.approx(4e6, abs=0.25e6)


async def test_a_child_process_says_why_a_source_is_not_pulled(site: Site) -> None:
    with pytest.raises(MediaError, match="private"):
        await events_of(FeedOptions(source=Source(site.url + "/footage.ts")))
    with pytest.raises(MediaError, match="status 404"):
        await events_of(FeedOptions(source=Source(site.url + "/none", allow_private=True)))


def test_redirects_on_the_way_are_followed(site: Site) -> None:
    first = site.redirect("/a", "/b?x=1", 307)
    site.redirect("/b?x=1", site.url + "/master.m3u8", 301)
    assert pulled(first, enough=1).segments


def test_a_password_in_the_url_is_sent_to_that_host_only(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://me:p%40ss@127.0.0.1:{server.getsockname()[1]}/x"
        said: list[bytes] = []

        def answer() -> None:
            guest, _ = server.accept()
            with guest:
                said.append(guest.recv(65536))
                guest.sendall(
                    b"HTTP/1.1 302 x\r\nLocation: %s/footage.ts\r\n\r\n" % site.url.encode()
                )

        with threaded(answer):
            HttpSource(allow_private=True, timeout=5).get(url).close()
    assert b"Authorization: Basic bWU6cEBzcw==\r\n" in said[0]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_answer_that_is_no_media(site: Site, status: int) -> None:
    site.extra["/gone"] = (status, {}, b"")
    with pytest.raises(MediaError, match=f"status {status}"):
        pulled(site.url + "/gone")


def test_text_is_no_media(site: Site) -> None:
    with pytest.raises(MediaError):
        pulled(site.text("/page", "<html>" + "hello " * 1000))


def test_a_segment_that_is_missing_is_left_out(site: Site, folder: Path) -> None:
    site.extra["/index1.ts"] = (404, {}, b"")
    out = pulled(site.url + "/index.m3u8")
    assert 1.5 < lasts(out) < SECONDS + 0.25


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        for scheme in ("http", "tcp", "rtmp", "rtsp"):
            with pytest.raises(MediaError, match="refused"):
                pulled(f"{scheme}://127.0.0.1:{port}/live/x")


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtmp", "rtsp", "udp"])
def test_silence_ends_with_the_timeout(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(MediaError):
            pulled(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/live/x", timeout=0.5)
        assert time.monotonic() - began < 20


@contextmanager
def threaded(run: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


def test_mpegts_over_tcp(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            guest, _ = server.accept()
            with guest:
                guest.sendall((folder / "footage.ts").read_bytes())

        with threaded(send):
            out = pulled(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    assert lasts(out) == pytest.approx(SECONDS, abs=0.25)


def multicast_on_loopback() -> bool:
    """Whether a group joined on the default interface hears what loopback sends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears:
        hears.bind(("239.255.12.34", 0))
        hears.settimeout(0.3)
        try:
            group = socket.inet_aton("239.255.12.34") + bytes(4)
            hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as says:
                local = socket.inet_aton("127.0.0.1")
                says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
                says.sendto(b"x", ("239.255.12.34", hears.getsockname()[1]))
            return hears.recv(1) == b"x"
        except OSError:
            return False


HEARD = ["127.0.0.1", "", *(["239.255.12.34"] if multicast_on_loopback() else [])]


@pytest.mark.parametrize("host", HEARD)
def test_mpegts_over_udp(folder: Path, host: str) -> None:
    data = (folder / "footage.ts").read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            while not over.is_set():  # again and again: nobody says when the port is open
                for at in range(0, len(data), 1316):
                    if over.wait(0.002):
                        break
                    try:
                        sender.sendto(data[at : at + 1316], (host or "127.0.0.1", port))
                    except ConnectionRefusedError:
                        continue

    with threaded(send):
        try:
            out = pulled(f"udp://{host}:{port}", enough=2)
        finally:
            over.set()
    assert len(out.segments) >= 2


def test_rtmp(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"rtmp://127.0.0.1:{probe.getsockname()[1]}/live/x"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-re"]
    command += ["-i", str(folder / "footage.flv")]
    command += ["-c", "copy", "-f", "flv", "-listen", "1", url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            out = ended_at_last(url)
        finally:
            server.kill()
    assert lasts(out) == pytest.approx(SECONDS, abs=1.1)


def ended_at_last(url: str) -> Collected:
    """Pull as soon as somebody listens; RTMP has no end but that the connection breaks."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        out = Collected()
        with pytest.raises(MediaError) as ended:
            pull_into(out, url)
        if "refused" not in str(ended.value):
            assert "broke off" in str(ended.value)
            return out
    raise AssertionError("nobody listens")


def rtp_packets(file: Path) -> list[bytes]:
    """The video of a file as FFmpeg sends it by RTP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}"
        found = []
        with av.open(str(file)) as source, av.open(url, "w", format="rtp") as output:
            track = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = track
                    output.mux(packet)
                    receiver.setblocking(False)
                    with suppress(BlockingIOError):
                        while True:
                            found.append(receiver.recv(65536))
        return found


SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=x
t=0 0
m=video 0 RTP/AVP 96
c=IN IP4 0.0.0.0
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:track1
"""


def rtsp_answers(server: socket.socket, packets: list[bytes], redirect: str = "") -> None:
    """Serve one player: what it asks for, and the packets once it says PLAY."""
    try:
        guest, _ = server.accept()
    except ssl.SSLError:
        return  # the player does not trust us
    with guest, guest.makefile("rb") as asked:
        while line := asked.readline().decode():
            verb, headers = line.split()[0], {}
            while (text := asked.readline().decode().strip()) != "":
                name, _, value = text.partition(":")
                headers[name.lower()] = value.strip()
            said, body = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", "Session: 1"], ""
            if verb == "DESCRIBE" and redirect:
                said[0] = "RTSP/1.0 302 Found"
                said.append(f"Location: {redirect}")
            elif verb == "DESCRIBE":
                body = SDP.replace("\n", "\r\n")
                said += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif verb == "SETUP":
                said.append(f"Transport: {headers['transport']}")
            guest.sendall(("\r\n".join(said) + "\r\n\r\n" + body).encode())
            if verb == "PLAY":
                for packet in packets:
                    guest.sendall(b"$\0" + len(packet).to_bytes(2) + packet)
                return


def test_rtsp(folder: Path) -> None:
    packets = rtp_packets(folder / "footage.ts")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/camera"
        out = Collected()
        with threaded(partial(rtsp_answers, server, packets)), suppress(MediaError):
            pull_into(out, url)
    assert lasts(out) == pytest.approx(SECONDS, abs=1.1)


def test_an_rtsp_server_that_sends_on_to_a_private_address_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = rtp_packets(folder / "footage.ts")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as inner,
    ):
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/camera"
        there = f"rtsp://127.0.0.1:{inner.getsockname()[1]}/camera"
        # as if the first one were public
        monkeypatch.setattr(source, "addresses", lambda target, allow_private: ["127.0.0.1"])
        with (
            threaded(partial(rtsp_answers, server, [], there)),
            threaded(partial(rtsp_answers, inner, packets)),
            pytest.raises(SourceRefused, match="leads to a private"),
            open_source(Source(url, timeout_s=5)),
        ):
            pass


@dataclass(slots=True)
class Certificate:
    """One that a server made for itself, and what the server speaks TLS with."""

    file: Path
    server: ssl.SSLContext


def a_certificate(folder: Path, name: str) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    file, private = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file, private)
    return Certificate(file, server)


@contextmanager
def shaking_hands(certificate: Certificate) -> Iterator[tuple[int, list[bytes]]]:
    """A port where TLS is spoken with whoever comes, and what came first of each that trusts it."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                guest, _ = server.accept()
                guest.settimeout(5)
                with guest:
                    if guest.recv(1, socket.MSG_PEEK) == b"q":
                        return
                    with suppress(OSError), certificate.server.wrap_socket(guest, True) as secure:
                        said.append(secure.recv(1))

        with threaded(serve):
            try:
                yield port, said
            finally:
                with socket.create_connection(("127.0.0.1", port)) as last:
                    last.sendall(b"q")


@pytest.mark.parametrize("scheme", ["https", "rtmps", "rtsps"])
@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("elsewhere", True)])
def test_who_proves_to_be_nobody_is_told_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, name: str, trusted: bool
) -> None:
    certificate = a_certificate(tmp_path, name)
    if trusted:  # but for another name
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    reason = "localhost" if trusted else "self-signed"
    with (
        shaking_hands(certificate) as (port, said),
        pytest.raises(MediaError, match=f"certificate .*{reason}"),
    ):
        pulled(f"{scheme}://localhost:{port}/live/secret")
    assert not any(said)


def test_rtsps_from_whom_a_trusted_certificate_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = a_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    packets = rtp_packets(folder / "footage.ts")
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        certificate.server.wrap_socket(plain, server_side=True) as server,
    ):
        url = f"rtsps://localhost:{server.getsockname()[1]}/camera"
        out = Collected()
        with threaded(partial(rtsp_answers, server, packets)), suppress(MediaError):
            pull_into(out, url)
    assert lasts(out) == pytest.approx(SECONDS, abs=1.1)


def test_rtmps_from_whom_a_trusted_certificate_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = a_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    with shaking_hands(certificate) as (port, said), pytest.raises(MediaError) as ended:
        pulled(f"rtmps://localhost:{port}/live/x")
    assert said[0] == b"\x03"  # RTMP's first byte: it is spoken to
    assert "certificate" not in str(ended.value)


@pytest.mark.parametrize("scheme", ["http", "rtmp", "rtsp", "tcp"])
def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A name may lead elsewhere the next time it is asked for."""
    look_up, asked = socket.getaddrinfo, []

    def rebinding(host: str, *args: object, **options: object) -> object:
        if host != "rebinding.example":
            return look_up(host, *args, **options)  # type: ignore[arg-type]
        asked.append(host)
        first = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return look_up(first, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    for module in (network, source):  # as if the first one were public, and the next were not
        monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket() as inner,
    ):
        port = server.getsockname()[1]
        inner.bind(("127.0.0.2", port))
        inner.listen()
        inner.setblocking(False)

        server.settimeout(20)
        met: list[str] = []

        def hang_up() -> None:
            guest, (address, _) = server.accept()
            met.append(address)
            guest.close()

        with (
            threaded(hang_up),
            pytest.raises(MediaError),
            open_source(Source(f"{scheme}://rebinding.example:{port}/live/x", timeout_s=5)),
        ):
            pass
        assert (len(asked), len(met)) == (1, 1)
        with pytest.raises(BlockingIOError):
            inner.accept()


def test_what_comes_early_waits() -> None:
    throttle = Throttle()
    assert throttle.wait(100.0, 5.0) == 0
    assert throttle.wait(100.5, 5.0) == 0  # within what the network may jitter
    assert throttle.wait(103.0, 5.0) == 2
    assert throttle.wait(103.0, 8.0) == 0
    assert throttle.wait(103.1, 20.0) == 0  # it was late: from here on
    assert throttle.wait(106.1, 20.0) == 2
    assert throttle.wait(5.0, 20.0) == 0  # another clock
    assert throttle.wait(9.0, 20.0) == 3


def in_order(given: Sequence[tuple[int, float]], tracks: int = 2) -> list[float]:
    order: Interleave[float] = Interleave(tracks)
    out = [at for track, at in given for at in order.take(track, at, 1, at)]
    return [*out, *order.rest()]


def test_tracks_are_interleaved() -> None:
    pictures = [(0, n / 4) for n in range(20)]
    sound = [(1, n / 5) for n in range(25)]
    assert in_order([*pictures, *sound]) == sorted(at for _, at in [*pictures, *sound])


def test_a_track_that_does_not_come_holds_the_other_back_for_so_long_only() -> None:
    order: Interleave[float] = Interleave(2)
    given = [at for n in range(30) for at in order.take(0, n, 1, n)]
    assert given == list(range(30 - int(HOLD_S) - 1))
    assert [*Interleave[int](1).take(0, 0, 1, 7)] == [7]


def test_another_clock_waits_for_the_old_one() -> None:
    assert in_order([(0, 100.0), (1, 100.0), (0, 101.0), (0, 5.0), (1, 5.0)]) == [
        *(100.0, 100.0, 101.0, 5.0, 5.0)
    ]


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-1e6, 1e6)), max_size=50))
def test_interleaving_loses_nothing(given: list[tuple[int, float]]) -> None:
    assert sorted(in_order(given)) == sorted(at for _, at in given)

"""What decodes hostile bytes is started without our keys in its environment (money rule 10)."""

import asyncio
from pathlib import Path

import pytest

from tests.support.broadcaster import a_broadcaster, children_of
from tests.support.media import Audio, Recipe, h264
from tests.support.publishers import publishing
from xbyte_live.runtime.processes import without_settings, worker_environment

KEY = "0x" + "5e" * 32
SECRETS = {
    "XBYTE_GAS_KEY": KEY,
    "XBYTE_RECEIVER_AUTHORIZER_KEY": KEY,
    "XBYTE_GAS_KEYSTORE_PASSWORD": KEY,
    "AWS_SECRET_ACCESS_KEY": KEY,
}
CLIP = Recipe(".flv", "flv", h264(group=25), Audio(rate=44100), seconds=4)


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def a_thumbnail(server: int) -> bytes:
    """The environment of the next process that draws a picture."""
    while True:
        for pid in children_of(server):
            try:
                if "xbyte_live.media.poster" in command_of(pid):
                    return environment_of(pid)
            except (FileNotFoundError, ProcessLookupError):  # it was quicker
                continue
        await asyncio.sleep(0.002)  # another process's children can only be looked for


async def test_what_packages_a_feed_and_what_draws_a_picture_know_no_key(tmp_path: Path) -> None:
    clip = CLIP.make(tmp_path / "clip.flv")
    async with a_broadcaster(tmp_path, SECRETS) as air:
        key = await air.stream()
        assert air.server.process is not None
        server = air.server.process.pid
        assert KEY in air.server.environment.values()
        async with publishing(air.rtmp(key), clip):
            await air.viewer().until_last(1)
            forkers = [pid for pid in children_of(server) if "live.fork_server" in command_of(pid)]
            (feed,) = air.feeds()
            for pid in (*forkers, feed):
                assert b"PATH=" in environment_of(pid)
                assert b"XBYTE_" not in environment_of(pid)
                assert KEY.encode() not in environment_of(pid)
            assert len(forkers) == 1

            async with asyncio.timeout(30):
                seen = asyncio.create_task(a_thumbnail(server))
                while True:  # a busy server answers before its picture is drawn
                    answer = await air.http.get(f"{air.server.url}/hls/live/poster.jpg")
                    if answer.status_code == 200:
                        break
                drawing = await seen
        assert answer.headers["content-type"] == "image/jpeg"
        assert b"PATH=" in drawing
        assert b"XBYTE_" not in drawing
        assert KEY.encode() not in drawing


@pytest.mark.parametrize("name", [*SECRETS, "XBYTE_WALLET_KEY", "PGPASSWORD", "DATABASE_URL"])
def test_a_worker_gets_what_it_needs_and_no_more(name: str) -> None:
    wanted = {"PATH": "/bin", "PYTHONPATH": "/lib", "LC_ALL": "C", "LD_LIBRARY_PATH": "/lib"}

    assert worker_environment(wanted | {name: KEY}) == wanted


def test_a_player_gets_all_but_what_is_ours() -> None:
    wanted = {"PATH": "/bin", "DISPLAY": ":0", "XDG_RUNTIME_DIR": "/run"}

    assert without_settings(wanted | {"XBYTE_WALLET_KEY": KEY, "xbyte_gas_key": KEY}) == wanted

"""Servers killed at random moments under load: no voucher lost, none charged twice, books clean."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.support.channel_scene import a_scene, load

KILLS = int(os.environ.get("XBYTE_TEST_KILLS", "8"))  # 50 take some minutes


@pytest.mark.timeout(1200)
async def test_servers_killed_at_random_moments_under_load(tmp_path: Path) -> None:
    chance = random.Random(int.from_bytes(os.urandom(4), "big"))
    async with a_scene(tmp_path) as scene:
        async with load(scene):
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.2, 2.0))  # any moment is as good
                victims = chance.choice(
                    [scene.servers[:1], scene.servers[1:], scene.servers]
                )  # the one that settles, the other one, or both
                await asyncio.gather(*(server.kill() for server in victims))
                await asyncio.gather(*(server.start() for server in victims))
        await scene.check()

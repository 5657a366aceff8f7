"""Servers killed at random moments under load: no voucher lost, none charged twice, books clean."""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account

from tests.support.chain import ETHER
from tests.support.channel_load import Watcher, offer_of
from tests.support.channel_parties import Payer
from tests.support.server import Server, a_server, free_port
from xbyte_live.devnet.chain import Devnet

KILLS = int(os.environ.get("XBYTE_TEST_KILLS", "8"))  # 50 take some minutes
WATCHERS = 6


@dataclass(slots=True)
class Scene:
    """A chain, servers on one database, and watchers who pay them."""

    devnet: Devnet
    servers: list[Server]
    pay_to: str
    watchers: list[Watcher] = field(default_factory=list)

    @property
    def due(self) -> int:
        """What the payee must have in the end, to the unit."""
        return sum(watcher.charged for watcher in self.watchers)

    async def ledger(self, *words: str) -> tuple[int, Any]:
        """Run ``xbyte-live ledger …``; its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live.cli", "ledger", *words, "--json"),
            env=self.servers[0].environment,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, json.loads(said)

    async def check(self) -> None:
        """Audit, claim and pay out all there is, audit again, and count the payee's money."""
        assert [w.refused for w in self.watchers if w.refused] == []
        assert all(watcher.delivered for watcher in self.watchers)
        code, found = await self.ledger("audit")
        assert code == 0, found
        async with asyncio.timeout(60):
            while (await self.devnet.chain.usdc_balance(self.pay_to)) != self.due:
                await self.ledger("settle")
        code, found = await self.ledger("audit")
        assert code == 0, found


@asynccontextmanager
async def a_scene(tmp_path: Path, servers: int = 2, **settings: str) -> AsyncIterator[Scene]:
    """The first server makes the database, the others come to it."""
    gas, payee = Account.create(), Account.create()
    async with Devnet(tmp_path / "chain") as devnet:
        await devnet.chain.fund(gas.address, wei=1000 * ETHER)
        key = "0x" + bytes(gas.key).hex()
        quick = {"claim_interval": "1", "settle_interval": "3", "watch_interval": "1"}
        async with a_server(
            tmp_path, devnet.rpc_url, payee.address, key, **(quick | settings)
        ) as first:
            more = [Server(first.data_dir, first.env, free_port()) for _ in range(servers - 1)]
            try:
                for server in more:
                    await server.start()
                scene = Scene(devnet, [first, *more], payee.address)
                await add_watchers(scene)
                yield scene
            finally:
                for server in more:
                    await server.stop()


async def add_watchers(scene: Scene) -> None:
    """Payers with money and without channels."""
    urls = [f"{server.url}/objects/bytes" for server in scene.servers]
    offer = await offer_of(urls[0])
    for _ in range(WATCHERS):
        account = Account.create()
        await scene.devnet.chain.fund(account.address, usdc=10**9)
        payer = Payer(
            account,
            scene.devnet.asset,
            scene.pay_to,
            offer["extra"]["receiverAuthorizer"].lower(),
            withdraw_delay=offer["extra"]["withdrawDelay"],
        )
        scene.watchers.append(Watcher(payer, urls, offer))


@asynccontextmanager
async def load(scene: Scene) -> AsyncIterator[None]:
    """All watch as fast as they can while the body runs; then finish what they began."""
    until = asyncio.Event()
    async with httpx.AsyncClient(timeout=60) as http:
        watching = [asyncio.create_task(w.watch(until, http)) for w in scene.watchers]
        try:
            yield
        finally:
            until.set()
            await asyncio.wait_for(asyncio.gather(*watching), 120)


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

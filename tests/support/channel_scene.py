"""Servers on one database and one chain, and watchers who pay them by channel."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from eth_account import Account

from tests.support.chain import ETHER
from tests.support.channel_load import Watcher, offer_of
from tests.support.channel_parties import Payer
from tests.support.server import Server, a_server, free_port
from xbyte_live.devnet.chain import Devnet

WATCHERS = 6
PATIENCE = 120.0
QUICK = {"claim_interval": "1", "settle_interval": "3", "watch_interval": "1"}


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

    @property
    def delivered(self) -> int:
        """Pieces that were bought by now."""
        return sum(watcher.delivered for watcher in self.watchers)

    @property
    def statuses(self) -> Counter[int]:
        """What answers to payments said by now."""
        return sum((watcher.statuses for watcher in self.watchers), Counter())

    async def each_buys(self, times: int = 1, watchers: Sequence[Watcher] = ()) -> None:
        """Wait until every watcher, or each of some, has bought so many more pieces."""
        chosen = watchers or self.watchers
        goals = {w.payer.channel_id: w.delivered + times for w in chosen}
        await _until(lambda: all(w.delivered >= goals[w.payer.channel_id] for w in chosen), chosen)

    async def each_deposits(self, watchers: Sequence[Watcher] = ()) -> None:
        """Wait until every watcher, or each of some, has put more into its channel."""
        chosen = watchers or self.watchers
        had = {w.payer.channel_id: w.balance for w in chosen}
        await _until(lambda: all(w.balance > had[w.payer.channel_id] for w in chosen), chosen)

    async def each_is_told(self, status: int, watchers: Sequence[Watcher] = ()) -> None:
        """Wait until every watcher, or each of some, has got one more answer with that status."""
        chosen = watchers or self.watchers
        had = {w.payer.channel_id: w.statuses[status] for w in chosen}
        await _until(
            lambda: all(w.statuses[status] > had[w.payer.channel_id] for w in chosen), chosen
        )

    async def pays_out(self) -> None:
        """Wait until the servers have by themselves brought more money to the payee."""
        before = await self.devnet.chain.usdc_balance(self.pay_to)
        async with asyncio.timeout(PATIENCE):
            while await self.devnet.chain.usdc_balance(self.pay_to) == before:
                await asyncio.sleep(0.2)  # there is no event in another process

    async def ledger(self, *words: str) -> tuple[int, Any]:
        """Run ``xbyte-live ledger …``; its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live", "ledger", *words, "--json"),
            env=self.servers[0].environment,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        return process.returncode or 0, json.loads(said)

    async def check(self) -> None:
        """Audit, claim and pay out all there is, audit again, and count the payee's money."""
        assert [w.refused for w in self.watchers if w.refused] == []
        assert all(watcher.delivered for watcher in self.watchers)
        code, found = await self.ledger("audit")
        assert code == 0, found
        async with asyncio.timeout(PATIENCE):
            while (await self.devnet.chain.usdc_balance(self.pay_to)) != self.due:
                await self.ledger("settle")
        code, found = await self.ledger("audit")
        assert code == 0, found


async def _until(holds: Callable[[], bool], watchers: Sequence[Watcher]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            refused = [w.refused for w in watchers if w.refused]
            assert refused == []
            await asyncio.sleep(0.05)  # they are tasks of their own, and tell nobody


@asynccontextmanager
async def a_scene(tmp_path: Path, servers: int = 2, **settings: str) -> AsyncIterator[Scene]:
    """The first server makes the database, the others come to it."""
    gas, payee = Account.create(), Account.create()
    async with Devnet(tmp_path / "chain") as devnet:
        await devnet.chain.fund(gas.address, wei=1000 * ETHER)
        key = "0x" + bytes(gas.key).hex()
        async with a_server(
            tmp_path, devnet.rpc_url, payee.address, key, **(QUICK | settings)
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
    async with httpx2.AsyncClient(timeout=60) as http:
        watching = [asyncio.create_task(w.watch(until, http)) for w in scene.watchers]
        try:
            yield
        finally:
            until.set()
            await asyncio.wait_for(asyncio.gather(*watching), 120)

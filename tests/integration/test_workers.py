"""``serve`` with two workers: real processes on one port and one ledger, killed and replaced."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_parties import Payer
from tests.support.channel_till import a_document
from tests.support.paying import v2_header
from tests.support.server import SIZE, Server, a_server, is_there
from xbyte_live.storage.db.engine import Database

PATIENCE = 30.0


@pytest.fixture
async def server(tmp_path: Path, devnet: SharedDevnet) -> AsyncIterator[Server]:
    gas = devnet.new_account(wei=10 * ETHER)
    pay_to = devnet.new_account().address
    async with a_server(
        tmp_path, devnet.rpc_url, pay_to, "0x" + bytes(gas.key).hex(), workers="2"
    ) as server:
        await two_answer(server)
        yield server


def leader_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def helpers_of(leader: int) -> set[int]:
    """The processes that help a leader, of all it started."""
    found = set()
    tasks = Path(f"/proc/{leader}/task").glob("*/children")  # each thread has its own
    for child in {pid for task in tasks for pid in task.read_text().split()}:
        try:
            command = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            continue
        if "spawn_main" in command:
            found.add(int(child))
    return found


def listeners(port: int) -> int:
    """How many sockets listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )


async def until(holds: Any, what: str) -> None:
    """Wait for something in other processes, of which no event tells us."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.05)
    assert holds(), what


async def two_answer(server: Server) -> None:
    await until(lambda: listeners(server.port) == 2, "two processes listen")


async def asked(server: Server, times: int) -> list[int]:
    """Ask over new connections, which the kernel spreads over all that listen."""

    async def ask() -> int:
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            return (await http.get(f"{server.url}/healthz")).status_code

    return await asyncio.gather(*(ask() for _ in range(times)))


async def worked(pids: set[int], work: Any) -> set[int]:
    """Which of these processes took CPU time while something was done."""

    def spent(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = {pid: spent(pid) for pid in pids}
    await work
    return {pid for pid in pids if spent(pid) > before[pid]}


async def the_offer(server: Server) -> dict[str, Any]:
    async with httpx2.AsyncClient() as http:
        answer = await http.get(f"{server.url}/objects/bytes")
    assert answer.status_code == 402
    accepts = json.loads(base64.b64decode(answer.headers["payment-required"]))["accepts"]
    assert accepts[0]["scheme"] == "batch-settlement"
    return dict(accepts[0])


async def test_one_voucher_at_both_at_once_is_one_charge(
    server: Server, devnet: SharedDevnet
) -> None:
    offer = await the_offer(server)
    price, extra = int(offer["amount"]), offer["extra"]
    payer = Payer(
        devnet.new_account(usdc=100 * price),
        devnet.asset,
        offer["payTo"],
        extra["receiverAuthorizer"].lower(),
        withdraw_delay=extra["withdrawDelay"],
    )
    first = payer.deposit(50 * price, price).wire()
    deposit = {"x402Version": 2, "accepted": offer, "payload": first}
    both = {leader_of(server), *helpers_of(leader_of(server))}

    async def present(document: dict[str, Any]) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:  # a connection of its own
            return await http.get(f"{server.url}/objects/bytes", headers=v2_header(document))

    async def present_all() -> None:
        opened = await present(deposit)
        while opened.status_code == 503:  # another process is at it
            opened = await present(deposit)
        assert opened.status_code == 200, opened.text
        for number in range(2, 12):
            voucher = a_document(offer, payer, payer.voucher(number * price))
            answers = await asyncio.gather(*(present(voucher) for _ in range(8)))
            assert {answer.status_code for answer in answers} == {200}
            assert {len(answer.content) for answer in answers} == {SIZE}

    busy = await worked(both, present_all())

    assert busy == both
    database = Database(server.settings.resolved_database_url)
    await database.start()
    try:
        rows = await database.read(
            lambda db: db.execute(text("SELECT cumulative FROM deliveries ORDER BY 1")).all()
        )
        charged = await database.read(
            lambda db: db.execute(text("SELECT charged, balance FROM channels")).all()
        )
    finally:
        await database.stop()
    assert [row[0] for row in rows] == [number * price for number in range(1, 12)]
    assert [tuple(row) for row in charged] == [(11 * price, 50 * price)]


async def test_a_helper_that_is_killed_is_replaced_and_all_end_on_a_signal(
    server: Server,
) -> None:
    leader = leader_of(server)
    (helper,) = helpers_of(leader)

    os.kill(helper, signal.SIGKILL)
    await until(lambda: helpers_of(leader) - {helper}, "another helper is there")
    await until(lambda: listeners(server.port) == 2, "and it listens")
    (other,) = helpers_of(leader)
    assert other != helper
    assert set(await asked(server, 40)) == {200}

    await server.stop()
    await until(lambda: not is_there(other), "the helper ended too")
    assert listeners(server.port) == 0


async def test_helpers_end_when_the_leader_is_killed(server: Server) -> None:
    (helper,) = helpers_of(leader_of(server))
    assert set(await asked(server, 20)) == {200}

    await server.kill()

    await until(lambda: not is_there(helper), "the helper ended")
    assert listeners(server.port) == 0


async def figure(server: Server, name: str) -> float:
    """The sum of a figure over its labels, as one of the processes tells it."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:  # a connection of its own
        text = (await http.get(f"{server.url}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines)


async def settled(server: Server, name: str, wanted: float) -> None:
    """Wait until whichever process is asked tells the same figure."""
    async with asyncio.timeout(PATIENCE):
        while {await figure(server, name) for _ in range(8)} != {wanted}:
            await asyncio.sleep(0.1)  # they tell each other now and then


async def test_each_process_tells_the_figures_of_all_also_of_one_that_was_killed(
    server: Server,
) -> None:
    name = 'xbyte_http_requests_total{route="/healthz"'
    before = await figure(server, name)
    leader = leader_of(server)
    (helper,) = helpers_of(leader)
    both = {leader, helper}
    busy: set[int] = set()
    while busy != both:  # one may answer so few that the clock of its work does not tick
        busy |= await worked(both, asked(server, 60))
        before += 60
    await settled(server, name, before)
    await settled(server, "xbyte_settles", 1)
    await settled(server, 'xbyte_gas_coins{network="eip155:84532"', 10)

    os.kill(helper, signal.SIGKILL)
    await until(lambda: helpers_of(leader) - {helper}, "another helper is there")
    await two_answer(server)

    await settled(server, name, before)
    await asked(server, 20)
    await settled(server, name, before + 20)
    await settled(server, "xbyte_settles", 1)

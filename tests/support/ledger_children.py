"""What ledger tests run in processes of their own: ``python -m`` this.

Every work says ``ready`` and waits for a line, so that all begin together.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from xbyte_live.payments.ledger.charge import Exposure, NewCharge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.storage.db.engine import Database

ROOT = Path(__file__).parents[2]
PAYER = "0x" + "ab" * 20
PAYEE = "0x" + "cd" * 20
NOW = 1_760_000_000.0


def a_charge(number: int, **changes: Any) -> NewCharge:
    """A payment that differs by its nonce."""
    fields: dict[str, Any] = {
        "scheme": "exact",
        "network": "eip155:84532",
        "asset": "0x036cbd53842c5426634e7929541ec2318f3dcf7e",
        "payer": PAYER,
        "nonce": f"0x{number:064x}",
        "pay_to": PAYEE,
        "amount": 100,
        "slug": "plasma",
        "resource": "/hls/plasma/source/0.ts",
        "size": 100_000,
        "valid_before": 2_000_000_000,
        "document": {"x402Version": 2, "payload": {"text": "ünï\x00code"}},
        "requirements": {"amount": "100"},
    }
    return NewCharge(**(fields | changes))


class Child:
    """One work in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line it says; empty once it is gone."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def rest(self) -> list[str]:
        """All it has still to say, after it ended well."""
        assert self._process.stdout is not None
        said = (await self._process.stdout.read()).decode().split()
        assert await self._process.wait() == 0
        return said

    async def kill(self) -> list[str]:
        """Kill it without warning; all whole lines it had said."""
        assert self._process.stdout is not None
        self._process.kill()
        said = (await self._process.stdout.read()).decode().splitlines(keepends=True)
        await self._process.wait()
        return [line.strip() for line in said if line.endswith("\n")]


async def spawn(work: Callable[..., Awaitable[None]], *args: str) -> Child:
    """Start one of the works below and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", work.__module__, work.__name__, *args),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = Child(process)
    assert await child.line() == "ready"
    return child


async def all_at_once(
    work: Callable[..., Awaitable[None]], count: int, *args: str
) -> Sequence[list[str]]:
    """Run a work in several processes that begin together; what each said."""
    children = await asyncio.gather(*(spawn(work, *args) for _ in range(count)))
    for child in children:
        child.go()
    return await asyncio.gather(*(child.rest() for child in children))


def say(line: object) -> None:
    """One line to the parent, at once."""
    print(line, flush=True)


async def reserve_all(ledger: ChargeLedger, count: str) -> None:
    """Reserve payments 1 to ``count`` at once; says those that were ours."""
    reserved = await asyncio.gather(
        *(
            ledger.reserve(a_charge(number), exposure=None, patience=60)
            for number in range(1, int(count) + 1)
        )
    )
    for reservation in reserved:
        assert reservation.charge is not None
        if reservation.created:
            say(int(reservation.charge.nonce, 16))


async def owe_all(ledger: ChargeLedger, count: str, cap: str, first: str) -> None:
    """Take payments of one payer optimistically, from ``first`` on; says what was delivered."""
    exposure = Exposure(int(cap), int(cap))
    start = int(first)
    reserved = await asyncio.gather(
        *(
            ledger.reserve(a_charge(number), exposure=exposure, patience=60)
            for number in range(start, start + int(count))
        )
    )
    for reservation in reserved:
        assert reservation.charge is not None
        if reservation.charge.delivered:
            say(reservation.charge.amount)


async def attempt_all(ledger: ChargeLedger, count: str) -> None:
    """Begin an attempt on the first ``count`` charges; says those that were ours."""
    taken = await asyncio.gather(
        *(ledger.begin_attempt(number, lease=60) for number in range(1, int(count) + 1))
    )
    for charge in taken:
        if charge is not None:
            say(charge.id)


async def tell_secret(ledger: ChargeLedger) -> None:
    """Says the secret."""
    say((await ledger.secret("receipts")).hex())


async def reserve_until_killed(ledger: ChargeLedger, first: str) -> None:
    """Reserve optimistic payments, eight at a time, and say each once it is made."""
    exposure = Exposure(10**9, 10**9)

    async def worker(offset: int) -> None:
        number = int(first) + offset
        while True:
            await ledger.reserve(a_charge(number), exposure=exposure, patience=60)
            say(number)
            number += 8

    await asyncio.gather(*(worker(offset) for offset in range(8)))


async def attempt_and_hang(ledger: ChargeLedger, charge_id: str) -> None:
    """Begin an attempt, say so, and never end it."""
    charge = await ledger.begin_attempt(int(charge_id), lease=60)
    assert charge is not None
    say("begun")
    await asyncio.Event().wait()


async def main(work: Callable[..., Awaitable[None]], url: str, *args: str) -> None:
    database = Database(url)
    await database.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    await work(ChargeLedger(database, clock=lambda: NOW), *args)
    await database.stop()


if __name__ == "__main__":
    works: dict[str, Callable[..., Awaitable[None]]] = {
        work.__name__: work
        for work in (
            reserve_all,
            owe_all,
            attempt_all,
            tell_secret,
            reserve_until_killed,
            attempt_and_hang,
        )
    }
    asyncio.run(main(works[sys.argv[1]], *sys.argv[2:]))

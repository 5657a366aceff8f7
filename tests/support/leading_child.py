"""A process that settles if it may: ``python -m`` this with a database URL and a lease's seconds.

It says ``leads`` and ``rests``, and while it leads ``works`` again and again.
"""

import asyncio
import sys

from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.leader import Leader


async def work() -> None:
    print("leads", flush=True)
    try:
        while True:
            await asyncio.sleep(0.05)
            print("works", flush=True)
    finally:
        print("rests", flush=True)


async def main(url: str, seconds: str) -> None:
    database = Database(url)
    await database.start()
    await Leader(LeaseLedger(database), seconds=float(seconds)).run(work)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

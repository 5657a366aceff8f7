"""Buy exactly the bytes an agent needs, within a budget: one range of an object.

PAYER_KEY=0x… python samples/agent.py http://127.0.0.1:8402/objects/dataset 0 65535
"""

import asyncio
import os
import sys

import httpx2
from eth_account import Account

from xbyte_live.client import Budget, Payer, PayingTransport
from xbyte_live.client.http.transport import RECEIPT
from xbyte_live.client.payer.budget import dollars

BUDGET = 50_000  # millionths of a dollar: five cents in all


async def buy(url: str, first: int, last: int) -> bytes:
    """Bytes ``first`` to ``last`` of ``url``; raises ``BudgetExceeded`` before paying too much."""
    budget = Budget(BUDGET)
    payer = Payer(Account.from_key(os.environ["PAYER_KEY"]), budget)
    async with httpx2.AsyncClient(transport=PayingTransport(payer), timeout=60) as http:
        answer = await http.get(url, headers={"Range": f"bytes={first}-{last}"})
    answer.raise_for_status()
    print(f"{len(answer.content)} bytes, {dollars(budget.signed)} spent")
    print(f"receipt: {answer.extensions.get(RECEIPT)}")
    return answer.content


if __name__ == "__main__":
    asyncio.run(buy(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

"""Buy one segment with the official x402 client for Python, unmodified.

pip install 'x402[evm,httpx]'
PAYER_KEY=0x… python samples/official_client.py http://127.0.0.1:8402/hls/aurora/source/0.ts out.ts
"""

import asyncio
import os
import sys
from pathlib import Path

from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import wrapHttpxWithPayment
from x402.http.utils import decode_payment_response_header
from x402.mechanisms.evm.exact import register_exact_evm_client


async def buy(url: str, out: Path) -> None:
    """Fetch ``url``, paying the 402, and print the receipt."""
    client = x402Client()
    register_exact_evm_client(client, Account.from_key(os.environ["PAYER_KEY"]))
    async with wrapHttpxWithPayment(client, timeout=60) as http:
        response = await http.get(url)
    response.raise_for_status()
    receipt = decode_payment_response_header(response.headers["PAYMENT-RESPONSE"])
    out.write_bytes(response.content)
    print(f"{len(response.content)} bytes for {receipt.amount} units in {receipt.transaction}")


if __name__ == "__main__":
    asyncio.run(buy(sys.argv[1], Path(sys.argv[2])))

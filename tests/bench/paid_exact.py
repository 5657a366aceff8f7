"""Paid 200 kB segments a second: our gate (``optimistic``) beside the official middleware.

    python -m tests.bench.paid_exact [--seconds 8] [--size 200000]

Both run in one uvicorn worker, take the same signed ``exact`` payments from the same load tool
and ask the same facilitator double, which says yes at once. Ours checks every signature itself,
keeps every charge on disk before a byte leaves, and settles behind the answer; the official
middleware asks the facilitator twice within each request and keeps nothing. The middleware gets a
body of the same size from memory.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from eth_account import Account

from tests.support.paying import payment_headers

NETWORK = "eip155:84532"
PAYEE = "0x00000000000000000000000000000000000000Aa"
PRICE = 1000
CONNECTIONS = 32


def run_app(make: Any, args: tuple[Any, ...], port: int) -> None:
    """Serve what ``make(*args)`` gives, in this process, until it is ended."""
    uvicorn.run(make(*args), port=port, log_level="error", access_log=False, lifespan="on")


def facilitator_double() -> Any:
    """Says yes to everything, at once."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def supported(_: Any) -> JSONResponse:
        kind = {"x402Version": 2, "scheme": "exact", "network": NETWORK}
        return JSONResponse({"kinds": [kind], "extensions": [], "signers": {}})

    async def verify(_: Any) -> JSONResponse:
        return JSONResponse({"isValid": True, "payer": PAYEE})

    async def settle(_: Any) -> JSONResponse:
        return JSONResponse(
            {"success": True, "transaction": "0x" + os.urandom(32).hex(), "network": NETWORK}
        )

    return Starlette(
        routes=[
            Route("/supported", supported),
            Route("/verify", verify, methods=["POST"]),
            Route("/settle", settle, methods=["POST"]),
        ]
    )


def official(facilitator: str, size: int) -> Any:
    """The SDK's FastAPI middleware before one route."""
    from fastapi import FastAPI, Response
    from x402 import x402ResourceServer
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient, PaymentOption
    from x402.http.middleware.fastapi import payment_middleware
    from x402.http.types import RouteConfig
    from x402.mechanisms.evm.exact.server import ExactEvmScheme
    from x402.schemas import AssetAmount

    server = x402ResourceServer(HTTPFacilitatorClient(FacilitatorConfig(url=facilitator)))
    server.register(NETWORK, ExactEvmScheme())
    amount = str(-(-size * PRICE // 2**20))
    price = AssetAmount(
        amount=amount,
        asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        extra={"name": "USDC", "version": "2"},
    )
    option = PaymentOption(scheme="exact", pay_to=PAYEE, price=price, network=NETWORK)
    app, body = FastAPI(), os.urandom(size)
    app.middleware("http")(payment_middleware({"GET /0.ts": RouteConfig(accepts=[option])}, server))

    @app.get("/0.ts")
    async def segment() -> Response:
        return Response(body, media_type="video/mp2t")

    return app


def ours(facilitator: str, data_dir: Path) -> Any:
    """Our whole application, started and stopped by its server."""
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.routing import Mount

    from xbyte_live.server.service import open_service

    settings = our_settings(data_dir, facilitator)
    site = Starlette()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with open_service(settings) as app:
            site.router.routes.append(Mount("/", app))
            yield

    site.router.lifespan_context = lifespan
    return site


def our_settings(data_dir: Path, facilitator: str) -> Any:
    """Settings under which every payment of the run is taken at once."""
    from xbyte_live.config import load_settings

    return load_settings(
        environ={},
        overrides={
            "data_dir": data_dir,
            "pay_to": PAYEE,
            "networks": NETWORK,
            "rpc_urls": f"{NETWORK}=http://127.0.0.1:9",
            "facilitators": facilitator,
            "exact_policy": "optimistic",
            "exposure_cap": "1000000",
            "new_payer_cap": "1000000",
            "settle_queue": "1000000",
        },
    )


async def put_on_sale(data_dir: Path, size: int) -> None:
    """One object of ``size`` random bytes."""
    from xbyte_live.catalog.importer import Importer, SaleTerms
    from xbyte_live.money import Price
    from xbyte_live.server.catalog_access import open_catalog

    source = data_dir / "source.bin"
    source.write_bytes(os.urandom(size))
    async with open_catalog(our_settings(data_dir, "http://127.0.0.1:9")) as shelf:
        await Importer(shelf.catalog, shelf.store).object(source, "bench", SaleTerms(Price(PRICE)))


def sign_many(url: str, count: int, into: Path) -> None:
    """As many different payments for ``url`` as the run may need, one header a line."""
    import base64

    answer = httpx2.get(url)
    offer = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))["accepts"][0]
    account = Account.create()
    with into.open("w") as file:
        for _ in range(count):
            file.write(payment_headers(account, offer, valid_for=290)["PAYMENT-SIGNATURE"] + "\n")


LUA = """
local headers = {}
for line in io.lines(os.getenv("PAYMENTS")) do headers[#headers + 1] = line end
local at = 0
request = function()
  at = at + 1
  return wrk.format("GET", nil, {["PAYMENT-SIGNATURE"] = headers[at] or "none left"})
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.errors.status,
    summary.duration))
end
"""


def load(url: str, payments: Path, seconds: int, script: Path) -> float:
    """Accepted requests a second, by wrk on one thread."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url],
        env={**os.environ, "PAYMENTS": str(payments)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in done.splitlines() if line.startswith("RESULT"))
    requests, refused, microseconds = map(int, line.split()[1:])
    if refused:
        print(f"  {refused} of {requests} were refused", file=sys.stderr)
    return (requests - refused) / (microseconds / 1e6)


def wait_for(url: str) -> None:
    """Return once something answers there."""
    for _ in range(400):
        try:
            httpx2.get(url, timeout=2)
            return
        except httpx2.HTTPError:
            time.sleep(0.05)
    raise SystemExit(f"{url} did not come up")


def measure(name: str, make: Any, args: tuple[Any, ...], port: int, path: str, o: Any) -> float:
    """Serve, sign, load; accepted requests a second."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_app, args=(make, args, port), daemon=True
    )
    process.start()
    url = f"http://127.0.0.1:{port}{path}"
    try:
        wait_for(url)
        with tempfile.TemporaryDirectory() as folder:
            payments, script = Path(folder, "payments"), Path(folder, "load.lua")
            script.write_text(LUA)
            sign_many(url, o.payments, payments)
            rate = load(url, payments, o.seconds, script)
    finally:
        process.terminate()
        process.join()
    print(f"{name:40} {rate:8.0f} paid requests/s")
    return rate


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--payments", type=int, default=24_000)
    o = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (apt-get install wrk)")
    double = multiprocessing.get_context("spawn").Process(
        target=run_app, args=(facilitator_double, (), 8491), daemon=True
    )
    double.start()
    try:
        facilitator = "http://127.0.0.1:8491"
        wait_for(f"{facilitator}/supported")
        theirs = measure(
            "official FastAPI middleware", official, (facilitator, o.size), 8492, "/0.ts", o
        )
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(put_on_sale(Path(folder), o.size))
            mine = measure(
                "xByte Live, durable, optimistic",
                ours,
                (facilitator, Path(folder)),
                8493,
                "/objects/bench",
                o,
            )
    finally:
        double.terminate()
        double.join()
    print(f"ratio {mine / theirs:.1f}x")


if __name__ == "__main__":
    main()

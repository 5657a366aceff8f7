"""Paid 200 kB segments a second by voucher: our gate beside the official middleware.

    python -m tests.bench.paid_channels [--seconds 8] [--size 200000] [--channels 512]

All take the same vouchers, signed beforehand, from the same load tool (wrk). Ours keeps every
charge on disk (SQLite, fsync) before a byte leaves; the official middleware keeps everything in
memory and gets a body of the same size from memory. Beside them: our own free path, two of our
workers on one SQLite file, what the gate adds to an answer at half the rate, and the time one
voucher takes to check. All in one run, so that the ratios hold whatever the machine does.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from xbyte_live.evm.channels import ChannelConfig, channel_id_of, voucher_digest
from xbyte_live.evm.eip712 import SigningKey

NETWORK, CHAIN_ID = "eip155:84532", 84532
TOKEN = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAYEE = "0x00000000000000000000000000000000000000Aa"
AUTHORIZER_KEY = "0x" + "11" * 32
PRICE = 1000
CONNECTIONS = 32
CALM = 3  # connections, for about half the rate
BALANCE = 10**12
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Run:
    """What one load came to: accepted answers a second, latencies in ms, CPU seconds used.

    ``busy`` are the server's, ``tool`` the load tool's.
    """

    rate: float
    p50: float
    p99: float
    busy: float
    tool: float


def authorizer() -> str:
    """The address of ``AUTHORIZER_KEY``."""
    from eth_account import Account

    return str(Account.from_key(AUTHORIZER_KEY).address)


def configs(count: int) -> tuple[SigningKey, list[ChannelConfig]]:
    """One payer's key and so many of its channels."""
    from eth_account import Account

    account = Account.create()
    return SigningKey(bytes(account.key)), [
        ChannelConfig(
            payer=account.address.lower(),
            payer_authorizer=account.address.lower(),
            receiver=PAYEE.lower(),
            receiver_authorizer=authorizer().lower(),
            token=TOKEN.lower(),
            withdraw_delay=86400,
            salt=f"0x{index:064x}",
        )
        for index in range(count)
    ]


def sign_rounds(
    key: SigningKey, channels: list[ChannelConfig], offer: dict[str, Any], rounds: int
) -> Iterator[str]:
    """Payment headers: one voucher of each channel a round, each on top of the one before."""
    amount = int(offer["amount"])
    for number in range(1, rounds + 1):
        for config in channels:
            channel_id = channel_id_of(config, CHAIN_ID)
            digest = voucher_digest(channel_id, number * amount, CHAIN_ID)
            signature = key.sign(digest)
            document = {
                "x402Version": 2,
                "accepted": offer,
                "payload": {
                    "type": "voucher",
                    "channelConfig": config.wire(),
                    "voucher": {
                        "channelId": channel_id,
                        "maxClaimableAmount": str(number * amount),
                        "signature": "0x" + signature.hex(),
                    },
                },
            }
            yield base64.b64encode(json.dumps(document).encode()).decode()


# -- the two servers


def official(size: int, ids: list[ChannelConfig]) -> Any:
    """The SDK's FastAPI middleware before one route, its channels known and fresh."""
    from fastapi import FastAPI, Response
    from x402 import x402ResourceServer
    from x402.http import PaymentOption
    from x402.http.middleware.fastapi import payment_middleware
    from x402.http.types import RouteConfig
    from x402.mechanisms.evm.batch_settlement.server import (
        BatchSettlementEvmScheme,
        BatchSettlementEvmSchemeServerConfig,
        Channel,
        InMemoryChannelStorage,
    )
    from x402.mechanisms.evm.batch_settlement.types import ChannelConfig as TheirConfig
    from x402.schemas import AssetAmount, SupportedKind, SupportedResponse

    class Facilitator:
        """Lists the scheme, so that the middleware starts; nothing else is asked of it."""

        def get_supported(self) -> SupportedResponse:
            extra = {"receiverAuthorizer": authorizer()}
            kind = SupportedKind(
                x402_version=2, scheme="batch-settlement", network=NETWORK, extra=extra
            )
            return SupportedResponse(kinds=[kind], extensions=[], signers={})

        async def verify(self, *_: Any) -> Any:
            raise AssertionError("a voucher of a known channel is checked locally")

        async def settle(self, *_: Any) -> Any:
            raise AssertionError("a voucher settles nothing")

    storage = InMemoryChannelStorage()
    for config in ids:
        channel_id = channel_id_of(config, CHAIN_ID)
        known = Channel(
            channel_id=channel_id,
            channel_config=TheirConfig.from_dict(config.wire()),
            balance=str(BALANCE),
            onchain_synced_at=int(time.time() * 1000) + 3_600_000,
        )
        storage.update_channel(channel_id, lambda _, known=known: known)
    scheme = BatchSettlementEvmScheme(
        PAYEE, BatchSettlementEvmSchemeServerConfig(storage=storage, withdraw_delay=86400)
    )
    server = x402ResourceServer(Facilitator())
    server.register(NETWORK, scheme)
    price = AssetAmount(
        amount=str(-(-size * PRICE // 2**20)), asset=TOKEN, extra={"name": "USDC", "version": "2"}
    )
    option = PaymentOption(scheme="batch-settlement", pay_to=PAYEE, price=price, network=NETWORK)
    app, body = FastAPI(), os.urandom(size)
    app.middleware("http")(payment_middleware({"GET /0.ts": RouteConfig(accepts=[option])}, server))

    @app.get("/0.ts")
    async def segment() -> Response:
        return Response(body, media_type="video/mp2t")

    return app


def run_official(size: int, ids: list[ChannelConfig], port: int) -> None:
    """Serve it, in this process."""
    uvicorn.run(official(size, ids), port=port, log_level="error", access_log=False)


def our_settings(data_dir: Path, port: int) -> Any:
    """Settings under which nothing but vouchers of known channels is asked for."""
    from xbyte_live.config import load_settings

    return load_settings(
        environ={"XBYTE_RECEIVER_AUTHORIZER_KEY": AUTHORIZER_KEY},
        overrides={
            "data_dir": data_dir,
            "port": str(port),
            "rtmp_port": "0",
            "pay_to": PAYEE,
            "networks": NETWORK,
            "rpc_urls": f"{NETWORK}=http://127.0.0.1:9",
            "facilitators": "http://127.0.0.1:9",
            "log_level": "error",
        },
    )


async def put_on_sale(data_dir: Path, size: int, ids: list[ChannelConfig]) -> None:
    """Two objects of random bytes, one of them free, and channels that are known and fresh."""
    from xbyte_live.catalog.importer import Importer, SaleTerms
    from xbyte_live.money import Price
    from xbyte_live.payments.ledger.channel import OnChain
    from xbyte_live.payments.ledger.channels import ChannelLedger
    from xbyte_live.server.catalog_access import open_catalog

    source = data_dir / "source.bin"
    source.write_bytes(os.urandom(size))
    async with open_catalog(our_settings(data_dir, 8494)) as shelf:
        importer = Importer(shelf.catalog, shelf.store)
        await importer.object(source, "priced", SaleTerms(Price(PRICE)))
        await importer.object(source, "free", SaleTerms(Price(0)))
        ledger = ChannelLedger(shelf.database, retry_window=120)
        fresh = OnChain(BALANCE, 0, 0, 0, time.time() + 3600)
        for config in ids:
            channel_id = channel_id_of(config, CHAIN_ID)
            await ledger.sync(NETWORK, config, channel_id, fresh)


@contextmanager
def our_server(data_dir: Path, port: int, workers: int) -> Iterator[list[int]]:
    """Our server as an operator starts it; gives the ids of its processes."""
    environment = {**os.environ, "XBYTE_RECEIVER_AUTHORIZER_KEY": AUTHORIZER_KEY}
    flags = {
        "data-dir": data_dir,
        "port": port,
        "rtmp-port": 0,
        "pay-to": PAYEE,
        "networks": NETWORK,
        "rpc-urls": f"{NETWORK}=http://127.0.0.1:9",
        "facilitators": "http://127.0.0.1:9",
        "log-level": "error",
        "workers": workers,
    }
    command = [str(Path(sys.executable).with_name("xbyte-live")), "serve"]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    server = subprocess.Popen(command, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        yield [server.pid]
    finally:
        server.terminate()
        server.wait()


# -- load

LUA = """
local headers = {}
local file = os.getenv("PAYMENTS")
if file then for line in io.lines(file) do headers[#headers + 1] = line end end
local at = 0
request = function()
  at = at + 1
  if not file then return wrk.format("GET") end
  return wrk.format("GET", nil, {["PAYMENT-SIGNATURE"] = headers[at] or "none left"})
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.errors.status,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
"""


def load(
    url: str, payments: Path | None, seconds: int, pids: list[int], connections: int = CONNECTIONS
) -> Run:
    """Accepted requests a second, by wrk on one thread."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        before, tool = cpu_seconds(pids), tool_seconds()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, url]
        environment = {**os.environ, **({"PAYMENTS": str(payments)} if payments else {})}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
        busy, tool = cpu_seconds(pids) - before, tool_seconds() - tool
    line = next(line for line in done.splitlines() if line.startswith("RESULT"))
    requests, refused, microseconds, p50, p99 = map(float, line.split()[1:])
    if refused:
        print(f"  {refused:.0f} of {requests:.0f} were refused", file=sys.stderr)
    rate = (requests - refused) / (microseconds / 1e6)
    return Run(rate, p50 / 1000, p99 / 1000, busy, tool)


def tool_seconds() -> float:
    """What the load tool's processes have used so far; they are the only ones waited for here."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds(pids: list[int]) -> float:
    """What these processes and those they started have used so far."""
    ticks = 0
    started = [child for pid in pids for child in children_of(pid)]
    started += [child for pid in started for child in children_of(pid)]
    for pid in (*pids, *started):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The processes a process has started, from whichever of its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for(url: str) -> None:
    """Return once something answers there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx2.get(url, timeout=2)
            return
        except httpx2.HTTPError:
            time.sleep(0.05)
    raise SystemExit(f"{url} did not come up")


def offer_of(url: str) -> dict[str, Any]:
    """The channel offer in the 402 of a URL."""
    answer = httpx2.get(url)
    accepts = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))["accepts"]
    return dict(next(offer for offer in accepts if offer["scheme"] == "batch-settlement"))


def signed(folder: Path, key: SigningKey, ids: list[ChannelConfig], url: str, rounds: int) -> Path:
    """A file of so many rounds of payments for a URL, one header a line."""
    path = folder / f"payments-{time.monotonic_ns()}"
    with path.open("w") as file:
        for header in sign_rounds(key, ids, offer_of(url), rounds):
            file.write(header + "\n")
    return path


def measure_official(folder: Path, o: Any) -> Run:
    """The official middleware under load."""
    key, ids = configs(o.channels)
    process = SPAWN.Process(target=run_official, args=(o.size, ids, 8492), daemon=True)
    process.start()
    url = "http://127.0.0.1:8492/0.ts"
    try:
        wait_for(url)
        payments = signed(folder, key, ids, url, max(2, o.seconds * 1500 // o.channels))
        return load(url, payments, o.seconds, [process.pid or 0])
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True)
class Ours:
    """Our server under load: paid and free at full speed, and both with few connections."""

    paid: Run
    free: Run
    paid_calm: Run
    free_calm: Run


def measure_ours(folder: Path, o: Any, workers: int) -> Ours:
    """Every load has channels of its own, so that each begins with its first voucher."""
    key, ids = configs(2 * o.channels)
    data_dir = folder / f"data-{workers}"
    data_dir.mkdir()
    asyncio.run(put_on_sale(data_dir, o.size, ids))
    base = "http://127.0.0.1:8493/objects"
    with our_server(data_dir, 8493, workers) as pids:
        rounds = max(2, o.seconds * 9000 // o.channels)
        first = signed(folder, key, ids[: o.channels], f"{base}/priced", rounds)
        second = signed(folder, key, ids[o.channels :], f"{base}/priced", rounds)
        return Ours(
            paid=load(f"{base}/priced", first, o.seconds, pids),
            free=load(f"{base}/free", None, o.seconds, pids),
            paid_calm=load(f"{base}/priced", second, o.seconds, pids, CALM),
            free_calm=load(f"{base}/free", None, o.seconds, pids, CALM),
        )


def check_time() -> float:
    """Microseconds from a read payload to a verdict on its signature, the median of many."""
    from xbyte_live.evm.channels import read_channel_payment, signed_by_key

    key, (config,) = configs(1)
    offer = {"amount": "191"}
    document = json.loads(base64.b64decode(next(sign_rounds(key, [config], offer, 1))))
    took = []
    for _ in range(2000):
        began = time.perf_counter()
        payment = read_channel_payment(document["payload"])
        good = signed_by_key(payment.voucher, config.payer, CHAIN_ID)
        took.append(time.perf_counter() - began)
        assert good
    return statistics.median(took) * 1e6


def main() -> None:
    """Measure all and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--channels", type=int, default=512)
    o = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (apt-get install wrk)")
    print(f"a voucher from payload to verdict: {check_time():.0f} us (budget 60)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs = measure_official(folder, o)
        print(f"official middleware, in memory: {theirs.rate:.0f} paid requests/s")
        ours = measure_ours(folder, o, 1)
        cores = ours.paid.busy / o.seconds
        print(
            f"ours, durable, one worker: {ours.paid.rate:.0f} paid requests/s ({cores:.2f} cores), "
            f"{ours.paid.rate / theirs.rate:.1f} x theirs (budget 8 x), "
            f"{ours.paid.rate / ours.free.rate:.2f} x our free path of {ours.free.rate:.0f} "
            "(budget 0.35 x)"
        )
        calm, free = ours.paid_calm, ours.free_calm
        print(
            f"at {calm.rate:.0f} requests/s ({calm.rate / ours.paid.rate:.2f} of that) p99 is "
            f"{calm.p99:.1f} ms, {calm.p99 - free.p99:.1f} ms more than free (budget 5 ms)"
        )
        two = measure_ours(folder, o, 2)
        print(
            f"two workers: {two.paid.rate:.0f} paid requests/s "
            f"({two.paid.busy / o.seconds:.2f} cores, "
            f"the load tool {two.paid.tool / o.seconds:.2f}), "
            f"{two.paid.rate / ours.paid.rate:.2f} x one (budget 1.7 x on 2 idle cores; "
            "the load tool shares them)"
        )


if __name__ == "__main__":
    main()

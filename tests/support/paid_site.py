"""A small shop on real HTTP: files sold by the byte over x402, with faults on order."""

import asyncio
import base64
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from eth_account import Account
from eth_account.messages import encode_typed_data
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MIB = 2**20
NETWORK = "eip155:84532"
V1_NETWORK = "base-sepolia"
ASSET = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
KEY = "0x" + "42" * 32

_AUTHORIZATION = [
    {"name": name, "type": kind}
    for name, kind in (
        ("from", "address"),
        ("to", "address"),
        ("value", "uint256"),
        ("validAfter", "uint256"),
        ("validBefore", "uint256"),
        ("nonce", "bytes32"),
    )
]


@dataclass
class Seen:
    """One request as it came: what for, and the nonce of its payment if it had one."""

    path: str
    byte_range: str | None
    nonce: str | None
    version: int | None


@dataclass
class Shop:
    """What is sold, what was asked, what was charged, and what shall go wrong.

    ``faults`` is used up by requests with a payment, one each: ``503`` (not charged),
    ``charge+503``, ``charge+500``, ``refuse:CODE``, ``redirect:URL``, ``hold`` (until ``release``
    is set), ``ok``.
    """

    price: int = 1000  # millionths of a dollar per MiB
    files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    charges: dict[str, tuple[str, int]] = field(default_factory=dict)  # nonce: resource, amount
    faults: deque[str] = field(default_factory=deque)
    retry_after: str | None = "0"
    versions: tuple[int, ...] = (2, 1)
    change: Callable[[dict[str, Any]], Any] = lambda document: document  # the 402's document
    raw_402: tuple[dict[str, str], bytes] | None = None
    lie_about_range: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    refused: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def reset(self) -> None:
        """Be as new, at the same address."""
        self.release.set()
        self.__init__(url=self.url)  # type: ignore[misc]

    @property
    def paid(self) -> int:
        """The sum of all charges."""
        return sum(amount for _, amount in self.charges.values())

    @property
    def payments(self) -> list[Seen]:
        """The requests that carried a payment."""
        return [seen for seen in self.seen if seen.nonce]

    def amount(self, size: int) -> int:
        return max(1, -(-size * self.price // MIB)) if self.price else 0

    def add_title(
        self, slug: str, sizes: list[int], *, rendition: str = "source", ended: bool = True
    ) -> str:
        """A title with segments of these sizes; returns its multivariant playlist's URL."""
        folder = f"/hls/{slug}/{rendition}"
        for msn, size in enumerate(sizes):
            self.files[f"{folder}/{msn}.ts"] = content(size, msn)
        self.list_segments(slug, range(len(sizes)), rendition=rendition, ended=ended)
        self.texts[f"/hls/{slug}/index.m3u8"] = (
            "#EXTM3U\n#EXT-X-VERSION:6\n"
            '#EXT-X-SESSION-DATA:DATA-ID="live.xbyte.pricing",URI="pricing.json"\n'
            '#EXT-X-STREAM-INF:BANDWIDTH=1000000,CODECS="avc1.64001f,mp4a.40.2",'
            f"RESOLUTION=1280x720\n{rendition}/index.m3u8\n"
        )
        return f"{self.url}/hls/{slug}/index.m3u8"

    def list_segments(
        self, slug: str, msns: range, *, rendition: str = "source", ended: bool = True
    ) -> None:
        """Write the media playlist of segments that are there, with their prices."""
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:6",
            "#EXT-X-TARGETDURATION:1",
            f"#EXT-X-MEDIA-SEQUENCE:{msns.start}",
        ]
        for msn in msns:
            size = len(self.files[f"/hls/{slug}/{rendition}/{msn}.ts"])
            lines += [
                f"#EXT-X-XBYTE-SEGMENT:BYTES={size},AMOUNT={self.amount(size)}",
                "#EXTINF:1.000,",
                f"{msn}.ts",
            ]
        lines += ["#EXT-X-ENDLIST"] if ended else []
        self.texts[f"/hls/{slug}/{rendition}/index.m3u8"] = "\n".join(lines) + "\n"

    def whole(self, slug: str, rendition: str = "source") -> bytes:
        """All segments of a title, one after the other."""
        folder = f"/hls/{slug}/{rendition}/"
        names = [path for path in self.files if path.startswith(folder)]
        return b"".join(
            self.files[p] for p in sorted(names, key=lambda p: int(p[len(folder) : -3]))
        )

    def requirements(self, amount: int, version: int = 2) -> dict[str, Any]:
        """One way to pay, in its wire form."""
        shared = {
            "scheme": "exact",
            "payTo": PAYEE,
            "asset": ASSET,
            "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        }
        if version == 1:
            return {
                **shared,
                "network": V1_NETWORK,
                "maxAmountRequired": str(amount),
                "resource": self.url,
                "description": "bytes",
                "mimeType": "video/mp2t",
            }
        return {**shared, "network": NETWORK, "amount": str(amount)}

    async def free(self, request: Request) -> Response:
        self.seen.append(Seen(request.url.path, None, None, None))
        text = self.texts.get(request.url.path)
        if text is None:
            return Response("not found", 404)
        return Response(text, media_type="application/vnd.apple.mpegurl")

    async def sell(self, request: Request) -> Response:
        data = self.files.get(request.url.path)
        if request.url.path in self.texts:
            return await self.free(request)
        if data is None:
            return Response("not found", 404)
        start, stop = _range(request.headers.get("range"), len(data))
        part = data[start:stop]
        byte_range = request.headers.get("range")
        resource = f"{request.url.path}#{byte_range}" if byte_range else request.url.path
        amount = self.amount(len(part))
        payment, version = _payment(request)
        nonce = payment["payload"]["authorization"]["nonce"] if payment else None
        self.seen.append(Seen(request.url.path, byte_range, nonce, version))
        if amount == 0:
            return self._bytes(part, start, data, byte_range, None)
        if payment is None or nonce is None:
            return self._ask(amount, "payment_required", resource)
        refusal = await self._take(payment, nonce, resource, amount)
        if refusal is not None:
            return refusal
        return self._bytes(part, start, data, byte_range, payment)

    async def _take(
        self, payment: dict[str, Any], nonce: str, resource: str, amount: int
    ) -> Response | None:
        fault = self.faults.popleft() if self.faults else "ok"
        kind, _, argument = fault.partition(":")
        wait = {"retry-after": self.retry_after} if self.retry_after is not None else {}
        if kind == "503":
            return Response("pending", 503, wait)
        if kind == "refuse":
            self.refused.set()
            return self._ask(amount, argument, resource)
        if kind == "redirect":
            return Response(None, 307, {"location": argument})
        if kind == "hold":
            self.held.set()
            await run_in_threadpool(self.release.wait, 20)
        if nonce in self.charges:
            known = self.charges[nonce][0] == resource
            error = None if known else "payment_already_used"
        else:
            error = self._fault_of(payment, amount)
        if error is not None:
            return self._ask(amount, error, resource)
        self.charges[nonce] = (resource, self.charges.get(nonce, ("", amount))[1])
        if kind == "charge+503":
            return Response("pending", 503, wait)
        return Response("broken", 500) if kind == "charge+500" else None

    def _fault_of(self, payment: dict[str, Any], amount: int) -> str | None:
        """Why a payment does not pay ``amount``, by an implementation of its own."""
        authorization = payment["payload"]["authorization"]
        if payment["x402Version"] == 2 and payment["accepted"] != self.requirements(amount):
            return "accepted_mismatch"
        if int(authorization["value"]) != amount:
            return "invalid_exact_evm_payload_authorization_value_mismatch"
        if authorization["to"] != PAYEE:
            return "invalid_exact_evm_payload_recipient_mismatch"
        signer = signer_of(payment["payload"])
        return None if signer == authorization["from"] else "invalid_exact_evm_payload_signature"

    def _ask(self, amount: int, error: str, resource: str) -> Response:
        if self.raw_402 is not None:
            headers, body = self.raw_402
            return Response(body, 402, headers)
        headers = {}
        if 2 in self.versions:
            document = {
                "x402Version": 2,
                "error": error,
                "resource": {"url": self.url + resource, "description": "bytes"},
                "accepts": [self.requirements(amount)],
            }
            headers["PAYMENT-REQUIRED"] = encoded(self.change(document))
        body = b""
        if 1 in self.versions:
            accepts = [self.requirements(amount, 1)]
            document = {"x402Version": 1, "error": error, "accepts": accepts}
            body = json.dumps(self.change(document) if not headers else document).encode()
        return Response(body, 402, headers, "application/json")

    def _bytes(
        self,
        part: bytes,
        start: int,
        data: bytes,
        byte_range: str | None,
        payment: dict[str, Any] | None,
    ) -> Response:
        headers = {"content-type": "video/mp2t", "etag": f'"{len(data)}-{data[:1].hex()}"'}
        if byte_range:
            headers["content-range"] = _content_range(start + self.lie_about_range, part, data)
        if payment is not None:
            name = "PAYMENT-RESPONSE" if payment["x402Version"] == 2 else "X-PAYMENT-RESPONSE"
            headers[name] = encoded(
                {
                    "success": True,
                    "transaction": "0x" + "ab" * 32,
                    "network": NETWORK,
                    "payer": payment["payload"]["authorization"]["from"],
                }
            )
        return Response(part, 206 if byte_range else 200, headers)


def signer_of(payload: dict[str, Any]) -> str:
    """Who signed an ``exact`` payload for the test asset, as eth_account sees it."""
    authorization = payload["authorization"]
    message = encode_typed_data(
        {"name": "USDC", "version": "2", "chainId": 84532, "verifyingContract": ASSET},
        {"TransferWithAuthorization": _AUTHORIZATION},
        {
            **authorization,
            "value": int(authorization["value"]),
            "validAfter": int(authorization["validAfter"]),
            "validBefore": int(authorization["validBefore"]),
            "nonce": bytes.fromhex(authorization["nonce"][2:]),
        },
    )
    return str(Account.recover_message(message, signature=payload["signature"]))


@contextmanager
def open_shop() -> Iterator[Shop]:
    """A shop on an ephemeral port of this machine, in a thread of its own."""
    shop = Shop()
    app = Starlette(
        routes=[
            Route("/{path:path}.m3u8", shop.free),
            Route("/{path:path}", shop.sell),
        ]
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        shop.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield shop
        finally:
            shop.release.set()
            server.should_exit = True
            thread.join()


class Cutter:
    """A wire between payer and shop that is cut on order.

    Each entry of ``cuts`` is used up by one answer to a request with a payment: after so many of
    its bytes, headers included, the connection is gone.
    """

    def __init__(self, shop: Shop) -> None:
        self.cuts: deque[int] = deque()
        self._port = int(shop.url.rpartition(":")[2])
        self.url = ""
        self.wires: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.wires.add(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        left: int | None = None

        async def there() -> None:
            nonlocal left
            while data := await reader.read(65536):
                if b"payment-signature" in data.lower() or b"x-payment" in data.lower():
                    left = self.cuts.popleft() if self.cuts else None
                far_writer.write(data)
                await far_writer.drain()

        async def back() -> None:
            nonlocal left
            while data := await far_reader.read(65536):
                writer.write(data if left is None else data[:left])
                await writer.drain()
                if left is not None and len(data) >= left:
                    return
                left = None if left is None else left - len(data)

        ways = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()
            for end in (writer, far_writer):
                with suppress(OSError):
                    await end.wait_closed()


@asynccontextmanager
async def cutting(shop: Shop) -> AsyncIterator[Cutter]:
    """A wire to ``shop`` with an address of its own."""
    cutter = Cutter(shop)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield cutter
    for wire in cutter.wires:
        assert wire is not None
        wire.cancel()
    await asyncio.gather(*(w for w in cutter.wires if w), return_exceptions=True)


def content(size: int, seed: int = 0) -> bytes:
    """So many bytes that are not the same at any two places near each other."""
    return (bytes(range(251)) * (size // 251 + 2))[seed * 7 % 251 :][:size]


def encoded(document: Any) -> str:
    """A document as an x402 header."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def _payment(request: Request) -> tuple[dict[str, Any] | None, int | None]:
    for version, name in ((2, "payment-signature"), (1, "x-payment")):
        if value := request.headers.get(name):
            document: dict[str, Any] = json.loads(base64.b64decode(value))
            assert document["x402Version"] == version
            return document, version
    return None, None


def _content_range(start: int, part: bytes, data: bytes) -> str:
    return f"bytes {start}-{start + len(part) - 1}/{len(data)}"


def _range(header: str | None, size: int) -> tuple[int, int]:
    if header is None:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size)

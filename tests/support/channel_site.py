"""A shop that is the x402 SDK's own: its FastAPI middleware, its scheme, its facilitator."""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from x402 import x402FacilitatorSync, x402ResourceServer
from x402.http.middleware.fastapi import payment_middleware
from x402.http.types import PaymentOption, RouteConfig
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.server import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.server.scheme import BatchSettlementEvmSchemeServerConfig
from x402.mechanisms.evm.batch_settlement.server.storage import Channel
from x402.schemas import AssetAmount

from tests.support.chain import ETHER, SharedDevnet, serving
from xbyte_live.devnet.accounts import USDC_ADDRESS
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender

MIB = 2**20
PRICE = 1000  # millionths of a dollar per MiB
Next = Callable[[Request], Awaitable[Response]]


class InProcess:
    """The SDK's facilitator as its server wants it, without HTTP between them."""

    def __init__(self, facilitator: x402FacilitatorSync) -> None:
        self._facilitator = facilitator

    async def verify(self, payload: Any, requirements: Any) -> Any:
        return await run_in_threadpool(self._facilitator.verify, payload, requirements)

    async def settle(self, payload: Any, requirements: Any) -> Any:
        return await run_in_threadpool(self._facilitator.settle, payload, requirements)

    def get_supported(self) -> Any:
        return self._facilitator.get_supported()


@dataclass
class ChannelShop:
    """What is sold and how its channels stand by the SDK; ``seen`` counts requests by path.

    ``meddle`` may answer or spoil a request before or after the SDK sees it.
    """

    devnet: SharedDevnet
    scheme: Any
    payee: LocalAccount
    facilitator: x402FacilitatorSync
    files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, bool]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    meddle: Callable[[Request, Next], Awaitable[Response]] | None = None
    busy: int = 0
    most_busy: int = 0
    url: str = ""

    def add_title(self, slug: str, sizes: list[int]) -> str:
        folder = f"/hls/{slug}/source"
        lines = ["#EXTM3U", "#EXT-X-VERSION:6", "#EXT-X-TARGETDURATION:2"]
        for msn, size in enumerate(sizes):
            self.files[f"{folder}/{msn}.ts"] = hashlib.shake_128(bytes([msn])).digest(size)
            tag = f"#EXT-X-XBYTE-SEGMENT:BYTES={size},AMOUNT={amount(size)}"
            lines += [tag, "#EXTINF:2.0,", f"{msn}.ts"]
        self.texts[f"{folder}/index.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST", ""])
        return f"{self.url}{folder}/index.m3u8"

    def whole(self, slug: str) -> bytes:
        folder = f"/hls/{slug}/source/"
        return b"".join(data for path, data in self.files.items() if path.startswith(folder))

    @property
    def channels(self) -> list[Channel]:
        return list(self.scheme.get_storage().list())

    @property
    def charged(self) -> int:
        return sum(int(channel.charged_cumulative_amount) for channel in self.channels)

    @property
    def paid_requests(self) -> int:
        return sum(paid for _, paid in self.seen)


def amount(size: int) -> int:
    return max(1, -(-size * PRICE // MIB))


@contextmanager
def open_channel_shop(
    devnet: SharedDevnet, least_deposit: int | None = None, **config: Any
) -> Iterator[ChannelShop]:
    """Serve a shop on loopback HTTP that takes ``batch-settlement`` alone.

    ``least_deposit`` is what it announces; the SDK's own depends on the amount, so that terms
    are others for each segment.
    """
    payee: LocalAccount = Account.create()
    gas = devnet.new_account(wei=100 * ETHER)
    facilitator = x402FacilitatorSync()
    node = RpcNode(devnet.rpc_url, timeout=20)
    sender = TransactionSender("0x" + bytes(gas.key).hex(), node, confirmation_timeout=10)
    facilitator.register(
        [devnet.network],
        BatchSettlementEvmFacilitator(sender, LocalAuthorizerSigner(Account.create())),
    )
    scheme: Any = BatchSettlementEvmScheme(
        payee.address, BatchSettlementEvmSchemeServerConfig(**config)
    )
    server = x402ResourceServer(InProcess(facilitator))
    server.register(devnet.network, scheme)
    shop = ChannelShop(devnet, scheme, payee, facilitator)
    app = FastAPI()

    def price(context: Any) -> AssetAmount:
        size = len(shop.files.get(context.path, b""))
        return AssetAmount(amount=str(amount(size)), asset=USDC_ADDRESS)

    option = PaymentOption(
        scheme="batch-settlement",
        pay_to=payee.address,
        price=price,
        network=devnet.network,
        extra=None if least_deposit is None else {"minDeposit": str(least_deposit)},
    )
    pay = payment_middleware({"GET /hls/*": RouteConfig(accepts=[option])}, server)

    @app.middleware("http")
    async def paid(request: Request, call_next: Next) -> Response:
        path = request.url.path
        if path in shop.texts:
            return Response(shop.texts[path], media_type="application/vnd.apple.mpegurl")
        if path not in shop.files:
            return Response(status_code=404)
        has_payment = "payment-signature" in request.headers
        shop.seen.append((path, has_payment))
        shop.busy += has_payment
        shop.most_busy = max(shop.most_busy, shop.busy)
        try:
            if shop.meddle is not None:
                response = await shop.meddle(request, lambda r: pay(r, call_next))
            else:
                response = await pay(request, call_next)
        finally:
            shop.busy -= has_payment
        shop.statuses.append(response.status_code)
        return response

    @app.get("/{path:path}")
    async def get(path: str) -> Response:
        return Response(shop.files["/" + path], media_type="video/mp2t")

    with serving(app) as url:
        shop.url = url
        yield shop

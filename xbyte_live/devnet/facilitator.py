"""Adapter: a remote x402 facilitator for demos and tests: the SDK's own, behind HTTP.

Speaks what the SDK's ``HTTPFacilitatorClient`` speaks: ``POST /verify``, ``POST /settle``,
``GET /supported`` (x402 v2 7). Run it with uvicorn on a loopback address.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from x402 import x402FacilitatorSync
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.facilitator import (
    BatchSettlementEvmFacilitator,
    BatchSettlementEvmFacilitatorConfig,
)
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SchemeNotFoundError,
)
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender

RPC_TIMEOUT = 20.0  # seconds for each answer

_FORMS: dict[Any, tuple[type[BaseModel], type[BaseModel]]] = {
    1: (PaymentPayloadV1, PaymentRequirementsV1),
    2: (PaymentPayload, PaymentRequirements),
}


def facilitator_app(
    rpc_url: str,
    gas_key: str,
    network: str,
    *,
    smart_wallet_factories: Sequence[str] = (),
    settle_wait: float = 20.0,
    authorizes: bool = False,
) -> Starlette:
    """An ASGI facilitator of ``exact`` (v1 and v2) and ``batch-settlement`` on ``network``.

    It pays gas itself. ``smart_wallet_factories`` may deploy payers' wallets (ERC-6492);
    ``settle_wait`` is in seconds, after which an unmined transaction is answered as pending.
    One that ``authorizes`` signs the claims and refunds of channels that name its key.
    """
    facilitator = x402FacilitatorSync()
    sender = TransactionSender(
        gas_key, RpcNode(rpc_url, timeout=RPC_TIMEOUT), confirmation_timeout=settle_wait
    )
    register_exact_evm_facilitator(
        facilitator,
        sender,
        networks=network,
        eip6492_allowed_factories=list(smart_wallet_factories),
    )
    facilitator.register(
        [network],
        BatchSettlementEvmFacilitator(
            sender,
            LocalAuthorizerSigner(gas_key) if authorizes else None,
            BatchSettlementEvmFacilitatorConfig(list(smart_wallet_factories)),
        ),
    )

    async def verify(request: Request) -> Response:
        return await _answer(request, facilitator.verify)

    async def settle(request: Request) -> Response:
        return await _answer(request, facilitator.settle)

    async def supported(_: Request) -> Response:
        return _json(facilitator.get_supported())

    return Starlette(
        routes=[
            Route("/verify", verify, methods=["POST"]),
            Route("/settle", settle, methods=["POST"]),
            Route("/supported", supported),
        ]
    )


async def _answer(request: Request, ask: Callable[[Any, Any], BaseModel]) -> Response:
    try:
        body = await request.json()
        payload_form, requirements_form = _FORMS[body["x402Version"]]
        payload = payload_form.model_validate(body["paymentPayload"])
        requirements = requirements_form.model_validate(body["paymentRequirements"])
        return _json(await run_in_threadpool(ask, payload, requirements))
    except (ValidationError, ValueError, KeyError, TypeError, SchemeNotFoundError) as error:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=400)


def _json(model: BaseModel) -> Response:
    return JSONResponse(model.model_dump(mode="json", by_alias=True, exclude_none=True))

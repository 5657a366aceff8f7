"""Adapter: remote x402 facilitators over HTTP, asked in order (x402 v2 7)."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from xbyte_live.errors import FacilitatorError, FacilitatorMisbehaved, FacilitatorUnavailable

MAX_ANSWER = 256 * 1024
TURNED_AWAY = frozenset({400, 401, 403, 404, 405, 413, 415, 422, 429})  # without being acted on

# Codes a facilitator may give although its transaction is, or may yet be, on the chain.
AMBIGUOUS_CODES = frozenset(
    {
        "transaction_failed",
        "settlement_pending",
        "unexpected_settle_error",
        "unexpected_error",
        "invalid_transaction_state",
        "invalid_exact_evm_nonce_already_used",
        "invalid_exact_evm_transfer_event_mismatch",
    }
)


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A payment and the requirements it meets, both in wire form of their x402 version."""

    version: int
    document: dict[str, Any]
    requirements: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a payment would settle now, and the x402 error code if not."""

    is_valid: bool
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The money moved, in this transaction."""

    tx_hash: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The money did not move and no transaction was sent; ``code`` is the x402 error code."""

    code: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A transaction may have been sent (``tx_hash``, if known); only the chain can tell."""

    reason: str
    tx_hash: str | None = None


Outcome = Settled | Refused | Unknown


class Facilitator(Protocol):
    """The way to the chain, remote or in process.

    ``verify`` and ``settle`` raise ``FacilitatorUnavailable`` or ``FacilitatorMisbehaved`` only
    when nothing can have been sent; everything less certain is ``Unknown``.
    """

    async def verify(self, payment: SignedPayment) -> Verdict:
        """Ask whether a payment would settle."""

    async def settle(self, payment: SignedPayment) -> Outcome:
        """Move the money; safe to ask again for the same payment."""

    async def check(self) -> None:
        """Return if payments can be settled, else raise the error that says why not."""

    async def close(self) -> None:
        """Give connections and threads back."""


class RemoteFacilitator:
    """Facilitator URLs with failover: the next one is asked only if nothing can have been sent.

    Redirects are never followed: an answer from elsewhere is no answer.
    """

    def __init__(self, urls: Sequence[str], *, timeout: float) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._timeout = timeout
        self._http = httpx.AsyncClient(timeout=timeout, follow_redirects=False)

    async def verify(self, payment: SignedPayment) -> Verdict:
        """Ask each facilitator in turn until one answers in the x402 form."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in self._urls:
            try:
                answer = _object(await self._post(url, "verify", payment), "verify")
            except httpx.HTTPError:
                continue
            except FacilitatorError as error:
                failure = error
                continue
            if isinstance(answer.get("isValid"), bool):
                return Verdict(answer["isValid"], _code(answer.get("invalidReason")))
            failure = FacilitatorMisbehaved("a facilitator's verify answer has no isValid")
        raise failure

    async def settle(self, payment: SignedPayment) -> Outcome:
        """Ask in turn; once a request may have been acted on, its outcome is ``Unknown``."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in self._urls:
            try:
                response = await self._post(url, "settle", payment)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
                continue
            except httpx.HTTPError as error:
                return Unknown(f"the facilitator did not answer ({type(error).__name__})")
            except FacilitatorMisbehaved as error:
                return Unknown(str(error))
            if response.is_redirect:
                failure = FacilitatorMisbehaved("a facilitator answered with a redirect")
                continue
            outcome = _settle_outcome(response)
            if outcome is not None:
                return outcome
            failure = FacilitatorUnavailable(
                f"a facilitator declined with status {response.status_code}"
            )
        raise failure

    async def check(self) -> None:
        """Return when some facilitator lists what it supports."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in self._urls:
            try:
                response = await self._http.get(f"{url}/supported")
            except httpx.HTTPError:
                continue
            try:
                if isinstance(_object(response, "supported").get("kinds"), list):
                    return
                failure = FacilitatorMisbehaved("a facilitator's supported answer has no kinds")
            except FacilitatorError as error:
                failure = error
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, url: str, operation: str, payment: SignedPayment) -> httpx.Response:
        """Post and read at most ``MAX_ANSWER`` bytes, all within the timeout."""
        body = {
            "x402Version": payment.version,
            "paymentPayload": payment.document,
            "paymentRequirements": payment.requirements,
        }
        request = self._http.build_request("POST", f"{url}/{operation}", json=body)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._read(await self._http.send(request, stream=True))
        except TimeoutError:
            raise httpx.ReadTimeout("the answer took too long", request=request) from None

    async def _read(self, response: httpx.Response) -> httpx.Response:
        data = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FacilitatorMisbehaved("a facilitator's answer is too long")
        finally:
            await response.aclose()
        return httpx.Response(
            response.status_code, headers=_plain(response.headers), content=bytes(data)
        )


def read_settle_answer(answer: dict[str, Any]) -> Outcome:
    """What a settle answer in the x402 form (v2 7.2) says about the money."""
    tx_hash = answer.get("transaction")
    tx_hash = tx_hash if isinstance(tx_hash, str) else ""
    if answer["success"]:
        return Settled(tx_hash) if tx_hash else Unknown("settled without a transaction")
    code = _code(answer.get("errorReason")) or "unexpected_settle_error"
    if tx_hash or code in AMBIGUOUS_CODES:
        return Unknown(code, tx_hash or None)
    return Refused(code)


def _settle_outcome(response: httpx.Response) -> Outcome | None:
    """The outcome of an answered settle request, ``None`` if it was turned away unread."""
    try:
        answer = _object(response, "settle", any_status=True)
    except FacilitatorMisbehaved:
        answer = {}
    if isinstance(answer.get("success"), bool):
        return read_settle_answer(answer)
    if response.status_code in TURNED_AWAY:
        return None
    return Unknown(f"the facilitator answered settle with status {response.status_code}")


def _object(
    response: httpx.Response, operation: str, *, any_status: bool = False
) -> dict[str, Any]:
    if response.status_code != 200 and not (any_status and response.status_code >= 400):
        raise FacilitatorMisbehaved(
            f"a facilitator answered {operation} with status {response.status_code}"
        )
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise FacilitatorMisbehaved(f"a facilitator's {operation} answer is no JSON object")
    return answer


def _code(reason: Any) -> str | None:
    """A facilitator's reason, cut to what an x402 error code looks like."""
    if not isinstance(reason, str) or not reason:
        return None
    return "".join(c for c in reason[:100] if c.isascii() and (c.isalnum() or c in "_-.")) or None


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Headers of an answer whose body was already read and decoded."""
    return {k: v for k, v in headers.items() if k.lower() in ("location", "content-type")}

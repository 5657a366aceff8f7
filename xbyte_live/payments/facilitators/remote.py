"""Adapter: remote x402 facilitators over HTTP, asked in order (x402 v2 7)."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from xbyte_live.errors import FacilitatorError, FacilitatorMisbehaved, FacilitatorUnavailable
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS
from xbyte_live.runtime.json import read_json

MAX_ANSWER = 256 * 1024
CONNECT_WAIT = 5.0  # seconds; less than an answer may take, so that the next one is asked in time
REDIRECTED = frozenset({301, 302, 307, 308})  # not 303, which comes after the deed
TURNED_AWAY = frozenset({401, 403, 404, 405, 406, 413, 415, 429})  # without being acted on

# The codes x402 facilitators give before they send anything. With any other one (such as
# `invalid_exact_evm_transaction_failed`, which also stands for a receipt that did not come) a
# transaction may be on its way, and only the chain can tell.
REFUSALS = frozenset(
    {
        "asset_not_deployed_contract",
        "eip6492_factory_not_allowed",
        "insufficient_balance",
        "insufficient_funds",
        "invalid_exact_evm_authorization_value",
        "invalid_exact_evm_eip3009_not_supported",
        "invalid_exact_evm_failed_to_check_deployment",
        "invalid_exact_evm_failed_to_check_nonce",
        "invalid_exact_evm_failed_to_get_asset_info",
        "invalid_exact_evm_failed_to_get_balance",
        "invalid_exact_evm_failed_to_get_network_config",
        "invalid_exact_evm_failed_to_parse_signature",
        "invalid_exact_evm_failed_to_verify_signature",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_missing_eip712_domain",
        "invalid_exact_evm_network_mismatch",
        "invalid_exact_evm_recipient_mismatch",
        "invalid_exact_evm_required_amount",
        "invalid_exact_evm_scheme",
        "invalid_exact_evm_signature",
        "invalid_exact_evm_signature_format",
        "invalid_exact_evm_token_name_mismatch",
        "invalid_exact_evm_token_version_mismatch",
        "invalid_exact_evm_transaction_simulation_failed",
        "invalid_network",
        "invalid_payment_requirements",
        "invalid_scheme",
        "invalid_x402_version",
        "missing_eip712_domain",
        "network_mismatch",
        "smart_wallet_deployment_failed",
        "unsupported_scheme",
        *(
            f"invalid_batch_settlement_evm_{code}"
            for code in (
                "authorizer_address_mismatch",
                "authorizer_not_configured",
                "channel_id_mismatch",
                "channel_not_found",
                "claim_payload",
                "claim_simulation_failed",
                "cumulative_below_claimed",
                "cumulative_exceeds_balance",
                "deposit_payload",
                "deposit_simulation_failed",
                "eip6492_factory_not_allowed",
                "erc3009_authorization_required",
                "insufficient_balance",
                "missing_eip712_domain",
                "network_mismatch",
                "nothing_to_settle",
                "payload_authorization_valid_after",
                "payload_authorization_valid_before",
                "payload_type",
                "receive_authorization_signature",
                "receiver_authorizer_mismatch",
                "receiver_mismatch",
                "refund_amount_invalid",
                "refund_no_balance",
                "refund_payload",
                "refund_simulation_failed",
                "rpc_read_failed",
                "scheme",
                "settle_payload",
                "settle_simulation_failed",
                "smart_wallet_deployment_failed",
                "token_mismatch",
                "unknown_settle_action",
                "voucher_signature",
                "withdraw_delay_mismatch",
                "withdraw_delay_out_of_range",
            )
        ),
    }
)
_REFUSED_PAYLOAD = "invalid_exact_evm_payload_"  # all that begin so are about its fields
_TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


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
    """A facilitator (x402 v2 7), remote or in this process.

    ``verify`` and ``settle`` raise ``FacilitatorUnavailable`` or ``FacilitatorMisbehaved`` only
    when nothing can have been sent; everything less certain is ``Unknown``.
    """

    async def verify(self, payment: SignedPayment) -> Verdict:
        """Ask whether a payment would settle."""

    async def settle(self, payment: SignedPayment) -> Outcome:
        """Move the money; safe to ask again for the same payment."""

    async def receiver_authorizer(self, network: str) -> str | None:
        """The lower-case address that authorizes claims and refunds of channels there, if any.

        Raises ``FacilitatorError`` when that cannot be asked.
        """

    async def check(self) -> None:
        """Return if payments can be settled, else raise the error that says why not."""

    async def close(self) -> None:
        """Close its connections and threads."""


class RemoteFacilitator:
    """Facilitator URLs with failover: the next one is asked only if nothing can have been sent.

    Redirects are never followed: an answer from elsewhere is no answer.
    """

    def __init__(self, urls: Sequence[str], *, timeout: float) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout = timeout
        connect = min(CONNECT_WAIT, timeout / 2)
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout, connect=connect, pool=connect),
            headers={"accept-encoding": "identity"},  # nothing small that unpacks to much
            follow_redirects=False,
        )
        self._authorizers: dict[str, dict[str, str]] = {}  # by URL, then by network

    async def verify(self, payment: SignedPayment) -> Verdict:
        """Ask each facilitator in turn until one answers in the x402 form."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in self._urls:
            try:
                response = await self._post(url, "verify", payment)
                answer = _object(response, "verify", any_status=True)
            except httpx2.HTTPError:
                continue
            except FacilitatorError as error:
                failure = error
                continue
            valid = answer.get("isValid")
            if valid is False or (valid is True and response.status_code == 200):
                return Verdict(valid, _code(answer.get("invalidReason")))
            failure = FacilitatorMisbehaved(
                f"a facilitator answered verify with status {response.status_code} and no verdict"
            )
        raise failure

    async def settle(self, payment: SignedPayment) -> Outcome:
        """Ask in turn; once a request may have been acted on, its outcome is ``Unknown``."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in await self._able(payment):
            try:
                response = await self._post(url, "settle", payment)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
                continue
            except httpx2.HTTPError as error:
                self._distrust(url)
                return Unknown(f"the facilitator did not answer ({type(error).__name__})")
            except FacilitatorMisbehaved as error:
                self._distrust(url)
                return Unknown(str(error))
            if response.status_code in REDIRECTED:
                failure = FacilitatorMisbehaved("a facilitator answered with a redirect")
                continue
            outcome = _settle_outcome(response)
            if outcome is not None:
                if response.status_code >= 500:
                    self._distrust(url)
                return outcome
            failure = FacilitatorUnavailable(
                f"a facilitator declined with status {response.status_code}"
            )
        raise failure

    async def receiver_authorizer(self, network: str) -> str | None:
        """The authorizer that the first facilitator with one advertises, asked until it answers."""
        failure: FacilitatorError | None = None
        for url in tuple(self._urls):
            try:
                found = (await self._authorizers_of(url)).get(network)
            except FacilitatorError as error:
                failure = error
                continue
            if found is not None:
                return found
        if failure is not None:
            raise failure
        return None

    async def check(self) -> None:
        """Return when some facilitator lists what it supports."""
        failure: FacilitatorError = FacilitatorUnavailable("no facilitator could be reached")
        for url in self._urls:
            try:
                await self._supported(url)
                return
            except FacilitatorError as error:
                failure = error
        raise failure

    async def _supported(self, url: str) -> list[Any]:
        request = self._http.build_request("GET", f"{url}/supported")
        try:
            kinds = _object(await self._send(request), "supported").get("kinds")
        except httpx2.HTTPError:
            raise FacilitatorUnavailable("no facilitator could be reached") from None
        if not isinstance(kinds, list):
            raise FacilitatorMisbehaved("a facilitator's supported answer has no kinds")
        return kinds

    async def _authorizers_of(self, url: str) -> dict[str, str]:
        """Who authorizes claims at a facilitator, by network."""
        if url not in self._authorizers:
            self._authorizers[url] = dict(_authorizers(await self._supported(url)))
        return self._authorizers[url]

    async def _able(self, payment: SignedPayment) -> tuple[str, ...]:
        """The facilitators to ask, in order.

        For a claim or refund that one of them is to sign, that one alone.
        """
        authorizer = _delegated_to(payment.document.get("payload"))
        if authorizer is not None:
            network = payment.requirements.get("network", "")
            for url in tuple(self._urls):
                with suppress(FacilitatorError):
                    if (await self._authorizers_of(url)).get(network) == authorizer:
                        return (url,)
        return tuple(self._urls)

    def _distrust(self, url: str) -> None:
        """Ask the others first from now on; this payment's next attempt goes to one of them."""
        self._urls.remove(url)
        self._urls.append(url)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, url: str, operation: str, payment: SignedPayment) -> httpx2.Response:
        body = {
            "x402Version": payment.version,
            "paymentPayload": payment.document,
            "paymentRequirements": payment.requirements,
        }
        return await self._send(self._http.build_request("POST", f"{url}/{operation}", json=body))

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and read at most ``MAX_ANSWER`` bytes, all within the timeout."""
        sent = False

        async def trace(event: str, _: Any) -> None:
            nonlocal sent
            sent = sent or "send_request" in event

        request.extensions = {**request.extensions, "trace": trace}
        try:
            async with asyncio.timeout(self._timeout):
                return await self._read(await self._http.send(request, stream=True))
        except TimeoutError:
            if not sent:  # a loop that is late meets the deadline of the connection here too
                raise httpx2.ConnectTimeout("no connection in time", request=request) from None
            raise httpx2.ReadTimeout("the answer took too long", request=request) from None

    async def _read(self, response: httpx2.Response) -> httpx2.Response:
        data = bytearray()
        try:
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FacilitatorMisbehaved("a facilitator's answer is too long")
        finally:
            await response.aclose()
        return httpx2.Response(
            response.status_code, headers=_plain(response.headers), content=bytes(data)
        )


def _authorizers(kinds: list[Any]) -> Iterator[tuple[str, str]]:
    """Who authorizes claims on which network, of the kinds of payment a facilitator supports."""
    for kind in kinds:
        if isinstance(kind, dict) and kind.get("scheme") == SCHEME_CHANNELS:
            extra, network = kind.get("extra"), kind.get("network")
            found = extra.get("receiverAuthorizer") if isinstance(extra, dict) else None
            if isinstance(network, str) and isinstance(found, str) and _ADDRESS.fullmatch(found):
                yield network, found.lower()


def _delegated_to(payload: Any) -> str | None:
    """The authorizer that must still sign a claim or refund, if it is not signed."""
    if not isinstance(payload, dict):
        return None
    if payload.get("type") == "claim" and not payload.get("claimAuthorizerSignature"):
        config = payload["claims"][0]["voucher"]["channel"]
    elif "refundNonce" in payload and not payload.get("refundAuthorizerSignature"):
        config = payload["channelConfig"]
    else:
        return None
    return str(config["receiverAuthorizer"]).lower()


def read_settle_answer(answer: dict[str, Any]) -> Outcome:
    """The outcome in a settle response of the x402 form (v2 7.2)."""
    sent = answer.get("transaction")
    tx_hash = sent if isinstance(sent, str) and _TX_HASH.fullmatch(sent) else None
    if answer["success"]:
        return Settled(tx_hash) if tx_hash else Unknown("settled without a transaction")
    code = _code(answer.get("errorReason")) or "unexpected_settle_error"
    if not sent and (code in REFUSALS or code.startswith(_REFUSED_PAYLOAD)):
        return Refused(code)
    return Unknown(code, tx_hash)


def _settle_outcome(response: httpx2.Response) -> Outcome | None:
    """The outcome of an answered settle request, ``None`` if it was turned away unread."""
    try:
        answer = _object(response, "settle", any_status=True)
    except FacilitatorMisbehaved:
        answer = {}
    if answer.get("success") is False or (
        answer.get("success") is True and response.status_code == 200
    ):
        return read_settle_answer(answer)
    if response.status_code in TURNED_AWAY:
        return None
    return Unknown(f"the facilitator answered settle with status {response.status_code}")


def _object(
    response: httpx2.Response, operation: str, *, any_status: bool = False
) -> dict[str, Any]:
    if response.status_code != 200 and not (any_status and response.status_code >= 400):
        raise FacilitatorMisbehaved(
            f"a facilitator answered {operation} with status {response.status_code}"
        )
    try:
        answer = read_json(response.content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise FacilitatorMisbehaved(f"a facilitator's {operation} answer is no JSON object")
    return answer


def _code(reason: Any) -> str | None:
    """A facilitator's reason, cut to what an x402 error code looks like."""
    if not isinstance(reason, str) or not reason:
        return None
    return "".join(c for c in reason[:100] if c.isascii() and (c.isalnum() or c in "_-.")) or None


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """Headers of an answer whose body was already read and decoded."""
    return {k: v for k, v in headers.items() if k.lower() in ("location", "content-type")}

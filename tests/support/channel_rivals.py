"""Our gate and the SDK's own server, side by side, each over its own copy of one chain."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from x402 import x402FacilitatorSync, x402ResourceServer
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.server import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.server.scheme import BatchSettlementEvmSchemeServerConfig
from x402.schemas import PaymentAbortedError, PaymentPayload, PaymentRequirements

from tests.fakes import USDC
from tests.support.channel_site import InProcess
from tests.support.channel_till import DELAY, ChannelTill, answer_of, corrected
from tests.support.paying import PAYEE
from xbyte_live.errors import PaymentMalformed, PaymentPending, PaymentRefused
from xbyte_live.payments.gate import Sale

PREFIX = "invalid_batch_settlement_evm_"
NO_OFFER = frozenset({"invalid_payment_requirements", "network_mismatch", "unsupported_scheme"})


@dataclass(frozen=True, slots=True)
class Answer:
    """``verdict`` is ``ok`` or a code without its prefix; ``state`` and ``more`` what goes along.

    ``more``: for what is good what was charged and moved, for a correction the voucher known.
    """

    verdict: str
    state: dict[str, Any] | None = None
    more: tuple[Any, ...] = ()

    @property
    def good(self) -> bool:
        return self.verdict == "ok"


def short(code: str) -> str:
    return code.removeprefix(PREFIX)


def _corrected(code: str, extra: dict[str, Any] | None) -> Answer:
    extra = extra or {}
    voucher = extra.get("voucherState") or {}
    more = tuple(voucher.get(name) for name in ("signedMaxClaimable", "signature"))
    return Answer(short(code), extra.get("channelState"), more if voucher else ())


def _settled(settled: dict[str, Any]) -> Answer:
    extra = settled.get("extra") or {}
    more = (extra.get("chargedAmount"), settled.get("amount"), bool(settled["transaction"]))
    return Answer("ok", extra.get("channelState"), (*more, str(settled["payer"]).lower()))


class Ours:
    """Our gate."""

    def __init__(self, till: ChannelTill) -> None:
        self.till = till

    async def ask(self, document: dict[str, Any], sale: Sale) -> Answer:
        try:
            receipt = await self.till.pay(document, sale)
        except PaymentMalformed:
            return Answer("malformed")
        except PaymentPending:
            return Answer("pending")
        except PaymentRefused as error:
            if error.code in NO_OFFER:
                return Answer("no_offer")
            return _corrected(error.code, corrected(self.till.gate, sale, error)["extra"])
        return _settled(answer_of(receipt))

    async def charged(self, channel_id: str) -> int | None:
        """What it has charged; ``None`` for a channel it does not know."""
        channel = await self.till.channels.find(channel_id)
        return None if channel is None else channel.charged


class Theirs:
    """The SDK's server with its scheme, as its HTTP middleware drives them."""

    def __init__(self, signer: Any, authorizer_key: str, offers: Callable[[Sale], Any]) -> None:
        self._offers = offers
        facilitator = x402FacilitatorSync()
        facilitator.register([USDC.network], BatchSettlementEvmFacilitator(signer))
        config = BatchSettlementEvmSchemeServerConfig(
            receiver_authorizer_signer=LocalAuthorizerSigner(authorizer_key), withdraw_delay=DELAY
        )
        self.scheme: Any = BatchSettlementEvmScheme(PAYEE, config)
        self._server = x402ResourceServer(InProcess(facilitator))
        self._server.register(USDC.network, self.scheme)
        self._server.initialize()

    async def ask(self, document: dict[str, Any], sale: Sale) -> Answer:
        offer = PaymentRequirements.model_validate(self._offers(sale))
        try:
            payload = PaymentPayload.model_validate(document)
        except ValidationError:
            return Answer("malformed")
        chosen = self._server.find_matching_requirements([offer], payload)
        if chosen is None:
            return Answer("no_offer")
        try:
            verified = await self._server.verify_payment(payload, chosen)
        except PaymentAbortedError as error:
            return await self._refused(error.reason, offer, payload)
        except Exception as error:
            return Answer(f"crash {type(error).__name__}")
        if not verified.is_valid:
            return await self._refused(verified.invalid_reason or "", offer, payload)
        try:
            settled = await self._server.settle_payment(payload, chosen)
        except PaymentAbortedError as error:
            return Answer(short(error.reason))
        except Exception as error:
            return Answer(short(str(error)))
        if not settled.success:
            return Answer(short(settled.error_reason or ""))
        return _settled(settled.model_dump(by_alias=True))

    async def _refused(
        self, code: str, offer: PaymentRequirements, payload: PaymentPayload
    ) -> Answer:
        asked = await self._server.create_payment_required_response(
            [offer], error=code, payment_payload=payload
        )
        return _corrected(code, asked.accepts[0].extra)

    async def charged(self, channel_id: str) -> int | None:
        """What it has charged; ``None`` for a channel it does not know."""
        channel = self.scheme.get_storage().get(channel_id)
        return None if channel is None else int(channel.charged_cumulative_amount)

    def age(self, seconds: float) -> None:
        """Let what it knows of channels be older."""
        storage = self.scheme.get_storage()
        for channel in storage.list():

            def older(current: Any) -> Any:
                changed = current.copy()
                if changed.onchain_synced_at is not None:
                    changed.onchain_synced_at -= int(seconds * 1000)
                return changed

            storage.update_channel(channel.channel_id, older)


def numbered() -> Callable[[], int]:
    """Numbers one after another, for resources that are all different."""
    numbers = itertools.count()
    return lambda: next(numbers)

"""Adapter: the x402 SDK's facilitator in this process, paying gas with our own key."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from x402.mechanisms.evm.batch_settlement.facilitator import (
    BatchSettlementEvmFacilitator,
    BatchSettlementEvmFacilitatorConfig,
)
from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme, ExactEvmSchemeConfig
from x402.mechanisms.evm.exact.v1.facilitator import ExactEvmSchemeV1, ExactEvmSchemeV1Config
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from xbyte_live.errors import FacilitatorUnavailable
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.remote import (
    Outcome,
    Refused,
    SignedPayment,
    Unknown,
    Verdict,
    read_settle_answer,
)
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS

# The SDK gives these for a bad payment and for a node that does not answer alike.
_MAYBE_NO_NODE = frozenset(
    {
        "invalid_exact_evm_transaction_simulation_failed",
        "invalid_exact_evm_failed_to_verify_signature",
        "asset_not_deployed_contract",
        *(
            f"invalid_batch_settlement_evm_{code}"
            for code in (
                "channel_not_found",
                "claim_simulation_failed",
                "deposit_simulation_failed",
                "receive_authorization_signature",
                "refund_simulation_failed",
                "rpc_read_failed",
                "settle_simulation_failed",
                "voucher_signature",
            )
        ),
    }
)


class _NoMemory:
    """A store that remembers no transaction sent.

    The SDK would wait for it again, and so never send anew a deposit that the chain dropped.
    """

    def get(self, key: str) -> str | None:
        return None

    def set(self, key: str, tx_hash: str) -> None:
        return None

    def delete(self, key: str) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Schemes:
    v1: ExactEvmSchemeV1
    v2: ExactEvmScheme
    channels: BatchSettlementEvmFacilitator


class LocalFacilitator:
    """Verifies and settles through RPC nodes, in a bounded pool of threads.

    ``senders`` maps each CAIP-2 network to the one sender of our key on it, ``v1_networks`` the
    legacy names to CAIP-2. Claims and refunds come signed by their authorizer.
    """

    def __init__(
        self,
        senders: Mapping[str, TransactionSender],
        v1_networks: Mapping[str, str],
        *,
        factories: Sequence[str] = (),
        parallel: int = 16,
    ) -> None:
        allowed = list(factories)
        self._senders = dict(senders)
        self._v1_networks = dict(v1_networks)
        self._schemes = {
            network: _Schemes(
                ExactEvmSchemeV1(sender, ExactEvmSchemeV1Config(allowed, simulate_in_settle=True)),
                ExactEvmScheme(sender, ExactEvmSchemeConfig(allowed, simulate_in_settle=True)),
                BatchSettlementEvmFacilitator(
                    sender,
                    config=BatchSettlementEvmFacilitatorConfig(allowed),
                    pending_store=_NoMemory(),
                ),
            )
            for network, sender in senders.items()
        }
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="facilitator")

    @property
    def senders(self) -> Mapping[str, TransactionSender]:
        """The sender of our key on each network."""
        return self._senders

    async def verify(self, payment: SignedPayment) -> Verdict:
        """Check and simulate the transfer; raises ``FacilitatorUnavailable`` without a node."""
        try:
            verify, sender = partial(self._verify, payment), self._sender_of(payment)
            answer, heard = await self._run(sender.heard, verify)
        except (ValidationError, KeyError):
            return Verdict(False, "invalid_payload")
        except Exception as error:
            raise FacilitatorUnavailable("the RPC node gave no answer") from error
        if answer.invalid_reason in _MAYBE_NO_NODE:
            await self._probe(payment, heard)
        return Verdict(answer.is_valid, answer.invalid_reason)

    async def settle(self, payment: SignedPayment) -> Outcome:
        """Simulate, send and wait; anything that fails after that began is ``Unknown``."""
        try:
            settle = self._settling(payment)
        except (ValidationError, KeyError):
            return Refused("invalid_payload")
        try:
            answer, heard = await self._run(self._sender_of(payment).heard, settle)
        except Exception as error:
            return Unknown(f"settling failed ({type(error).__name__})")
        if answer.error_reason in _MAYBE_NO_NODE:
            await self._probe(payment, heard)
        return read_settle_answer(answer.model_dump(by_alias=True))

    async def receiver_authorizer(self, network: str) -> str | None:
        """The address of our gas key, which authorizes where no other key is set."""
        sender = self._senders.get(network)
        return sender.address.lower() if sender is not None else None

    async def gas_balance(self, network: str) -> int:
        """Wei our gas key has on a network; raises ``FacilitatorUnavailable``."""
        try:
            return int(await self._run(self._senders[network].gas_balance))
        except Exception as error:
            raise FacilitatorUnavailable(f"the RPC node of {network} gave no answer") from error

    async def check(self) -> None:
        """Return when every network's node answers for its chain and our key can pay gas."""
        for network, sender in self._senders.items():
            try:
                chain_id = await self._run(sender.get_chain_id)
                balance = await self._run(sender.gas_balance)
            except Exception as error:
                raise FacilitatorUnavailable(f"the RPC node of {network} gave no answer") from error
            if f"eip155:{chain_id}" != network:
                raise FacilitatorUnavailable(
                    f"the RPC node of {network} serves chain {chain_id}; correct rpc_urls"
                )
            if balance == 0:
                raise FacilitatorUnavailable(
                    f"the gas key {sender.address} has no coins on {network}; send it some"
                )

    async def close(self) -> None:
        """Wait for transactions under way and end the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _probe(self, payment: SignedPayment, heard: bool) -> None:
        """Raise ``FacilitatorUnavailable`` if a refusal came only from a silent node."""
        if not heard:  # though it may answer again by now
            raise FacilitatorUnavailable("the RPC node gave no answer")
        try:
            await self._run(self._sender_of(payment).block_number)
        except Exception as error:
            raise FacilitatorUnavailable("the RPC node gave no answer") from error

    async def _run(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _sender_of(self, payment: SignedPayment) -> TransactionSender:
        return self._senders[self._network_of(payment)]

    def _network_of(self, payment: SignedPayment) -> str:
        network = str(payment.requirements["network"])
        return self._v1_networks[network] if payment.version == 1 else network

    def _verify(self, payment: SignedPayment) -> VerifyResponse:
        schemes = self._schemes[self._network_of(payment)]
        if payment.version == 1:
            return schemes.v1.verify(*_v1(payment))
        scheme = schemes.channels if _is_of_channel(payment) else schemes.v2
        return scheme.verify(*_v2(payment))

    def _settling(self, payment: SignedPayment) -> Callable[[], SettleResponse]:
        """The call that settles; raises for a payment that cannot be read, before it is made."""
        schemes = self._schemes[self._network_of(payment)]
        if payment.version == 1:
            return partial(schemes.v1.settle, *_v1(payment))
        scheme = schemes.channels if _is_of_channel(payment) else schemes.v2
        return partial(scheme.settle, *_v2(payment))


def _is_of_channel(payment: SignedPayment) -> bool:
    return payment.requirements.get("scheme") == SCHEME_CHANNELS


def _v1(payment: SignedPayment) -> tuple[PaymentPayloadV1, PaymentRequirementsV1]:
    return (
        PaymentPayloadV1.model_validate(payment.document),
        PaymentRequirementsV1.model_validate(payment.requirements),
    )


def _v2(payment: SignedPayment) -> tuple[PaymentPayload, PaymentRequirements]:
    return (
        PaymentPayload.model_validate(payment.document),
        PaymentRequirements.model_validate(payment.requirements),
    )

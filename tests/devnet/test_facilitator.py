import asyncio
import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from x402 import x402Client
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.mechanisms.evm.constants import ERC6492_MAGIC_VALUE
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import PaymentPayload, PaymentRequired, PaymentRequirements, ResourceInfo
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequiredV1, PaymentRequirementsV1

from tests.support.chain import ETHER, SharedDevnet, serving, serving_facilitator
from xbyte_live.devnet.facilitator import facilitator_app

AMOUNT = 716
URL = "http://127.0.0.1/hls/a/source/0.ts"


@pytest.fixture
async def facilitator(facilitator_url: str) -> AsyncIterator[HTTPFacilitatorClient]:
    async with HTTPFacilitatorClient(FacilitatorConfig(url=facilitator_url)) as client:
        yield client


@pytest.fixture
def payer(devnet: SharedDevnet) -> LocalAccount:
    return devnet.new_account(usdc=10_000)


@pytest.fixture
def payee() -> str:
    return str(Account.create().address)


def requirements_for(devnet: SharedDevnet, payee: str) -> PaymentRequirements:
    return PaymentRequirements(
        scheme="exact",
        network=devnet.network,
        asset=devnet.asset.address,
        amount=str(AMOUNT),
        pay_to=payee,
        max_timeout_seconds=300,
        extra={"name": "USDC", "version": "2"},
    )


async def pay_v2(payer: LocalAccount, requirements: PaymentRequirements) -> PaymentPayload:
    """What the SDK's client, spend controls and all, answers to a 402."""
    client = register_exact_evm_client(x402Client(), EthAccountSigner(payer))
    required = PaymentRequired(resource=ResourceInfo(url=URL), accepts=[requirements])
    payload = await client.create_payment_payload(required)
    assert isinstance(payload, PaymentPayload)
    return payload


async def test_the_sdks_client_pays_through_the_sdks_facilitator(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payer: LocalAccount, payee: str
) -> None:
    requirements = requirements_for(devnet, payee)
    payload = await pay_v2(payer, requirements)

    verified = await facilitator.verify(payload, requirements)
    assert (verified.is_valid, verified.payer) == (True, payer.address)
    assert devnet.usdc_balance(payee) == 0
    settled = await facilitator.settle(payload, requirements)

    assert (settled.success, settled.network, settled.payer) == (
        True, devnet.network, payer.address,
    )  # fmt: skip
    receipt = devnet.call(devnet.chain.rpc, "eth_getTransactionReceipt", settled.transaction)
    assert receipt["status"] == "0x1"
    assert devnet.usdc_balance(payee) == AMOUNT
    assert devnet.usdc_balance(payer.address) == 10_000 - AMOUNT

    again = await facilitator.settle(payload, requirements)
    assert not again.success
    verified = await facilitator.verify(payload, requirements)
    assert "nonce" in (verified.invalid_reason or "") and not verified.is_valid
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_version_one_pays_too(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payer: LocalAccount, payee: str
) -> None:
    requirements = PaymentRequirementsV1(
        scheme="exact",
        network="base-sepolia",
        max_amount_required=str(AMOUNT),
        resource=URL,
        description="",
        mime_type="video/mp2t",
        pay_to=payee,
        max_timeout_seconds=300,
        asset=devnet.asset.address,
        extra={"name": "USDC", "version": "2"},
    )
    client = register_exact_evm_client(x402Client(), EthAccountSigner(payer))
    payload = await client.create_payment_payload(PaymentRequiredV1(accepts=[requirements]))
    assert isinstance(payload, PaymentPayloadV1)

    assert (await facilitator.verify(payload, requirements)).is_valid
    assert (await facilitator.settle(payload, requirements)).success
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_what_it_supports(devnet: SharedDevnet, facilitator: HTTPFacilitatorClient) -> None:
    supported = facilitator.get_supported()

    kinds = {(kind.x402_version, kind.scheme, kind.network) for kind in supported.kinds}
    assert {(2, "exact", devnet.network), (1, "exact", "base-sepolia")} <= kinds
    assert len(supported.signers["eip155:*"]) == 1


async def test_refusals_carry_the_reason(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payee: str
) -> None:
    requirements = requirements_for(devnet, payee)

    poor = await facilitator.verify(await pay_v2(Account.create(), requirements), requirements)
    assert not poor.is_valid and "insufficient" in (poor.invalid_reason or "")

    payload = await pay_v2(devnet.new_account(usdc=AMOUNT), requirements)
    other = requirements.model_copy(update={"pay_to": str(Account.create().address)})
    diverted = await facilitator.verify(payload, other)
    assert not diverted.is_valid and "recipient" in (diverted.invalid_reason or "")


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"{}", b'{"x402Version": 3}', b'{"x402Version": [1]}',
        b'{"x402Version": 2, "paymentPayload": {}, "paymentRequirements": {}}',
    ],
)  # fmt: skip
def test_rubbish_is_a_bad_request(facilitator_url: str, body: bytes) -> None:
    for path in ("/verify", "/settle"):
        answer = httpx2.post(facilitator_url + path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]


async def test_an_unknown_network_is_a_bad_request(
    devnet: SharedDevnet, facilitator_url: str, payer: LocalAccount, payee: str
) -> None:
    requirements = requirements_for(devnet, payee)
    payload = await pay_v2(payer, requirements)
    elsewhere = requirements.model_copy(update={"network": "solana:mainnet"})
    moved = payload.model_copy(update={"accepted": elsewhere})

    body = {
        "x402Version": 2,
        "paymentPayload": moved.model_dump(by_alias=True, exclude_none=True),
        "paymentRequirements": elsewhere.model_dump(by_alias=True, exclude_none=True),
    }
    assert httpx2.post(facilitator_url + "/verify", json=body).status_code == 400


async def test_payments_settled_at_once_do_not_collide(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payee: str
) -> None:
    requirements = requirements_for(devnet, payee)
    payer = devnet.new_account(usdc=40 * AMOUNT)
    payloads = [await pay_v2(payer, requirements) for _ in range(40)]

    answers = await asyncio.gather(*(facilitator.settle(p, requirements) for p in payloads))

    assert [answer.success for answer in answers] == [True] * 40
    assert len({answer.transaction for answer in answers}) == 40
    assert devnet.usdc_balance(payee) == 40 * AMOUNT


async def test_a_failed_send_leaves_no_gap(
    devnet: SharedDevnet, payer: LocalAccount, payee: str
) -> None:
    requirements = requirements_for(devnet, payee)
    gas: LocalAccount = Account.create()  # has nothing to pay gas with yet
    app = facilitator_app(devnet.rpc_url, "0x" + bytes(gas.key).hex(), devnet.network)
    with serving(app) as url:
        async with HTTPFacilitatorClient(FacilitatorConfig(url=url)) as facilitator:
            payload = await pay_v2(payer, requirements)
            assert not (await facilitator.settle(payload, requirements)).success
            devnet.fund(gas.address, wei=ETHER)
            assert (await facilitator.settle(payload, requirements)).success
    assert devnet.usdc_balance(payee) == AMOUNT


def pay_from_wallet(
    wallet: str, owner: LocalAccount, requirements: PaymentRequirements, wrap: bytes = b""
) -> PaymentPayload:
    """What a client with a smart wallet sends: its owner's signature, wrapped its own way."""
    fields = {"from": "address", "to": "address", "value": "uint256", "validAfter": "uint256"}
    fields |= {"validBefore": "uint256", "nonce": "bytes32"}
    values = (wallet, requirements.pay_to, AMOUNT, 0, 2**63, secrets.token_bytes(32))
    message = dict(zip(fields, values, strict=True))
    domain = {
        "name": "USDC", "version": "2", "chainId": int(requirements.network.split(":")[1]),
        "verifyingContract": requirements.asset,
    }  # fmt: skip
    types = {"TransferWithAuthorization": [{"name": n, "type": t} for n, t in fields.items()]}
    signature = wrap + owner.sign_typed_data(domain, types, message).signature
    authorization = {k: str(v) if isinstance(v, int) else v for k, v in message.items()}
    authorization["nonce"] = "0x" + values[5].hex()
    return PaymentPayload(
        payload={"signature": "0x" + signature.hex(), "authorization": authorization},
        accepted=requirements,
        resource=ResourceInfo(url=URL),
    )


@pytest.mark.parametrize("wrap", [b"", b"\0"], ids=["65 bytes", "wrapped"])
async def test_a_smart_wallet_pays(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payee: str, wrap: bytes
) -> None:
    owner: LocalAccount = Account.create()
    wallet = devnet.deploy("TestWallet", encode(["address"], [owner.address]))
    devnet.fund(wallet, usdc=AMOUNT)
    requirements = requirements_for(devnet, payee)
    payload = pay_from_wallet(wallet, owner, requirements, wrap)
    forged = pay_from_wallet(wallet, Account.create(), requirements, wrap)

    assert not (await facilitator.verify(forged, requirements)).is_valid
    assert (await facilitator.verify(payload, requirements)).is_valid
    assert (await facilitator.settle(payload, requirements)).success
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_a_wallet_not_deployed_yet_pays_through_an_allowed_factory(
    devnet: SharedDevnet, facilitator: HTTPFacilitatorClient, payee: str
) -> None:
    owner: LocalAccount = Account.create()
    factory = devnet.deploy("TestWalletFactory")
    arguments = encode(["address", "bytes32"], [owner.address, bytes(32)])
    where = {"to": factory, "data": selector("walletOf(address,bytes32)") + arguments.hex()}
    wallet = "0x" + devnet.call(devnet.chain.rpc, "eth_call", where, "latest")[-40:]
    devnet.fund(wallet, usdc=AMOUNT)
    requirements = requirements_for(devnet, payee)
    payload = pay_from_wallet(wallet, owner, requirements)
    inner = bytes.fromhex(payload.payload["signature"][2:])
    create = bytes.fromhex(selector("create(address,bytes32)")[2:]) + arguments
    deferred = encode(["address", "bytes", "bytes"], [factory, create, inner])
    payload.payload["signature"] = "0x" + (deferred + ERC6492_MAGIC_VALUE).hex()

    refused = await facilitator.settle(payload, requirements)
    assert not refused.success and "factory" in (refused.error_reason or "")
    with serving_facilitator(devnet, [factory]) as url:
        async with HTTPFacilitatorClient(FacilitatorConfig(url=url)) as allowing:
            assert (await allowing.verify(payload, requirements)).is_valid
            assert (await allowing.settle(payload, requirements)).success
    assert devnet.usdc_balance(payee) == AMOUNT


def selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()

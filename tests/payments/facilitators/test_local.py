"""Our own facilitator and chain reader on a real chain, fed with real payments of every kind."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from tests.fakes import USDC
from tests.support.chain import ETHER, SharedDevnet
from tests.support.facilitator_double import refusing_url
from tests.support.paying import v1_document, v2_document
from tests.support.rpc_proxy import rpc_proxy
from xbyte_live.devnet.chain import Devnet
from xbyte_live.errors import ChainUnavailable, FacilitatorUnavailable
from xbyte_live.evm.authorizations import ChainReader, Transfer
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Refused, Settled, SignedPayment, Unknown

AMOUNT = 716
NAMES = {"base-sepolia": USDC.network}
MAGIC_6492 = bytes.fromhex("6492" * 16)


def facilitator_on(
    rpc_url: str, gas: LocalAccount, *, factories: tuple[str, ...] = (), wait: float = 10
) -> LocalFacilitator:
    key = "0x" + bytes(gas.key).hex()
    sender = TransactionSender(key, RpcNode(rpc_url, timeout=20), confirmation_timeout=wait)
    return LocalFacilitator({USDC.network: sender}, NAMES, factories=factories)


@pytest.fixture
async def local(devnet: SharedDevnet) -> AsyncIterator[LocalFacilitator]:
    facilitator = facilitator_on(devnet.rpc_url, devnet.new_account(wei=10 * ETHER))
    yield facilitator
    await facilitator.close()


def requirements(payee: str, version: int = 2) -> dict[str, Any]:
    shared = {
        "scheme": "exact",
        "payTo": payee,
        "asset": USDC.address,
        "maxTimeoutSeconds": 300,
        "extra": {"name": "USDC", "version": "2"},
    }
    if version == 2:
        return shared | {"network": USDC.network, "amount": str(AMOUNT)}
    resource = {"resource": "http://test/0.ts", "description": "", "mimeType": "video/mp2t"}
    return shared | {"network": "base-sepolia", "maxAmountRequired": str(AMOUNT)} | resource


def paid_by(payer: LocalAccount, payee: str, version: int = 2, **how: Any) -> SignedPayment:
    asked = requirements(payee, version)
    document = (v2_document if version == 2 else v1_document)(payer, asked, **how)
    return SignedPayment(version, document, asked)


def transfer_of(payment: SignedPayment, **changes: Any) -> Transfer:
    order = payment.document["payload"]["authorization"]
    fields = {
        "asset": USDC.address.lower(),
        "payer": order["from"].lower(),
        "pay_to": order["to"].lower(),
        "amount": int(order["value"]),
        "nonce": order["nonce"],
        "valid_before": int(order["validBefore"]),
        "not_before": time.time() - 15,
    }
    return Transfer(**(fields | changes))


def a_payee() -> str:
    return str(Account.create().address)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("lower", [False, True])
async def test_it_verifies_and_settles(
    devnet: SharedDevnet, local: LocalFacilitator, version: int, lower: bool
) -> None:
    payee = a_payee().lower() if lower else a_payee()
    payer = devnet.new_account(usdc=AMOUNT)
    payment = paid_by(payer, payee, version)
    if lower:
        payment.document["payload"]["authorization"]["from"] = payer.address.lower()
    assert (await local.verify(payment)).is_valid
    outcome = await local.settle(payment)
    assert isinstance(outcome, Settled)
    assert devnet.usdc_balance(payee) == AMOUNT
    again = await local.settle(payment)
    assert isinstance(again, Unknown)  # used: by whom, only the chain can tell
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_an_empty_payer_is_refused_before_any_gas_is_spent(
    devnet: SharedDevnet,
) -> None:
    gas = devnet.new_account(wei=ETHER)
    local = facilitator_on(devnet.rpc_url, gas)
    outcome = await local.settle(paid_by(devnet.new_account(), a_payee()))
    await local.close()
    assert outcome == Refused("invalid_exact_evm_insufficient_balance")
    assert devnet.call(devnet.chain.wei_balance, gas.address) == ETHER


async def test_many_at_once_leave_no_gap_in_the_nonces(
    devnet: SharedDevnet, local: LocalFacilitator
) -> None:
    payee = a_payee()
    payers = [devnet.new_account(usdc=AMOUNT) for _ in range(20)]
    outcomes = await asyncio.gather(*(local.settle(paid_by(p, payee)) for p in payers))
    assert all(isinstance(o, Settled) for o in outcomes)
    assert devnet.usdc_balance(payee) == 20 * AMOUNT


async def test_a_send_that_failed_does_not_stop_the_next(devnet: SharedDevnet) -> None:
    gas, payee = devnet.new_account(), a_payee()
    local = facilitator_on(devnet.rpc_url, gas)
    payer = devnet.new_account(usdc=2 * AMOUNT)
    with pytest.raises(FacilitatorUnavailable, match="no coins"):
        await local.check()
    assert not isinstance(await local.settle(paid_by(payer, payee)), Settled)
    devnet.fund(gas.address, wei=ETHER)
    await local.check()
    assert isinstance(await local.settle(paid_by(payer, payee)), Settled)
    await local.close()


async def test_a_node_that_is_down_is_unavailable_and_never_a_refusal() -> None:
    with refusing_url() as url:
        local = facilitator_on(url, Account.create())
        payment = paid_by(Account.create(), a_payee())
        with pytest.raises(FacilitatorUnavailable):
            await local.verify(payment)
        with pytest.raises(FacilitatorUnavailable):
            await local.settle(payment)
        with pytest.raises(FacilitatorUnavailable):
            await local.check()
        await local.close()


async def test_a_smart_wallet_pays_by_eip_1271(
    devnet: SharedDevnet, local: LocalFacilitator
) -> None:
    owner, payee = Account.create(), a_payee()
    wallet = devnet.deploy("TestWallet", encode(["address"], [owner.address]))
    devnet.fund(wallet, usdc=AMOUNT)
    payment = paid_by(owner, payee, **{"from": wallet})
    wrapped = "0x00" + payment.document["payload"]["signature"][2:]
    payment.document["payload"]["signature"] = wrapped
    assert (await local.verify(payment)).is_valid
    assert isinstance(await local.settle(payment), Settled)
    assert devnet.usdc_balance(payee) == AMOUNT
    forged = paid_by(Account.create(), payee, **{"from": wallet})
    forged.document["payload"]["signature"] = "0x00" + forged.document["payload"]["signature"][2:]
    assert not (await local.verify(forged)).is_valid


async def test_a_wallet_not_deployed_yet_pays_through_an_allowed_factory_only(
    devnet: SharedDevnet, local: LocalFacilitator
) -> None:
    owner, payee, factory = Account.create(), a_payee(), devnet.deploy("TestWalletFactory")
    arguments = encode(["address", "bytes32"], [owner.address, bytes(32)])
    where = {"to": factory, "data": selector("walletOf(address,bytes32)") + arguments.hex()}
    wallet = "0x" + devnet.call(devnet.chain.rpc, "eth_call", where, "latest")[-40:]
    devnet.fund(wallet, usdc=AMOUNT)
    payment = paid_by(owner, payee, **{"from": wallet})
    inner = bytes.fromhex(payment.document["payload"]["signature"][2:])
    create = bytes.fromhex(selector("create(address,bytes32)")[2:]) + arguments
    deferred = encode(["address", "bytes", "bytes"], [factory, create, inner]) + MAGIC_6492
    payment.document["payload"]["signature"] = "0x" + deferred.hex()
    assert await local.settle(payment) == Refused("eip6492_factory_not_allowed")
    gas = devnet.new_account(wei=ETHER)
    allowing = facilitator_on(devnet.rpc_url, gas, factories=(factory,))
    assert isinstance(await allowing.settle(payment), Settled)
    await allowing.close()
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_the_chain_tells_what_became_of_a_payment(
    devnet: SharedDevnet, local: LocalFacilitator
) -> None:
    payer = devnet.new_account(usdc=2 * AMOUNT)
    payment = paid_by(payer, a_payee())
    reader = ChainReader(RpcNode(devnet.rpc_url, timeout=5))
    try:
        assert (await reader.fate(transfer_of(payment))).kind == "open"
        outcome = await local.settle(payment)
        assert isinstance(outcome, Settled)
        fate = await reader.fate(transfer_of(payment))
        assert (fate.kind, fate.tx_hash) == ("moved", outcome.tx_hash)
        later = transfer_of(payment, not_before=time.time() + 3600)
        assert (await reader.fate(later)).kind == "void"  # it paid for something earlier
        for wrong in ({"amount": AMOUNT + 1}, {"pay_to": a_payee().lower()}):
            assert (await reader.fate(transfer_of(payment, **wrong))).kind == "void"
        await reader.node.check(84532)
        with pytest.raises(ChainUnavailable, match="84532"):
            await reader.node.check(8453)
    finally:
        await reader.node.close()


async def test_a_cancelled_authorization_is_void(devnet: SharedDevnet) -> None:
    payer = devnet.new_account(wei=ETHER)
    payment = paid_by(payer, a_payee())
    nonce = payment.document["payload"]["authorization"]["nonce"]
    domain = {
        "name": "USDC",
        "version": "2",
        "chainId": USDC.chain_id,
        "verifyingContract": USDC.address,
    }
    types = {
        "CancelAuthorization": [
            {"name": "authorizer", "type": "address"},
            {"name": "nonce", "type": "bytes32"},
        ]
    }
    signed = payer.sign_typed_data(domain, types, {"authorizer": payer.address, "nonce": nonce})
    arguments = encode(
        ["address", "bytes32", "uint8", "bytes32", "bytes32"],
        [
            payer.address,
            bytes.fromhex(nonce[2:]),
            signed.v,
            signed.r.to_bytes(32, "big"),
            signed.s.to_bytes(32, "big"),
        ],
    )
    call = selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")
    devnet.call(devnet.chain.send, USDC.address, call + arguments.hex())
    reader = ChainReader(RpcNode(devnet.rpc_url, timeout=5))
    assert (await reader.fate(transfer_of(payment))).kind == "void"
    await reader.node.close()


async def test_an_expired_authorization_is_void_once_the_chain_says_so(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        payment = paid_by(Account.create(), a_payee(), valid_for=100)
        reader = ChainReader(RpcNode(net.rpc_url, timeout=5))
        assert (await reader.fate(transfer_of(payment))).kind == "open"
        await net.chain.set_next_block_timestamp(int(time.time()) + 101)
        await net.chain.mine()
        assert (await reader.fate(transfer_of(payment))).kind == "void"
        await reader.node.close()


async def test_a_transaction_nobody_mines_is_unknown_and_then_found(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        payer, gas, payee = Account.create(), Account.create(), a_payee()
        await net.chain.fund(payer.address, usdc=AMOUNT)
        await net.chain.fund(gas.address, wei=ETHER)
        local = facilitator_on(net.rpc_url, gas, wait=0.5)
        reader = ChainReader(RpcNode(net.rpc_url, timeout=5))
        await net.chain.set_automine(False)
        payment = paid_by(payer, payee)
        outcome = await local.settle(payment)
        assert isinstance(outcome, Unknown)
        assert (await reader.fate(transfer_of(payment), outcome.tx_hash)).kind == "open"
        await net.chain.mine()
        assert (await reader.fate(transfer_of(payment))).kind == "moved"
        await local.close()
        await reader.node.close()


async def test_a_silent_node_is_unavailable() -> None:
    with refusing_url() as url:
        reader = ChainReader(RpcNode(url, timeout=1))
        with pytest.raises(ChainUnavailable):
            await reader.fate(transfer_of(paid_by(Account.create(), a_payee())))
        await reader.node.close()


def selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()


async def test_a_node_that_answers_again_by_the_time_it_is_asked_about_was_silent_all_the_same(
    devnet: SharedDevnet,
) -> None:
    payer, payee = devnet.new_account(usdc=AMOUNT), devnet.new_account()
    payment = paid_by(payer, payee.address)
    with rpc_proxy(devnet.rpc_url) as proxy:
        facilitator = facilitator_on(proxy.url, devnet.new_account(wei=10 * ETHER))
        proxy.loses.add("eth_call")
        with pytest.raises(FacilitatorUnavailable):
            await facilitator.verify(payment)
        with pytest.raises(FacilitatorUnavailable):
            await facilitator.settle(payment)
        proxy.loses.clear()
        assert isinstance(await facilitator.settle(payment), Settled)
        await facilitator.close()
    assert devnet.usdc_balance(payee.address) == AMOUNT

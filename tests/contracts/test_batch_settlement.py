"""The contracts of batch-settlement on a real chain: rule by rule, then with the SDK's parties."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3 import Web3
from web3.exceptions import ContractCustomError, ContractLogicError
from x402 import x402ClientSync, x402FacilitatorSync, x402ResourceServerSync
from x402.mechanisms.evm.batch_settlement import constants
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.authorizer_signer import (
    LocalAuthorizerSigner,
    sign_claim_batch,
    sign_refund,
)
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme as ClientScheme
from x402.mechanisms.evm.batch_settlement.client.eip3009 import (
    create_batch_settlement_eip3009_deposit_payload,
)
from x402.mechanisms.evm.batch_settlement.client.voucher import sign_voucher
from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.facilitator.claim import build_voucher_claim_args
from x402.mechanisms.evm.batch_settlement.facilitator.deposit_eip3009 import (
    build_eip3009_deposit_collector_data,
)
from x402.mechanisms.evm.batch_settlement.facilitator.utils import to_contract_channel_config
from x402.mechanisms.evm.batch_settlement.server import BatchSettlementEvmScheme as ServerScheme
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig, VoucherClaim
from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import (
    AssetAmount,
    PaymentPayload,
    PaymentRequirements,
    PaymentResponseContext,
    ResourceConfig,
    SettleResponse,
)

from tests.support.chain import ETHER, SharedDevnet
from xbyte_live.devnet.accounts import (
    BATCH_SETTLEMENT_ADDRESS,
    ERC3009_COLLECTOR_ADDRESS,
    FAUCET,
    USDC_ADDRESS,
)
from xbyte_live.devnet.artifacts import load_artifact
from xbyte_live.devnet.chain import Devnet
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender

ZERO = "0x" + "00" * 20
DAY = 86_400
MOST = 2**128 - 1


class Settlement:
    """The settlement contract through web3, called from whatever account."""

    def __init__(self, devnet: SharedDevnet) -> None:
        self.devnet = devnet
        self.network = devnet.network
        self.web3 = Web3(Web3.HTTPProvider(devnet.rpc_url))
        self.contract = self.web3.eth.contract(
            address=Web3.to_checksum_address(BATCH_SETTLEMENT_ADDRESS),
            abi=load_artifact("BatchSettlement").abi,
        )

    def read(self, name: str, *args: Any, sender: str = FAUCET.address) -> Any:
        """Try a call out, in the last block; gives what it returns."""
        return self.contract.functions[name](*args).call({"from": Web3.to_checksum_address(sender)})

    def send(self, name: str, *args: Any, sender: str = FAUCET.address) -> list[tuple[Any, ...]]:
        """Send a call, which must succeed; gives the contract's events, the name first."""
        hash_ = self.contract.functions[name](*args).transact(
            {"from": Web3.to_checksum_address(sender)}
        )
        receipt = self.web3.eth.wait_for_transaction_receipt(hash_)
        assert receipt["status"] == 1
        names = (entry["name"] for entry in self.contract.abi if entry["type"] == "event")
        kinds = {str(kind.topic): kind for kind in (self.contract.events[name]() for name in names)}
        found = []
        for log in receipt["logs"]:
            if log["address"] == self.contract.address:
                kind = kinds[log["topics"][0].to_0x_hex()]
                values = kind.process_log(log)["args"].values()
                plain = (tuple(v.values()) if isinstance(v, Mapping) else v for v in values)
                found.append((kind.event_name, *plain))
        return found

    def refuses(self, error: str, name: str, *args: Any, sender: str = FAUCET.address) -> None:
        """Assert that a call is refused with this error."""
        with pytest.raises(ContractCustomError) as caught:
            self.read(name, *args, sender=sender)
        assert caught.value.data == "0x" + keccak(text=f"{error}()")[:4].hex(), error

    def data(self, name: str, *args: Any) -> bytes:
        """The call data of a call."""
        return bytes.fromhex(self.contract.encode_abi(name, args).removeprefix("0x"))

    def advance(self, timestamp: int) -> None:
        """Mine a block of this time, which calls that are only tried out then see too."""
        self.devnet.call(self.devnet.chain.set_next_block_timestamp, timestamp)
        self.devnet.call(self.devnet.chain.mine)


class WalletSigner(EthAccountSigner):
    """An owner's key that signs for a wallet."""

    def __init__(self, owner: LocalAccount, wallet: str) -> None:
        super().__init__(owner)
        self._wallet = wallet

    @property
    def address(self) -> str:
        return self._wallet


class Channel:
    """A channel of its own accounts, with what its two sides sign, made by the SDK."""

    def __init__(self, settlement: Settlement, **changes: Any) -> None:
        self._settlement = settlement
        new = settlement.devnet.new_account
        self.payer, self.voucher_key = new(usdc=10_000, wei=ETHER), new(wei=ETHER)
        self.receiver, self.authorizer = new(wei=ETHER), new(wei=ETHER)
        fields: dict[str, Any] = {
            "payer": self.payer.address,
            "payer_authorizer": self.voucher_key.address,
            "receiver": self.receiver.address,
            "receiver_authorizer": self.authorizer.address,
            "token": USDC_ADDRESS,
            "withdraw_delay": DAY,
            "salt": "0x" + secrets.token_hex(32),
        }
        self.config = ChannelConfig(**(fields | changes))
        self.tuple = to_contract_channel_config(self.config)
        self.id = compute_channel_id(self.config, settlement.network)

    @property
    def state(self) -> tuple[int, int]:
        """Its balance and what was claimed of it."""
        balance, claimed = self._settlement.read("channels", self.id)
        return balance, claimed

    @property
    def pending(self) -> int:
        """The amount of its pending withdrawal."""
        return int(self._settlement.read("pendingWithdrawals", self.id)[0])

    def deposit_args(self, amount: int) -> tuple[Any, ...]:
        """The arguments of ``deposit``, with an authorization that the payer signed."""
        usdc = self._settlement.devnet.asset
        requirements = PaymentRequirements(
            scheme=constants.SCHEME_BATCH_SETTLEMENT,
            network=usdc.network,
            asset=usdc.address,
            amount="1",
            pay_to=self.config.receiver,
            max_timeout_seconds=10**9,
            extra={"name": usdc.name, "version": usdc.version},
        )
        payload = create_batch_settlement_eip3009_deposit_payload(
            WalletSigner(self.payer, self.config.payer), requirements, self.config, amount, 1
        )
        data = build_eip3009_deposit_collector_data(payload)
        return self.tuple, amount, ERC3009_COLLECTOR_ADDRESS, data

    def deposit(self, amount: int) -> "Channel":
        """Deposit into it."""
        self._settlement.send("deposit", *self.deposit_args(amount))
        return self

    def voucher(
        self, ceiling: int, total: int | None = None, signer: LocalAccount | None = None
    ) -> VoucherClaim:
        """A claim of ``total`` with a voucher up to ``ceiling``."""
        key = EthAccountSigner(signer or self.voucher_key)
        signed = sign_voucher(key, self.id, ceiling, self._settlement.network)
        claimed = ceiling if total is None else total
        return VoucherClaim(self.config, str(ceiling), signed.signature, str(claimed))

    def claim(self, ceiling: int, total: int | None = None) -> list[tuple[Any, ...]]:
        """Claim from it, as the receiver."""
        claims = rows(self.voucher(ceiling, total))
        return self._settlement.send("claim", claims, sender=self.receiver.address)

    def refund_args(self, amount: int, nonce: int = 0) -> tuple[Any, ...]:
        """The arguments of ``refundWithSignature``."""
        signer = LocalAuthorizerSigner(self.authorizer)
        signature = sign_refund(signer, self.id, amount, nonce, self._settlement.network)
        return self.tuple, amount, nonce, unhex(signature)

    def claim_args(
        self, *claims: VoucherClaim, signer: LocalAccount | None = None
    ) -> tuple[Any, ...]:
        """The arguments of ``claimWithSignature``."""
        authorizer = LocalAuthorizerSigner(signer or self.authorizer)
        signature = sign_claim_batch(authorizer, list(claims), self._settlement.network)
        return rows(*claims), unhex(signature)


def rows(*claims: VoucherClaim) -> list[Any]:
    return build_voucher_claim_args(list(claims))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDevnet]:
    """A chain of this module's own, for its clock runs ahead; any account may send."""
    net = Devnet(tmp_path_factory.mktemp("moving"))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(net):
        portal.call(net.chain.rpc, "anvil_autoImpersonateAccount", True)
        yield SharedDevnet(net.rpc_url, net.network, net.asset, net.chain, portal)


@pytest.fixture(scope="module")
def settlement(moving: SharedDevnet) -> Settlement:
    return Settlement(moving)


@pytest.fixture
def channel(settlement: Settlement) -> Channel:
    return Channel(settlement)


# Calls and digests


def _shape(fields: Sequence[dict[str, Any]]) -> list[Any]:
    return [(f["name"], f["type"], _shape(f.get("components", ()))) for f in fields]


def test_it_has_every_call_and_event_the_sdk_knows() -> None:
    ours = {entry.get("name"): entry for entry in load_artifact("BatchSettlement").abi}

    for entry in BATCH_SETTLEMENT_ABI:
        mine = ours[entry["name"]]
        assert _shape(mine["inputs"]) == _shape(entry["inputs"])
        if entry["type"] == "event":
            indexed = [[i["indexed"] for i in e["inputs"]] for e in (mine, entry)]
            assert indexed[0] == indexed[1]
        else:
            assert mine["stateMutability"] == entry["stateMutability"]
            assert _shape(mine["outputs"]) == _shape(entry["outputs"])


def test_the_contracts_are_where_the_sdk_looks_for_them() -> None:
    assert constants.BATCH_SETTLEMENT_ADDRESS == BATCH_SETTLEMENT_ADDRESS
    assert constants.ERC3009_DEPOSIT_COLLECTOR_ADDRESS == ERC3009_COLLECTOR_ADDRESS


def test_its_digests_are_those_the_sdk_signs(settlement: Settlement, channel: Channel) -> None:
    def signer(digest: bytes, signature: str | bytes) -> str:
        return str(Account._recover_hash(digest, signature=signature))

    other = Channel(settlement)
    voucher, second = channel.voucher(7, 5), other.voucher(MOST, 3)
    claims, claim_signature = channel.claim_args(voucher, second)
    *_, refund_signature = channel.refund_args(9, 4)

    assert "0x" + settlement.read("getChannelId", channel.tuple).hex() == channel.id
    digest = settlement.read("getVoucherDigest", channel.id, 7)
    assert signer(digest, voucher.signature) == channel.voucher_key.address
    digest = settlement.read("getRefundDigest", channel.id, 4, 9)
    assert signer(digest, refund_signature) == channel.authorizer.address
    digest = settlement.read("getClaimBatchDigest", claims)
    assert signer(digest, claim_signature) == channel.authorizer.address


async def test_a_chain_of_another_id_has_other_channels(tmp_path: Path, channel: Channel) -> None:
    selector = keccak(
        text="getChannelId((address,address,address,address,address,uint40,bytes32))"
    )[:4]
    types = ["address"] * 5 + ["uint40", "bytes32"]
    call = {"to": BATCH_SETTLEMENT_ADDRESS, "data": "0x" + selector.hex()}
    call["data"] += encode(types, channel.tuple).hex()

    async with Devnet(tmp_path, chain_id=31337) as net:
        answer = await net.chain.rpc("eth_call", call, "latest")

    assert answer == compute_channel_id(channel.config, 31337) != channel.id


async def test_an_older_chain_gets_the_contracts_and_keeps_what_they_stored(
    tmp_path: Path,
) -> None:
    contracts = (BATCH_SETTLEMENT_ADDRESS, ERC3009_COLLECTOR_ADDRESS)
    slot = "0x" + "11" * 32
    async with Devnet(tmp_path) as net:
        for address in contracts:
            await net.chain.set_code(address, "0x")
            await net.chain.rpc("anvil_setStorageAt", address, "0x5", slot)

    async with Devnet(tmp_path) as net:
        for address in contracts:
            assert len(await net.chain.rpc("eth_getCode", address, "latest")) > 1000
            assert await net.chain.rpc("eth_getStorageAt", address, "0x5", "latest") == slot


# Deposits


def test_deposits_open_a_channel_and_add_to_it(settlement: Settlement, channel: Channel) -> None:
    sender = channel.receiver.address
    held = settlement.devnet.usdc_balance(BATCH_SETTLEMENT_ADDRESS)
    channel_id = unhex(channel.id)

    first = settlement.send("deposit", *channel.deposit_args(100), sender=sender)
    second = settlement.send("deposit", *channel.deposit_args(20))

    config = (*channel.tuple,)
    assert first == [
        ("ChannelCreated", channel_id, config),
        ("Deposited", channel_id, sender, 100, 100),
    ]
    assert second == [("Deposited", channel_id, FAUCET.address, 20, 120)]
    assert channel.state == (120, 0)
    assert settlement.devnet.usdc_balance(BATCH_SETTLEMENT_ADDRESS) == held + 120
    assert settlement.devnet.usdc_balance(channel.payer.address) == 10_000 - 120
    assert settlement.devnet.usdc_balance(ERC3009_COLLECTOR_ADDRESS) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"payer": ZERO}, "InvalidChannel"),
        ({"receiver": ZERO}, "InvalidChannel"),
        ({"receiver_authorizer": ZERO}, "InvalidChannel"),
        ({"token": ZERO}, "InvalidChannel"),
        ({"withdraw_delay": constants.MIN_WITHDRAW_DELAY - 1}, "WithdrawDelayOutOfRange"),
        ({"withdraw_delay": constants.MAX_WITHDRAW_DELAY + 1}, "WithdrawDelayOutOfRange"),
    ],
)
def test_a_config_that_makes_no_channel(
    settlement: Settlement, change: dict[str, Any], error: str
) -> None:
    wrong = Channel(settlement, **change)

    settlement.refuses(error, "deposit", *wrong.deposit_args(1))


@pytest.mark.parametrize("delay", [constants.MIN_WITHDRAW_DELAY, constants.MAX_WITHDRAW_DELAY])
def test_the_least_and_the_longest_delay(settlement: Settlement, delay: int) -> None:
    assert Channel(settlement, withdraw_delay=delay).deposit(1).state == (1, 0)


def test_a_deposit_is_of_something_and_by_somebody(
    settlement: Settlement, channel: Channel
) -> None:
    config, amount, _, data = channel.deposit_args(1)

    settlement.refuses("ZeroDeposit", "deposit", *channel.deposit_args(0))
    settlement.refuses("InvalidCollector", "deposit", config, amount, ZERO, data)


def _calling(target: str, data: bytes, *, then: str) -> str:
    """Runtime code that calls ``target`` (an opcode or an address), then ``stops`` or reverts
    with what it got.
    """
    pushed = "73" + target.removeprefix("0x") if target.startswith("0x") else "33"
    ending = {"stop": "00", "revert": "3d5f5f3e3d5ffd"}[then]
    call = f"5f5f61{len(data):04x}5f5f{pushed}5af1{ending}"
    start = 7 + len(call) // 2  # after the copying of the call data, itself 7 bytes
    return f"0x61{len(data):04x}60{start:02x}5f39{call}{data.hex()}"


@pytest.mark.parametrize(("brought", "good"), [(0, False), (99, False), (101, False), (100, True)])
def test_a_collector_must_bring_the_exact_amount(
    settlement: Settlement, channel: Channel, brought: int, good: bool
) -> None:
    mint = keccak(text="mint(address,uint256)")[:4]
    mint += encode(["address", "uint256"], [BATCH_SETTLEMENT_ADDRESS, brought])
    collector = Account.create().address
    code = _calling(USDC_ADDRESS, mint, then="stop")
    settlement.devnet.call(settlement.devnet.chain.set_code, collector, code)

    if good:
        settlement.send("deposit", channel.tuple, 100, collector, b"")
        assert channel.state == (100, 0)
    else:
        args = (channel.tuple, 100, collector, b"")
        settlement.refuses("DepositCollectionFailed", "deposit", *args)


def test_a_collector_may_not_call_back(settlement: Settlement, channel: Channel) -> None:
    other = Channel(settlement).deposit(100)
    calls = [
        settlement.data("settle", channel.config.receiver, USDC_ADDRESS),
        settlement.data("deposit", *other.deposit_args(5)),
        settlement.data("claimWithSignature", *other.claim_args(other.voucher(5))),
        settlement.data("refundWithSignature", *other.refund_args(5)),
    ]
    for data in calls:
        collector = Account.create().address
        code = _calling("caller", data, then="revert")
        settlement.devnet.call(settlement.devnet.chain.set_code, collector, code)

        args = (channel.tuple, 100, collector, b"")
        settlement.refuses("ReentrancyGuardReentrantCall", "deposit", *args)


def test_a_deposits_authorization_is_for_one_channel_amount_and_time(
    settlement: Settlement, channel: Channel
) -> None:
    other = Channel(settlement, payer=channel.payer.address)
    config, amount, collector, data = channel.deposit_args(50)
    for args in ((other.tuple, amount), (config, amount + 1)):
        with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
            settlement.read("deposit", *args, collector, data)

    settlement.send("deposit", config, amount, collector, data)

    with pytest.raises(ContractLogicError, match="FiatTokenV2: authorization is used or canceled"):
        settlement.read("deposit", config, amount, collector, data)


def test_only_the_settlement_contract_has_the_collector_work(
    settlement: Settlement, channel: Channel
) -> None:
    collector = settlement.web3.eth.contract(
        address=Web3.to_checksum_address(ERC3009_COLLECTOR_ADDRESS),
        abi=load_artifact("ERC3009DepositCollector").abi,
    )
    *_, data = channel.deposit_args(50)
    collect = collector.functions.collect(
        channel.payer.address, USDC_ADDRESS, 50, unhex(channel.id), data
    )

    with pytest.raises(ContractCustomError) as caught:
        collect.call({"from": to_checksum_address(FAUCET.address)})

    assert caught.value.data == "0x" + keccak(text="OnlySettlement()")[:4].hex()
    assert collector.functions.SETTLEMENT().call() == BATCH_SETTLEMENT_ADDRESS


# Claims


def test_claims_go_to_the_receiver(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100)
    receiver, authorizer = channel.receiver.address, channel.authorizer.address
    channel_id = unhex(channel.id)

    first = settlement.send("claim", rows(channel.voucher(60, 30)), sender=receiver)
    second = settlement.send("claim", rows(channel.voucher(100)), sender=authorizer)

    assert first == [("Claimed", channel_id, receiver, 30, 30)]
    assert second == [("Claimed", channel_id, authorizer, 70, 100)]
    assert channel.state == (100, 100)
    assert settlement.read("receivers", receiver, USDC_ADDRESS) == [100, 0]
    assert settlement.devnet.usdc_balance(receiver) == 0


def test_only_the_receivers_side_claims(settlement: Settlement, channel: Channel) -> None:
    other = Channel(settlement).deposit(100)
    channel.deposit(100)
    mine, others = channel.voucher(5), other.voucher(5)

    for sender in (channel.payer, channel.voucher_key, other.receiver):
        settlement.refuses("NotAuthorizedToClaim", "claim", rows(mine), sender=sender.address)
    settlement.refuses(
        "NotAuthorizedToClaim", "claim", rows(mine, others), sender=channel.receiver.address
    )
    settlement.refuses("EmptyBatch", "claim", [])
    settlement.refuses("EmptyBatch", "claimWithSignature", [], b"")


def test_anyone_may_send_what_the_authorizer_signed(
    settlement: Settlement, channel: Channel
) -> None:
    other = Channel(settlement, receiver_authorizer=channel.authorizer.address).deposit(100)
    channel.deposit(100)
    batch = (channel.voucher(60, 30), other.voucher(7))

    done = settlement.send("claimWithSignature", *channel.claim_args(*batch))

    assert done == [
        ("Claimed", unhex(channel.id), FAUCET.address, 30, 30),
        ("Claimed", unhex(other.id), FAUCET.address, 7, 7),
    ]
    assert settlement.read("receivers", channel.receiver.address, USDC_ADDRESS) == [30, 0]
    assert settlement.read("receivers", other.receiver.address, USDC_ADDRESS) == [7, 0]


def test_the_authorizers_signature_is_for_just_this_batch(
    settlement: Settlement, channel: Channel
) -> None:
    channel.deposit(100)
    same = Channel(settlement, receiver_authorizer=channel.authorizer.address).deposit(100)
    strange = Channel(settlement).deposit(100)
    one, two = channel.voucher(60, 30), same.voucher(60, 30)
    claims, signature = channel.claim_args(one, two)

    def refuses(error: str, *batch: Any) -> None:
        settlement.refuses(error, "claimWithSignature", *batch)

    refuses("InvalidSignature", claims[:1], signature)
    refuses("InvalidSignature", claims[::-1], signature)
    refuses("InvalidSignature", rows(one, same.voucher(60, 31)), signature)
    refuses("InvalidSignature", claims, b"")
    refuses("InvalidSignature", claims, signature[:64])
    for key in (channel.receiver, channel.voucher_key):
        refuses("InvalidSignature", *channel.claim_args(one, two, signer=key))
    refuses("NotReceiverAuthorizer", *channel.claim_args(one, strange.voucher(5)))


def test_a_row_keeps_within_the_voucher_and_the_balance(
    settlement: Settlement, channel: Channel
) -> None:
    channel.deposit(100)
    receiver = channel.receiver.address

    def refuses(error: str, *claims: VoucherClaim) -> None:
        settlement.refuses(error, "claim", rows(*claims), sender=receiver)

    refuses("ClaimExceedsCeiling", channel.voucher(60, 61))
    refuses("ClaimExceedsBalance", channel.voucher(101))
    for key in (channel.payer, channel.receiver, channel.authorizer):
        refuses("InvalidSignature", channel.voucher(60, signer=key))
    forged = channel.voucher(60)
    forged.max_claimable_amount = "61"
    refuses("InvalidSignature", forged)
    forged.signature = "0x"
    refuses("InvalidSignature", forged)
    refuses("ClaimExceedsBalance", channel.voucher(50), channel.voucher(101))

    settlement.send("claim", rows(channel.voucher(MOST, 100)), sender=receiver)
    assert channel.state == (100, 100)


def test_a_row_that_is_no_news_is_passed_over(settlement: Settlement, channel: Channel) -> None:
    other = Channel(settlement, receiver_authorizer=channel.authorizer.address).deposit(100)
    channel.deposit(100)
    older, newer = channel.voucher(30), channel.voucher(60)
    unsigned = channel.voucher(10, 20, signer=other.payer)  # not even looked at
    sender = channel.authorizer.address

    done = settlement.send("claim", rows(newer, older, unsigned, other.voucher(7)), sender=sender)

    assert done == [
        ("Claimed", unhex(channel.id), sender, 60, 60),
        ("Claimed", unhex(other.id), sender, 7, 7),
    ]
    again = channel.claim_args(newer, other.voucher(9), older)
    assert settlement.send("claimWithSignature", *again) == [
        ("Claimed", unhex(other.id), FAUCET.address, 2, 9)
    ]
    assert settlement.send("claimWithSignature", *again) == []
    assert (channel.state, other.state) == ((100, 60), (100, 9))


def test_without_an_authorizer_the_payer_signs_its_vouchers(settlement: Settlement) -> None:
    channel = Channel(settlement, payer_authorizer=ZERO).deposit(100)
    receiver = channel.receiver.address

    settlement.refuses("InvalidSignature", "claim", rows(channel.voucher(5)), sender=receiver)
    settlement.send("claim", rows(channel.voucher(5, signer=channel.payer)), sender=receiver)

    assert channel.state == (100, 5)


def test_a_payer_that_is_a_contract_signs_by_its_own_word(settlement: Settlement) -> None:
    owner: LocalAccount = Account.create()
    code = encode(["address"], [owner.address])
    wallet = to_checksum_address(settlement.devnet.deploy("TestWallet", code))
    settlement.devnet.fund(wallet, usdc=100)
    channel = Channel(settlement, payer=wallet, payer_authorizer=ZERO)
    channel.payer = owner  # who signs for it
    receiver = channel.receiver.address
    channel.deposit(100)

    settlement.refuses("InvalidSignature", "claim", rows(channel.voucher(5)), sender=receiver)
    settlement.send("claim", rows(channel.voucher(5, signer=owner)), sender=receiver)
    settlement.send("refund", channel.tuple, 95, sender=receiver)

    assert channel.state == (5, 5)
    assert settlement.devnet.usdc_balance(wallet) == 95


def test_an_authorizer_of_vouchers_is_never_a_contract(settlement: Settlement) -> None:
    owner: LocalAccount = Account.create()
    code = encode(["address"], [owner.address])
    wallet = to_checksum_address(settlement.devnet.deploy("TestWallet", code))
    channel = Channel(settlement, payer_authorizer=wallet).deposit(100)

    claims = rows(channel.voucher(5, signer=owner))

    settlement.refuses("InvalidSignature", "claim", claims, sender=channel.receiver.address)


def test_settling_pays_all_that_was_claimed_once(settlement: Settlement, channel: Channel) -> None:
    receiver = channel.receiver.address
    other = Channel(settlement, receiver=receiver).deposit(50)
    other.receiver = channel.receiver
    channel.deposit(100).claim(30)
    other.claim(7)

    done = settlement.send("settle", receiver, USDC_ADDRESS)

    assert done == [("Settled", receiver, USDC_ADDRESS, FAUCET.address, 37)]
    assert settlement.send("settle", receiver, USDC_ADDRESS) == []
    assert settlement.devnet.usdc_balance(receiver) == 37
    channel.claim(31)
    settlement.send("settle", receiver, USDC_ADDRESS)
    assert settlement.read("receivers", receiver, USDC_ADDRESS) == [38, 38]
    assert settlement.devnet.usdc_balance(receiver) == 38


# Withdrawals


def test_a_payer_left_alone_takes_the_rest_back(settlement: Settlement, channel: Channel) -> None:
    payer, channel_id = channel.payer.address, unhex(channel.id)
    channel.deposit(100).claim(40)

    [begun] = settlement.send("initiateWithdraw", channel.tuple, 60, sender=payer)
    amount, initiated_at = settlement.read("pendingWithdrawals", channel.id)
    assert begun == ("WithdrawInitiated", channel_id, 60, initiated_at + DAY)
    assert amount == 60

    settlement.advance(initiated_at + DAY - 1)
    settlement.refuses("WithdrawDelayNotElapsed", "finalizeWithdraw", channel.tuple, sender=payer)
    settlement.advance(initiated_at + DAY)
    done = settlement.send("finalizeWithdraw", channel.tuple, sender=payer)

    assert done == [("WithdrawFinalized", channel_id, payer, 60)]
    assert channel.state == (40, 40)
    assert settlement.devnet.usdc_balance(payer) == 10_000 - 40
    settlement.refuses("WithdrawalNotPending", "finalizeWithdraw", channel.tuple, sender=payer)


def test_who_withdraws_and_what(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100).claim(40)

    def refuses(error: str, amount: int, sender: LocalAccount = channel.payer) -> None:
        args = (channel.tuple, amount)
        settlement.refuses(error, "initiateWithdraw", *args, sender=sender.address)

    for stranger in (channel.receiver, channel.authorizer):
        refuses("InvalidChannel", 1, stranger)
        settlement.refuses(
            "NotAuthorizedToFinalizeWithdraw",
            "finalizeWithdraw",
            channel.tuple,
            sender=stranger.address,
        )
    refuses("NothingToWithdraw", 0)
    refuses("WithdrawAmountExceedsAvailable", 61)
    settlement.refuses(
        "WithdrawalNotPending", "finalizeWithdraw", channel.tuple, sender=channel.payer.address
    )
    settlement.send("initiateWithdraw", channel.tuple, 10, sender=channel.voucher_key.address)
    refuses("WithdrawalAlreadyPending", 10)


def test_claims_come_before_a_pending_withdrawal(settlement: Settlement, channel: Channel) -> None:
    payer, key = channel.payer.address, channel.voucher_key.address
    channel.deposit(100)
    [begun] = settlement.send("initiateWithdraw", channel.tuple, 100, sender=payer)
    channel.claim(30)

    settlement.advance(begun[-1])
    channel.claim(35)  # late, yet before the end
    done = settlement.send("finalizeWithdraw", channel.tuple, sender=key)

    assert done == [("WithdrawFinalized", unhex(channel.id), key, 65)]
    assert channel.state == (35, 35)
    assert settlement.devnet.usdc_balance(payer) == 10_000 - 35
    settlement.refuses(
        "ClaimExceedsBalance",
        "claim",
        rows(channel.voucher(36)),
        sender=channel.receiver.address,
    )
    settlement.send("settle", channel.receiver.address, USDC_ADDRESS)
    assert settlement.devnet.usdc_balance(channel.receiver.address) == 35


def test_a_channel_emptied_unused_is_closed_and_may_open_again(
    settlement: Settlement, channel: Channel
) -> None:
    payer, channel_id = channel.payer.address, unhex(channel.id)
    channel.deposit(100)
    [begun] = settlement.send("initiateWithdraw", channel.tuple, 100, sender=payer)
    settlement.advance(begun[-1])

    done = settlement.send("finalizeWithdraw", channel.tuple, sender=payer)
    again = settlement.send("deposit", *channel.deposit_args(9))

    assert done == [
        ("WithdrawFinalized", channel_id, payer, 100),
        ("ChannelClosed", channel_id, (*channel.tuple,)),
    ]
    assert [name for name, *_ in again] == ["ChannelCreated", "Deposited"]


# Refunds


def test_the_receivers_side_refunds_at_once(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100).claim(40)
    channel_id = unhex(channel.id)
    receiver, authorizer = channel.receiver.address, channel.authorizer.address

    first = settlement.send("refund", channel.tuple, 10, sender=receiver)
    second = settlement.send("refund", channel.tuple, 10, sender=authorizer)
    third = settlement.send("refundWithSignature", *channel.refund_args(MOST, nonce=2))

    assert first == [("Refunded", channel_id, receiver, 10)]
    assert second == [("Refunded", channel_id, authorizer, 10)]
    assert third == [("Refunded", channel_id, FAUCET.address, 40)]  # no more than is there
    assert channel.state == (40, 40)
    assert settlement.devnet.usdc_balance(channel.payer.address) == 10_000 - 40
    assert settlement.read("refundNonce", channel.id) == 3
    assert settlement.send("refund", channel.tuple, 1, sender=receiver) == []
    assert settlement.read("refundNonce", channel.id) == 4


def test_who_refunds_and_what(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100)
    config, amount, nonce, signature = channel.refund_args(10)

    def refuses(error: str, *args: Any) -> None:
        settlement.refuses(error, "refundWithSignature", *args)

    for stranger in (channel.payer, channel.voucher_key):
        settlement.refuses("NotAuthorizedToRefund", "refund", config, 1, sender=stranger.address)
    settlement.refuses("ZeroRefund", "refund", config, 0, sender=channel.receiver.address)
    refuses("ZeroRefund", *channel.refund_args(0))
    refuses("InvalidRefundNonce", *channel.refund_args(10, nonce=1))
    refuses("InvalidSignature", config, amount + 1, nonce, signature)
    refuses("InvalidSignature", Channel(settlement).tuple, amount, nonce, signature)
    settlement.send("refundWithSignature", config, amount, nonce, signature)
    refuses("InvalidRefundNonce", config, amount, nonce, signature)
    refuses("InvalidSignature", config, amount, nonce + 1, signature)


def test_a_refund_shortens_a_pending_withdrawal(settlement: Settlement, channel: Channel) -> None:
    payer, receiver = channel.payer.address, channel.receiver.address
    channel.deposit(100)
    [begun] = settlement.send("initiateWithdraw", channel.tuple, 50, sender=payer)

    settlement.send("refund", channel.tuple, 20, sender=receiver)
    assert settlement.read("pendingWithdrawals", channel.id) == [30, begun[-1] - DAY]

    settlement.send("refund", channel.tuple, 30, sender=receiver)
    assert settlement.read("pendingWithdrawals", channel.id) == [0, 0]
    settlement.refuses("WithdrawalNotPending", "finalizeWithdraw", channel.tuple, sender=payer)
    settlement.send("initiateWithdraw", channel.tuple, 50, sender=payer)

    done = settlement.send("refund", channel.tuple, 1000, sender=receiver)

    assert [name for name, *_ in done] == ["Refunded", "ChannelClosed"]
    assert (channel.state, channel.pending) == ((0, 0), 0)
    assert settlement.devnet.usdc_balance(payer) == 10_000


# Several calls at once


def test_a_claim_and_a_refund_in_one_transaction(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100)
    claim = settlement.data("claimWithSignature", *channel.claim_args(channel.voucher(40)))
    refund = settlement.data("refundWithSignature", *channel.refund_args(60))
    settle = settlement.data("settle", channel.receiver.address, USDC_ADDRESS)

    done = settlement.send("multicall", [claim, refund, settle])

    assert [(name, values[-1]) for name, *values in done] == [
        ("Claimed", 40),
        ("Refunded", 60),
        ("Settled", 40),
    ]
    assert channel.state == (40, 40)
    assert settlement.devnet.usdc_balance(channel.receiver.address) == 40
    assert settlement.devnet.usdc_balance(channel.payer.address) == 10_000 - 40


def test_one_call_that_fails_undoes_them_all(settlement: Settlement, channel: Channel) -> None:
    channel.deposit(100)
    claim = settlement.data("claim", rows(channel.voucher(40)))
    refund = settlement.data("refundWithSignature", *channel.refund_args(60, nonce=1))
    sender = channel.receiver.address

    settlement.refuses("InvalidRefundNonce", "multicall", [claim, refund], sender=sender)
    settlement.refuses("NotAuthorizedToClaim", "multicall", [claim])

    settlement.send("multicall", [claim], sender=sender)  # whoever sends it is whoever calls
    assert channel.state == (100, 40)


# The SDK's own parties


class Shop:
    """A server, its facilitator and a client, all of them the SDK's, without HTTP between them."""

    def __init__(self, devnet: SharedDevnet, price: int) -> None:
        self.payer = devnet.new_account(usdc=10_000)
        self.payee: LocalAccount = Account.create()
        gas = devnet.new_account(wei=10 * ETHER)
        node = RpcNode(devnet.rpc_url, timeout=20)
        sender = TransactionSender("0x" + gas.key.hex(), node, confirmation_timeout=10)
        authorizer: LocalAccount = Account.create()
        self.facilitator = x402FacilitatorSync()
        self.facilitator.register(
            [devnet.network],
            BatchSettlementEvmFacilitator(sender, LocalAuthorizerSigner(authorizer)),
        )
        self.scheme = ServerScheme(self.payee.address)
        self.server = x402ResourceServerSync(self.facilitator)
        scheme: Any = self.scheme  # its types are not quite those of its own protocol
        self.server.register(devnet.network, scheme)
        self.server.initialize()
        self.client = x402ClientSync()
        self.client.register(devnet.network, ClientScheme(EthAccountSigner(self.payer)))
        self.manager = self.scheme.create_channel_manager_sync(self.facilitator, devnet.network)
        [self.requirements] = self.server.build_payment_requirements(
            ResourceConfig(
                scheme=constants.SCHEME_BATCH_SETTLEMENT,
                pay_to=self.payee.address,
                price=AssetAmount(amount=str(price), asset=USDC_ADDRESS),
                network=devnet.network,
            )
        )

    def buy(self) -> tuple[str, SettleResponse]:
        """Pay once; gives the kind of the payment and what became of it."""
        required = self.server.create_payment_required_response([self.requirements])
        payment = self.client.create_payment_payload(required)
        assert isinstance(payment, PaymentPayload)
        verified = self.server.verify_payment(payment, self.requirements)
        assert verified.is_valid, verified.invalid_reason
        settled = self.server.settle_payment(payment, self.requirements)
        assert settled.success, settled.error_reason
        self.client.handle_payment_response(
            PaymentResponseContext(payment, self.requirements, settled)
        )
        return payment.payload["type"], settled


def test_the_sdks_parties_deposit_pay_claim_settle_and_refund(devnet: SharedDevnet) -> None:
    shop = Shop(devnet, price=100)
    settlement = Settlement(devnet)

    bought = [shop.buy() for _ in range(4)]

    assert [kind for kind, _ in bought] == ["deposit", "voucher", "voucher", "voucher"]
    [channel] = shop.scheme.get_storage().list()
    assert settlement.read("channels", channel.channel_id) == [1000, 0]
    assert devnet.usdc_balance(shop.payer.address) == 9_000
    shop.manager.claim_and_settle()
    assert settlement.read("channels", channel.channel_id) == [1000, 400]
    assert devnet.usdc_balance(shop.payee.address) == 400

    assert shop.buy()[0] == "voucher"
    shop.manager.refund()  # claims the last voucher in the same transaction
    shop.manager.settle()

    assert settlement.read("channels", channel.channel_id) == [500, 500]
    assert devnet.usdc_balance(shop.payee.address) == 500
    assert devnet.usdc_balance(shop.payer.address) == 9_500
    assert shop.scheme.get_storage().list() == []

import secrets
import time
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError
from web3.types import TxReceipt

from tests.support.chain import SharedDevnet
from xbyte_live.devnet.accounts import FAUCET, USDC_ADDRESS
from xbyte_live.devnet.artifacts import load_artifact

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FOREVER = 2**256 - 1
ZERO = "0x" + "00" * 20

AUTHORIZATION = (
    ("from", "address"), ("to", "address"), ("value", "uint256"),
    ("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32"),
)  # fmt: skip
FIELDS = {
    "TransferWithAuthorization": AUTHORIZATION,
    "ReceiveWithAuthorization": AUTHORIZATION,
    "CancelAuthorization": (("authorizer", "address"), ("nonce", "bytes32")),
    "Permit": (
        ("owner", "address"), ("spender", "address"), ("value", "uint256"),
        ("nonce", "uint256"), ("deadline", "uint256"),
    ),
}  # fmt: skip


class Token:
    """The test USDC through web3, as wallets and facilitators call it."""

    def __init__(self, web3: Web3, chain_id: int, address: str = USDC_ADDRESS) -> None:
        self.web3 = web3
        self.contract: Contract = web3.eth.contract(
            address=Web3.to_checksum_address(address), abi=load_artifact("TestUSDC").abi
        )
        self.domain = {
            "name": "USDC", "version": "2", "chainId": chain_id,
            "verifyingContract": self.contract.address,
        }  # fmt: skip

    def read(self, name: str, *args: Any) -> Any:
        return getattr(self.contract.functions, name)(*args).call()

    def write(self, signature: str, *args: Any, sender: str = FAUCET.address) -> TxReceipt:
        function = self.contract.get_function_by_signature(signature)
        receipt = self.web3.eth.wait_for_transaction_receipt(
            function(*args).transact({"from": Web3.to_checksum_address(sender)})
        )
        assert receipt["status"] == 1
        return receipt

    def sign(self, signer: LocalAccount, kind: str, *values: Any) -> bytes:
        message = dict(zip((name for name, _ in FIELDS[kind]), values, strict=True))
        types = {kind: [{"name": name, "type": type_} for name, type_ in FIELDS[kind]]}
        return bytes(signer.sign_typed_data(self.domain, types, message).signature)

    def submit(
        self, form: str, method: str, values: tuple[Any, ...], signature: bytes, **options: Any
    ) -> TxReceipt:
        """Call the overload ``form`` (``vrs`` or ``bytes``) of a method that takes a signature."""
        kind = method[0].upper() + method[1:]
        types = [type_ for name, type_ in FIELDS[kind] if (kind, name) != ("Permit", "nonce")]
        tail: tuple[Any, ...] = (signature,)
        if form == "vrs":
            tail = (signature[64], signature[:32], signature[32:64])
        types += ["uint8", "bytes32", "bytes32"] if form == "vrs" else ["bytes"]
        return self.write(f"{method}({','.join(types)})", *values, *tail, **options)

    def events(self, receipt: TxReceipt) -> list[tuple[str, dict[str, Any]]]:
        names = {
            keccak(text=f"{e['name']}({','.join(i['type'] for i in e['inputs'])})"): e["name"]
            for e in load_artifact("TestUSDC").abi
            if e["type"] == "event"
        }
        found = []
        for log in receipt["logs"]:
            name = names[bytes(log["topics"][0])]
            found.append((name, dict(self.contract.events[name]().process_log(log)["args"])))
        return found


@pytest.fixture(scope="module")
def token(devnet: SharedDevnet) -> Token:
    return Token(Web3(Web3.HTTPProvider(devnet.rpc_url)), devnet.asset.chain_id)


@pytest.fixture
def payer(devnet: SharedDevnet) -> LocalAccount:
    return devnet.new_account(usdc=1_000_000)


@pytest.fixture
def payee() -> str:
    return str(Account.create().address)


both_forms = pytest.mark.parametrize("form", ["vrs", "bytes"])


def authorization(
    payer: str, payee: str, value: int = 716, after: int = 0, before: int = FOREVER
) -> tuple[Any, ...]:
    return payer, payee, value, after, before, secrets.token_bytes(32)


def test_it_says_it_is_usdc_and_signs_as_circles(token: Token) -> None:
    says = [token.read(name) for name in ("name", "symbol", "version", "decimals")]

    assert says == ["USDC", "USDC", "2", 6]
    for kind, constant in {
        "TransferWithAuthorization": "TRANSFER_WITH_AUTHORIZATION_TYPEHASH",
        "ReceiveWithAuthorization": "RECEIVE_WITH_AUTHORIZATION_TYPEHASH",
        "CancelAuthorization": "CANCEL_AUTHORIZATION_TYPEHASH",
        "Permit": "PERMIT_TYPEHASH",
    }.items():
        fields = ",".join(f"{type_} {name}" for name, type_ in FIELDS[kind])
        assert token.read(constant) == keccak(text=f"{kind}({fields})")


def test_its_domain_follows_the_address_it_is_put_at(token: Token, devnet: SharedDevnet) -> None:
    elsewhere = Token(token.web3, devnet.asset.chain_id, devnet.deploy("TestUSDC"))

    for one in (token, elsewhere):
        types = {"Permit": [{"name": n, "type": t} for n, t in FIELDS["Permit"]]}
        message = {"owner": ZERO, "spender": ZERO, "value": 0, "nonce": 0, "deadline": 0}
        signable = encode_typed_data(one.domain, types, message)
        assert one.read("DOMAIN_SEPARATOR") == signable.header
    assert token.read("DOMAIN_SEPARATOR") != elsewhere.read("DOMAIN_SEPARATOR")


def test_anyone_may_mint_and_the_supply_counts_it(token: Token, payee: str) -> None:
    supply = token.read("totalSupply")

    receipt = token.write("mint(address,uint256)", payee, 5)

    assert token.read("balanceOf", payee) == 5
    assert token.read("totalSupply") == supply + 5
    assert token.events(receipt) == [
        ("Mint", {"minter": FAUCET.address, "to": payee, "amount": 5}),
        ("Transfer", {"from": ZERO, "to": payee, "value": 5}),
    ]
    with pytest.raises(ContractLogicError, match="mint to the zero address"):
        token.write("mint(address,uint256)", ZERO, 1)
    with pytest.raises(ContractLogicError):
        token.write("mint(address,uint256)", payee, FOREVER)


def test_transfers_and_allowances(token: Token, payee: str, devnet: SharedDevnet) -> None:
    transfer, take = "transfer(address,uint256)", "transferFrom(address,address,uint256)"
    devnet.fund(FAUCET.address, usdc=10)
    owner = devnet.new_account(usdc=10, wei=10**18)
    token.submit(
        "bytes", "permit", (owner.address, FAUCET.address, 4, FOREVER),
        token.sign(owner, "Permit", owner.address, FAUCET.address, 4, 0, FOREVER),
    )  # fmt: skip

    receipt = token.write(transfer, payee, 3)
    assert token.events(receipt) == [
        ("Transfer", {"from": FAUCET.address, "to": payee, "value": 3})
    ]
    with pytest.raises(ContractLogicError, match="ERC20: transfer amount exceeds allowance"):
        token.write(take, owner.address, payee, 5)
    token.write(take, owner.address, payee, 3)
    assert token.read("allowance", owner.address, FAUCET.address) == 1
    assert token.read("balanceOf", payee) == 6
    receipt = token.write("approve(address,uint256)", payee, 9)
    assert token.events(receipt) == [
        ("Approval", {"owner": FAUCET.address, "spender": payee, "value": 9})
    ]
    with pytest.raises(ContractLogicError, match="ERC20: transfer amount exceeds balance"):
        token.write(transfer, payee, 2**200)
    with pytest.raises(ContractLogicError, match="ERC20: transfer to the zero address"):
        token.write(transfer, ZERO, 1)


@both_forms
def test_an_authorization_moves_its_amount_once(
    token: Token, payer: LocalAccount, payee: str, form: str
) -> None:
    values = authorization(payer.address, payee)
    signature = token.sign(payer, "TransferWithAuthorization", *values)
    assert token.read("authorizationState", payer.address, values[5]) is False

    receipt = token.submit(form, "transferWithAuthorization", values, signature)

    assert token.events(receipt) == [
        ("AuthorizationUsed", {"authorizer": payer.address, "nonce": values[5]}),
        ("Transfer", {"from": payer.address, "to": payee, "value": 716}),
    ]
    assert token.read("authorizationState", payer.address, values[5]) is True
    used = "FiatTokenV2: authorization is used or canceled"
    for again in ("vrs", "bytes"):
        with pytest.raises(ContractLogicError, match=used):
            token.submit(again, "transferWithAuthorization", values, signature)
    assert token.read("balanceOf", payee) == 716
    assert token.read("balanceOf", payer.address) == 1_000_000 - 716


@both_forms
def test_a_signature_is_good_only_for_what_was_signed_by_whom(
    token: Token, payer: LocalAccount, payee: str, form: str
) -> None:
    values = authorization(payer.address, payee)
    good = token.sign(payer, "TransferWithAuthorization", *values)
    high_s = (CURVE_ORDER - int.from_bytes(good[32:64])).to_bytes(32)
    bad = [
        token.sign(Account.create(), "TransferWithAuthorization", *values),
        token.sign(payer, "TransferWithAuthorization", payer.address, payee, 717, *values[3:]),
        token.sign(payer, "ReceiveWithAuthorization", *values),
        good[:32] + high_s + bytes([55 - good[64]]),  # the other valid (r, s) of the same message
        good[:64] + bytes([good[64] - 27]),
        bytes(65),
    ]

    for signature in bad:
        with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
            token.submit(form, "transferWithAuthorization", values, signature)

    token.submit(form, "transferWithAuthorization", values, good)
    assert token.read("balanceOf", payee) == 716


@pytest.mark.parametrize("length", [0, 64, 66, 97])
def test_a_signature_of_another_length_is_refused(
    token: Token, payer: LocalAccount, payee: str, length: int
) -> None:
    values = authorization(payer.address, payee)
    signature = token.sign(payer, "TransferWithAuthorization", *values)

    with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
        token.submit(
            "bytes", "transferWithAuthorization", values, signature.ljust(length, b"\0")[:length]
        )


@both_forms
@pytest.mark.parametrize("method", ["transferWithAuthorization", "receiveWithAuthorization"])
def test_an_authorization_is_good_between_its_two_times(
    token: Token, payer: LocalAccount, payee: str, form: str, method: str
) -> None:
    now = int(time.time())
    payee = FAUCET.address
    kind = method[0].upper() + method[1:]
    for after, before, said in (
        (now + 1000, FOREVER, "FiatTokenV2: authorization is not yet valid"),
        (0, now - 1000, "FiatTokenV2: authorization is expired"),
    ):
        values = authorization(payer.address, payee, 716, after, before)
        signature = token.sign(payer, kind, *values)
        with pytest.raises(ContractLogicError, match=said):
            token.submit(form, method, values, signature)

    values = authorization(payer.address, payee, 716, now - 1000, now + 1000)
    token.submit(form, method, values, token.sign(payer, kind, *values))


def test_more_than_the_balance_does_not_move_and_the_authorization_stays_good(
    token: Token, payer: LocalAccount, payee: str, devnet: SharedDevnet
) -> None:
    values = authorization(payer.address, payee, 1_000_001)
    signature = token.sign(payer, "TransferWithAuthorization", *values)

    with pytest.raises(ContractLogicError, match="ERC20: transfer amount exceeds balance"):
        token.submit("vrs", "transferWithAuthorization", values, signature)

    devnet.fund(payer.address, usdc=1)
    token.submit("vrs", "transferWithAuthorization", values, signature)
    assert token.read("balanceOf", payee) == 1_000_001


@both_forms
def test_only_the_payee_may_receive(
    token: Token, payer: LocalAccount, payee: str, form: str
) -> None:
    method, kind = "receiveWithAuthorization", "ReceiveWithAuthorization"
    others = authorization(payer.address, payee)
    with pytest.raises(ContractLogicError, match="FiatTokenV2: caller must be the payee"):
        token.submit(form, method, others, token.sign(payer, kind, *others))

    mine = authorization(payer.address, FAUCET.address)
    before = token.read("balanceOf", FAUCET.address)
    with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
        token.submit(form, method, mine, token.sign(payer, "TransferWithAuthorization", *mine))
    token.submit(form, method, mine, token.sign(payer, kind, *mine))
    assert token.read("balanceOf", FAUCET.address) == before + 716


@both_forms
def test_a_canceled_authorization_is_spent(
    token: Token, payer: LocalAccount, payee: str, form: str
) -> None:
    values = authorization(payer.address, payee)
    cancel = (payer.address, values[5])
    signature = token.sign(payer, "CancelAuthorization", *cancel)
    stranger = token.sign(Account.create(), "CancelAuthorization", *cancel)
    with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
        token.submit(form, "cancelAuthorization", cancel, stranger)

    receipt = token.submit(form, "cancelAuthorization", cancel, signature)

    assert token.events(receipt) == [
        ("AuthorizationCanceled", {"authorizer": payer.address, "nonce": values[5]})
    ]
    spent = "FiatTokenV2: authorization is used or canceled"
    with pytest.raises(ContractLogicError, match=spent):
        token.submit(form, "cancelAuthorization", cancel, signature)
    good = token.sign(payer, "TransferWithAuthorization", *values)
    with pytest.raises(ContractLogicError, match=spent):
        token.submit(form, "transferWithAuthorization", values, good)
    assert token.read("balanceOf", payee) == 0


@both_forms
def test_a_permit_allows_once_until_its_deadline(
    token: Token, payer: LocalAccount, payee: str, form: str
) -> None:
    late = int(time.time()) - 1000
    for deadline, nonce, said in (
        (late, 0, "FiatTokenV2: permit is expired"),
        (FOREVER, 1, "EIP2612: invalid signature"),
    ):
        signature = token.sign(payer, "Permit", payer.address, payee, 7, nonce, deadline)
        with pytest.raises(ContractLogicError, match=said):
            token.submit(form, "permit", (payer.address, payee, 7, deadline), signature)

    signature = token.sign(payer, "Permit", payer.address, payee, 7, 0, FOREVER)
    receipt = token.submit(form, "permit", (payer.address, payee, 7, FOREVER), signature)

    assert token.events(receipt) == [
        ("Approval", {"owner": payer.address, "spender": payee, "value": 7})
    ]
    assert token.read("nonces", payer.address) == 1
    assert token.read("allowance", payer.address, payee) == 7
    with pytest.raises(ContractLogicError, match="EIP2612: invalid signature"):
        token.submit(form, "permit", (payer.address, payee, 7, FOREVER), signature)


def test_a_contract_wallet_pays_by_its_own_word(
    token: Token, devnet: SharedDevnet, payee: str
) -> None:
    owner: LocalAccount = Account.create()
    wallet = Web3.to_checksum_address(
        devnet.deploy("TestWallet", encode(["address"], [owner.address]))
    )
    devnet.fund(wallet, usdc=3000)
    method, kind = "transferWithAuthorization", "TransferWithAuthorization"

    for form, prefix in (("vrs", b""), ("bytes", b""), ("bytes", b"\0")):
        values = authorization(wallet, payee, 1000)
        for signer in (Account.create(), owner):
            signature = prefix + token.sign(signer, kind, *values)
            if signer is owner:
                token.submit(form, method, values, signature)
            else:
                with pytest.raises(ContractLogicError, match="FiatTokenV2: invalid signature"):
                    token.submit(form, method, values, signature)

    assert token.read("balanceOf", payee) == 3000


def test_a_wallet_is_created_where_the_factory_said(token: Token, devnet: SharedDevnet) -> None:
    owner = Account.create().address
    factory = token.web3.eth.contract(
        address=Web3.to_checksum_address(devnet.deploy("TestWalletFactory")),
        abi=load_artifact("TestWalletFactory").abi,
    )
    wallet = factory.functions.walletOf(owner, b"\1" * 32).call()
    assert token.web3.eth.get_code(wallet) == b""

    for _ in range(2):  # a second time changes nothing
        create = factory.functions.create(owner, b"\1" * 32)
        hash_ = create.transact({"from": Web3.to_checksum_address(FAUCET.address)})
        assert token.web3.eth.wait_for_transaction_receipt(hash_)["status"] == 1

    made = token.web3.eth.contract(address=wallet, abi=load_artifact("TestWallet").abi)
    assert made.functions.owner().call() == owner

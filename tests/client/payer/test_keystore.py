"""The wallet's file and environment, and what it reads from a real chain."""

import base64
import json
import stat
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from tests.support.chain import SharedDevnet
from tests.support.paid_site import KEY, PAYEE
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.chain import read_balance
from xbyte_live.client.payer.keystore import (
    account_of_environment,
    new_wallet,
    open_wallet,
    wallet_address,
    wallet_path,
)
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import KNOWN_ASSETS, Offers, Quoted
from xbyte_live.errors import ChainUnavailable, ConfigError, StoreError
from xbyte_live.money import Asset

PASSWORD = "correct horse"
LIGHT = 2**10  # scrypt's work, so that tests do not wait
USDC = next(asset for asset in KNOWN_ASSETS if asset.network == "eip155:84532")


def test_a_wallet_is_made_shown_and_opened(tmp_path: Path) -> None:
    path = tmp_path / "xbyte" / "wallet.json"
    address = new_wallet(path, PASSWORD, work=LIGHT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["wallet.json"]
    assert wallet_address(path) == address
    account = open_wallet(path, PASSWORD)
    assert account.address == address
    assert account.key.hex().removeprefix("0x") not in path.read_text()


def test_guessing_a_password_is_work(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    new_wallet(path, PASSWORD)
    assert json.loads(path.read_text())["crypto"]["kdfparams"] | {"salt": ""} == {
        "n": 2**18, "r": 8, "p": 1, "dklen": 32, "salt": "",
    }  # fmt: skip


def test_a_wallet_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    first = new_wallet(path, PASSWORD, work=LIGHT)
    with pytest.raises(ConfigError, match="never overwritten"):
        new_wallet(path, PASSWORD, work=LIGHT)
    assert wallet_address(path) == first
    assert [p.name for p in tmp_path.iterdir()] == ["wallet.json"]


def test_a_wallet_that_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password"):
        new_wallet(tmp_path / "a.json", "", work=LIGHT)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        new_wallet(tmp_path / "file" / "wallet.json", PASSWORD, work=LIGHT)


def test_the_wrong_password_says_so(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    new_wallet(path, PASSWORD, work=LIGHT)
    for wrong in ("", "Correct horse"):
        with pytest.raises(ConfigError, match="password"):
            open_wallet(path, wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"crypto": None},
        {"crypto": {"kdfparams": {"n": 2**30, "r": 8, "p": 1}}},
        {"crypto": {"kdf": "scrypt", "kdfparams": {}}},
        {"crypto": {"kdf": "md5", "kdfparams": {"n": 2}}},
        {"address": None},
        {"address": "x"},
    ],
)
def test_files_that_are_no_wallet(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "wallet.json"
    new_wallet(path, PASSWORD, work=LIGHT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    look = wallet_address if "address" in change else lambda p: open_wallet(p, PASSWORD)
    with pytest.raises(ConfigError, match="keystore"):
        look(path)


def test_files_that_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    with pytest.raises(ConfigError, match="wallet new"):
        open_wallet(path, PASSWORD)
    with pytest.raises(ConfigError, match="cannot be read"):
        wallet_address(tmp_path)
    for text in ("", "[]", "7", "null", "[" * 50_000, "{" + " " * 70_000 + "}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="keystore"):
            wallet_address(path)


def test_the_key_may_stand_in_the_environment() -> None:
    assert account_of_environment({}) is None
    assert account_of_environment({"XBYTE_WALLET_KEY": " "}) is None
    for key in (KEY, KEY[2:], f" {KEY}\n"):
        account = account_of_environment({"XBYTE_WALLET_KEY": key})
        assert account is not None
        assert account.address == Account.from_key(KEY).address


@pytest.mark.parametrize("key", ["hunter2", KEY[:-1], KEY + "0", "0x" + "0" * 64, "0x" + "f" * 64])
def test_a_key_that_is_none_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        account_of_environment({"XBYTE_WALLET_KEY": key})
    assert key.removeprefix("0x") not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_where_the_wallet_lies(tmp_path: Path) -> None:
    home = Path.home()
    for environ, path in (
        ({}, home / ".config/xbyte-live/wallet.json"),
        ({"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path / "xbyte-live/wallet.json"),
        ({"XBYTE_WALLET": str(tmp_path / "w")}, tmp_path / "w"),
        ({"XBYTE_WALLET": "~/w.json"}, home / "w.json"),
    ):
        assert wallet_path(environ) == path


# The chain.


async def test_the_balance_of_a_wallet(devnet: SharedDevnet) -> None:
    account = devnet.new_account(usdc=1_234_567, wei=10**15)
    balance = await read_balance(devnet.rpc_url, USDC, account.address)
    assert (balance.token, balance.native) == (1_234_567, 10**15)


async def test_a_version_1_payment_moves_the_money(devnet: SharedDevnet) -> None:
    account = devnet.new_account(usdc=1000)
    offer = {
        "scheme": "exact",
        "network": USDC.network,
        "asset": USDC.address,
        "amount": "700",
        "payTo": PAYEE,
        "maxTimeoutSeconds": 300,
    }
    payer = Payer(account, Budget(1000))
    payment = payer.answer(Offers(1, (_v1(offer),)), Quoted("i"), resource="r", now=time.time())
    _take(devnet, payment.value)
    assert devnet.usdc_balance(account.address) == 300


async def test_a_node_of_another_chain_is_noticed(devnet: SharedDevnet) -> None:
    other = Asset("eip155:8453", USDC.address, "USDC", "2", 6, "USDC")
    with pytest.raises(ConfigError, match="chain 84532, not eip155:8453"):
        await read_balance(devnet.rpc_url, other, PAYEE)
    nothing = Asset(USDC.network, "0x" + "77" * 20, "USDC", "2", 6, "USDC")
    with pytest.raises(ConfigError, match="no USDC"):
        await read_balance(devnet.rpc_url, nothing, PAYEE)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"error": {"message": "no"}}'),
        (200, b'{"result": null}'),
        (200, b'{"result": "0x"}'),
        (200, b'{"result": "-0x5"}'),
        (200, b'{"result": "0x' + b"f" * 65 + b'"}'),
        (500, b""),
        (200, b"[" * 10**5),
    ],
)
async def test_a_node_that_answers_rubbish(status: int, body: bytes) -> None:
    inner = httpx2.MockTransport(lambda _: httpx2.Response(status, content=body))
    with pytest.raises(ChainUnavailable) as error:
        await read_balance("https://rpc.example/v1/SECRET?key=SECRET", USDC, PAYEE, inner=inner)
    assert "SECRET" not in str(error.value)


async def test_a_node_that_is_not_there() -> None:
    for url in ("http://127.0.0.1:1", "nonsense", "http://["):
        with pytest.raises(ChainUnavailable, match="does not answer"):
            await read_balance(url, USDC, PAYEE)


def _v1(offer: dict[str, Any]) -> dict[str, Any]:
    return offer | {"network": "base-sepolia", "maxAmountRequired": offer["amount"]}


def _take(devnet: SharedDevnet, value: str) -> None:
    payload = json.loads(base64.b64decode(value))["payload"]
    said = payload["authorization"]
    types = ["address", "address", "uint256", "uint256", "uint256", "bytes32", "bytes"]
    values = [
        said["from"],
        said["to"],
        *(int(said[name]) for name in ("value", "validAfter", "validBefore")),
        bytes.fromhex(said["nonce"][2:]),
        bytes.fromhex(payload["signature"][2:]),
    ]
    selector = keccak(text=f"transferWithAuthorization({','.join(types)})")[:4]
    devnet.call(devnet.chain.send, USDC.address, "0x" + (selector + encode(types, values)).hex())

"""A payer gets its money back by the command line: with its server, after it, and without it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_parties import Payer, a_key
from tests.support.channel_till import a_document
from tests.support.commands import Person
from tests.support.paying import v2_header
from tests.support.server import Server, a_server
from xbyte_live.client.payer.vouchers import SALT
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.server.catalog_access import open_catalog

FUNDS = 50_000_000
pytestmark = pytest.mark.timeout(400)  # commands and servers start, again and again


@asynccontextmanager
async def a_buyer(
    tmp_path: Path, chain: DevChain, **settings: str
) -> AsyncIterator[tuple[Person, LocalAccount, str]]:
    """Somebody at a server that sells an object, the payee, and the object's URL."""
    gas, payee, account = Account.create(), Account.create(), Account.create()
    await chain.fund(gas.address, wei=10 * ETHER)
    await chain.fund(account.address, usdc=FUNDS, wei=ETHER)
    quick = {"claim_interval": "1", "settle_interval": "1", "watch_interval": "1"}
    key = "0x" + bytes(gas.key).hex()
    async with a_server(
        tmp_path, chain.rpc_url, payee.address, key, **(quick | settings)
    ) as server:
        yield Person(server, account, tmp_path), payee, f"{server.url}/objects/bytes"


async def until_paid(chain: DevChain, payee: LocalAccount, amount: int) -> None:
    async with asyncio.timeout(60):
        while await chain.usdc_balance(payee.address) != amount:
            await asyncio.sleep(0.2)  # there is no event in another process


async def stop_selling(server: Server) -> None:
    async with open_catalog(server.settings) as shelf:
        await shelf.catalog.remove("bytes")


async def test_money_is_withdrawn_without_the_server_after_its_delay(tmp_path: Path) -> None:
    async with (
        Devnet(tmp_path / "chain") as net,
        a_buyer(tmp_path, net.chain) as (person, payee, url),
    ):
        out = str(tmp_path / "bytes")
        paid = await person.run("pay", url, "--out", out, "--budget", "2", "--max-deposit", "2")
        [channel] = await person.run("wallet", "channels")
        name, rest = channel["channel"], channel["refundable"]
        assert (channel["state"], channel["charged"]) == ("open", paid["cost"])
        assert rest == channel["balance"] - paid["cost"] > 0
        assert await net.chain.usdc_balance(person.account.address) == FUNDS - channel["balance"]
        assert "leave out --finalize" in await person.refused(
            "wallet", "withdraw", name, "--finalize"
        )

        begun = await person.run("wallet", "withdraw", name[:12])
        again = await person.run("wallet", "withdraw", name)
        assert (begun["channel"], begun["amount"]) == (name, rest)
        assert again == begun | {"transaction": ""}
        [channel] = await person.run("wallet", "channels")
        assert (channel["state"], channel["finalize_at"]) == ("withdrawing", begun["finalize_at"])
        await until_paid(net.chain, payee, paid["cost"])  # it claims in time
        await person.server.stop()
        assert "seconds" in await person.refused("wallet", "withdraw", name, "--finalize")

        await net.chain.set_next_block_timestamp(begun["finalize_at"])
        await net.chain.mine()
        done = await person.run("wallet", "withdraw", name, "--finalize")

        assert (done["amount"], done["finalize_at"]) == (rest, None)
        assert await net.chain.usdc_balance(person.account.address) == FUNDS - paid["cost"]
        [channel] = await person.run("wallet", "channels")
        assert (channel["state"], channel["refundable"]) == ("empty", 0)
        assert "no withdrawal" in await person.refused("wallet", "withdraw", name, "--finalize")
        await person.server.start()
        assert (await person.run("ledger", "audit"))["clean"]


async def test_a_channel_is_closed_after_a_purchase(
    tmp_path: Path, chain: DevChain, devnet: SharedDevnet
) -> None:
    async with a_buyer(tmp_path, chain) as (person, payee, url):
        out = str(tmp_path / "bytes")
        paid = await person.run("pay", url, "--out", out, "--budget", "2", "--close")
        [refund] = paid["refunds"]
        assert refund["amount"] > 0
        assert devnet.usdc_balance(person.account.address) == FUNDS - paid["cost"]
        [channel] = await person.run("wallet", "channels")
        assert (channel["channel"], channel["state"]) == (refund["channel"], "empty")
        await until_paid(chain, payee, paid["cost"])
        assert (await person.run("ledger", "audit"))["clean"]


async def test_what_is_left_comes_back_when_nothing_is_on_sale_any_more(
    tmp_path: Path, chain: DevChain, devnet: SharedDevnet
) -> None:
    async with a_buyer(tmp_path, chain, retry_window="1", quote_ttl="1") as (person, _, url):
        out = str(tmp_path / "bytes")
        paid = await person.run("pay", url, "--out", out, "--budget", "2")
        await stop_selling(person.server)
        [refund] = await person.run("wallet", "refund")
        assert devnet.usdc_balance(person.account.address) == FUNDS - paid["cost"]
        assert refund["amount"] > 0
        assert await person.run("wallet", "refund") == []
        assert (await person.run("ledger", "audit"))["clean"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"WITHDRAW_DELAY": "2000", "RECEIVER_AUTHORIZER_KEY": a_key()}),
        (
            {"receiver_authorizer_key": "0x" + "a1" * 32},
            {
                "RECEIVER_AUTHORIZER_KEY": a_key(),
                "EARLIER_AUTHORIZER_KEYS": f"{a_key()}, 0x{'a1' * 32}",
                "SCHEMES": "exact",
            },
        ),
        ({}, {"ASSETS": f"eip155:84532/0x{'11' * 20}/Other USD/1/6/OUSD"}),
    ],
)
async def test_a_channel_keeps_its_terms_when_the_settings_change(
    tmp_path: Path,
    chain: DevChain,
    devnet: SharedDevnet,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    later = {"claim_interval": "3600", "settle_interval": "3600"}
    async with a_buyer(tmp_path, chain, **before, **later) as (person, payee, url):
        paid = await person.run("pay", url, "--out", str(tmp_path / "bytes"), "--budget", "2")
        [channel] = await person.run("wallet", "channels")
        await person.server.stop()
        person.server.env |= {f"XBYTE_{name}": value for name, value in after.items()}
        await person.server.start()

        [refund] = await person.run("wallet", "refund", channel["channel"])

        assert refund["amount"] == channel["balance"] - paid["cost"] > 0
        assert devnet.usdc_balance(person.account.address) == FUNDS - paid["cost"]
        done = await person.run("ledger", "settle")
        assert [(one["kind"], one["state"]) for one in done] == [
            ("claim", "settled"),
            ("settle", "settled"),
        ]
        assert devnet.usdc_balance(payee.address) == paid["cost"]
        assert (await person.run("ledger", "audit"))["clean"]


async def test_where_refunds_are_asked_for_nothing_is_sold(
    tmp_path: Path, chain: DevChain, devnet: SharedDevnet
) -> None:
    async with a_buyer(tmp_path, chain) as (person, payee, url), httpx2.AsyncClient() as http:
        await person.run("pay", url, "--out", str(tmp_path / "bytes"), "--budget", "2")
        [channel] = await person.run("wallet", "channels")
        desk = f"{person.server.url}/channels/{channel['channel']}"
        asked = await http.get(desk)
        assert asked.status_code == 402
        document = json.loads(base64.b64decode(asked.headers["payment-required"]))
        [offer] = document["accepts"]
        assert (offer["scheme"], offer["payTo"]) == ("batch-settlement", payee.address)

        def payer(account: LocalAccount) -> Payer:
            return Payer(
                account,
                devnet.asset,
                payee.address,
                offer["extra"]["receiverAuthorizer"].lower(),
                withdraw_delay=offer["extra"]["withdrawDelay"],
                salt=SALT,
            )

        own, thief = payer(person.account), payer(devnet.new_account(usdc=FUNDS))
        assert own.channel_id == channel["channel"]
        for document in (
            a_document(offer, own, own.voucher(channel["charged"] + 1)),
            {"x402Version": 2, "accepted": offer, "payload": thief.deposit(FUNDS, 1).wire()},
            a_document(offer, thief, thief.voucher(0)),
        ):
            assert (await http.get(desk, headers=v2_header(document))).status_code == 402
        refund = a_document(offer, thief, thief.voucher(0), "refund")
        assert (await http.get(desk, headers=v2_header(refund))).status_code == 402
        assert devnet.usdc_balance(thief.account.address) == FUNDS
        assert (
            await http.get(f"{person.server.url}/channels/{thief.channel_id}")
        ).status_code == 404
        assert (await http.get(f"{person.server.url}/channels/0x12")).status_code == 404

        refund = a_document(offer, own, own.voucher(channel["charged"]), "refund")
        back = await http.get(desk, headers=v2_header(refund))
        assert back.status_code == 200, back.text
        assert devnet.usdc_balance(own.account.address) == FUNDS - channel["charged"]

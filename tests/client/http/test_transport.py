"""The paying transport against a shop on real HTTP: one delivery, one signature."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from eth_account import Account

from tests.support.paid_site import KEY, MIB, NETWORK, Shop, cutting, encoded, open_shop
from xbyte_live.client.http.journal import MemoryJournal
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import PAYMENT, QUOTED, RECEIPT, PayingTransport, is_loopback
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import Quoted, item_of, resource_of
from xbyte_live.errors import (
    BudgetExceeded,
    DeliveryFailed,
    PaymentPending,
    PaymentRefused,
    TermsRefused,
)

ACCOUNT = Account.from_key(KEY)
SIZE = 300_000
AMOUNT = 287  # of SIZE bytes at 1000 per MiB
PATH = "/hls/plasma/source/0.ts"
QUICK = Patience(tries=4, first_wait=0.01, pending=30)


@pytest.fixture(scope="module")
def site() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def shop(site: Shop) -> Shop:
    site.reset()
    site.add_title("plasma", [SIZE, SIZE, 100_000])
    return site


class Buyer:
    """A client with a wallet, and what it remembers."""

    def __init__(self, client: httpx2.AsyncClient, payer: Payer, journal: MemoryJournal) -> None:
        self.client = client
        self.payer = payer
        self.journal = journal
        self.waits: list[float] = []

    async def get(self, url: str, quoted: Quoted | None = None, **headers: str) -> httpx2.Response:
        extensions = {} if quoted is None else {QUOTED: quoted}
        return await self.client.get(url, extensions=extensions, headers=headers)


@asynccontextmanager
async def a_buyer(total: int = 10**6, **how: Any) -> AsyncIterator[Buyer]:
    how = {"patience": QUICK} | how
    payer = how.pop("payer", None) or Payer(ACCOUNT, Budget(total))
    journal = how.pop("journal", None) or MemoryJournal()
    follow = how.pop("follow_redirects", False)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))

    inner = httpx2.AsyncHTTPTransport(verify=False)
    transport = PayingTransport(payer, inner, journal=journal, sleep=sleep, **how)
    async with httpx2.AsyncClient(transport=transport, follow_redirects=follow) as client:
        buyer = Buyer(client, payer, journal)
        buyer.waits = waits
        yield buyer


def ahead(shop: Shop, path: str = PATH, **change: Any) -> Quoted:
    size = len(shop.files[path])
    known: dict[str, Any] = {"size": size, "amount": shop.amount(size)} | change
    return Quoted(item_of(shop.url + path), **known)


async def warm(buyer: Buyer, shop: Shop) -> None:
    """Learn the item's terms by buying its last segment."""
    await buyer.get(f"{shop.url}/hls/plasma/source/2.ts")
    shop.seen.clear()
    shop.charges.clear()


@pytest.mark.parametrize("versions", [(2, 1), (2,), (1,)])
async def test_a_402_is_paid_once_and_the_bytes_arrive(
    shop: Shop, versions: tuple[int, ...]
) -> None:
    shop.versions = versions
    async with a_buyer() as buyer:
        answer = await buyer.get(shop.url + PATH)
    assert (answer.status_code, answer.content) == (200, shop.files[PATH])
    assert [seen.version for seen in shop.seen] == [None, versions[0]]
    assert shop.charges == {shop.seen[1].nonce: (PATH, AMOUNT)}
    payment, receipt = answer.extensions[PAYMENT], answer.extensions[RECEIPT]
    assert (payment.amount, payment.identity) == (AMOUNT, shop.seen[1].nonce)
    assert (receipt.transaction, receipt.payer) == ("0x" + "ab" * 32, ACCOUNT.address)
    assert receipt.network == NETWORK


async def test_a_quoted_segment_takes_one_round_trip(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await warm(buyer, shop)
        answer = await buyer.get(shop.url + PATH, ahead(shop))
    assert answer.content == shop.files[PATH]
    assert len(shop.seen) == 1
    assert shop.paid == AMOUNT


async def test_watching_again_is_a_sale_again(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await buyer.get(shop.url + PATH)
        await buyer.get(shop.url + PATH)
    assert shop.paid == 2 * AMOUNT == buyer.payer.budget.signed


async def test_what_is_free_costs_nothing(shop: Shop) -> None:
    shop.price = 0
    async with a_buyer(0) as buyer:
        await buyer.get(f"{shop.url}/hls/plasma/index.m3u8")
        answer = await buyer.get(shop.url + PATH, ahead(shop))
    assert answer.content == shop.files[PATH]
    assert answer.extensions[PAYMENT] is None
    assert not shop.payments


async def test_a_ranged_request_is_another_resource(shop: Shop) -> None:
    async with a_buyer() as buyer:
        answer = await buyer.get(shop.url + PATH, range="bytes=10-1009")
        assert (answer.status_code, answer.content) == (206, shop.files[PATH][10:1010])
        await buyer.get(shop.url + PATH)
    assert sorted(shop.charges.values()) == [(PATH, AMOUNT), (f"{PATH}#bytes=10-1009", 1)]


async def test_other_methods_are_not_paid_for(shop: Shop) -> None:
    async with a_buyer() as buyer:
        answer = await buyer.client.head(shop.url + PATH)
    assert answer.status_code == 402
    assert buyer.payer.budget.signed == 0


# Money that may be gone already: the same payment again, never another one.


@pytest.mark.parametrize("cut", [0, 200, 5000, SIZE])
async def test_a_cut_connection_is_mended_with_the_same_payment(shop: Shop, cut: int) -> None:
    async with a_buyer() as buyer, cutting(shop) as wire:
        wire.cuts.extend([cut, cut])
        answer = await buyer.get(wire.url + PATH)
    assert answer.content == shop.files[PATH]
    assert len(shop.payments) == 3
    assert list(shop.charges.values()) == [(PATH, AMOUNT)]
    assert buyer.payer.budget.signed == AMOUNT


async def test_a_body_that_keeps_breaking_is_given_up_and_its_payment_kept(shop: Shop) -> None:
    async with a_buyer() as buyer, cutting(shop) as wire:
        wire.cuts.extend([5000] * 4)
        with pytest.raises(DeliveryFailed, match="same payment"):
            await buyer.get(wire.url + PATH)
        assert len(shop.payments) == 4
        answer = await buyer.get(wire.url + PATH)  # asked again, it is the same purchase
    assert answer.content == shop.files[PATH]
    assert len({seen.nonce for seen in shop.payments}) == len(shop.charges) == 1
    assert buyer.payer.budget.signed == AMOUNT


@pytest.mark.parametrize(
    ("faults", "retry_after", "waits"),
    [
        (["503", "503"], "1", [1, 1]),
        (["503", "503", "503"], "0", [0.01, 0.02, 0.04]),
        (["charge+503"], "2", [2]),
        (["charge+500"], None, [0.01]),
        (["503"], "soon", [0.01]),
    ],
)
async def test_pending_means_the_same_payment_later(
    shop: Shop, faults: list[str], retry_after: str | None, waits: list[float]
) -> None:
    shop.faults.extend(faults)
    shop.retry_after = retry_after
    async with a_buyer() as buyer:
        answer = await buyer.get(shop.url + PATH)
    assert answer.content == shop.files[PATH]
    assert buyer.waits == waits
    assert len({seen.nonce for seen in shop.payments}) == len(shop.charges) == 1
    assert len(shop.payments) == len(faults) + 1


async def test_pending_for_too_long_is_said_and_goes_on_later(shop: Shop) -> None:
    async with a_buyer() as buyer:
        shop.faults.extend(["charge+503", "503", "503", "503", "503"])
        shop.retry_after = "7"
        with pytest.raises(PaymentPending) as pending:
            await buyer.get(shop.url + PATH)
        assert pending.value.retry_after == 7
        assert buyer.waits == [7, 7, 7, 7]
        shop.faults.append("503")
        shop.retry_after = "3600"
        with pytest.raises(PaymentPending):  # not waited for that long
            await buyer.get(shop.url + PATH)
        assert 3600 not in buyer.waits
        answer = await buyer.get(shop.url + PATH)
    assert answer.content == shop.files[PATH]
    assert len({seen.nonce for seen in shop.payments}) == len(shop.charges) == 1


async def test_a_402_after_an_unknown_outcome_is_no_reason_to_sign_anew(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await warm(buyer, shop)
        shop.faults.extend(["503", "refuse:settle_timeout"])
        shop.price = 500  # and the terms are others by now
        with pytest.raises(PaymentRefused, match="settle_timeout") as refusal:
            await buyer.get(shop.url + PATH, ahead(shop, amount=AMOUNT))
        assert refusal.value.code == "settle_timeout"
    assert len({seen.nonce for seen in shop.payments}) == 1


async def test_a_402_after_a_cut_connection_is_no_reason_to_sign_anew(shop: Shop) -> None:
    async with a_buyer() as buyer, cutting(shop) as wire:
        await buyer.get(f"{wire.url}/hls/plasma/source/2.ts")
        quoted = Quoted(item_of(wire.url + PATH), size=SIZE, amount=AMOUNT)
        shop.seen.clear()
        shop.faults.extend(["ok", "refuse:nonce_used"])
        shop.change = lambda document: document | {"accepts": []}
        wire.cuts.append(0)
        with pytest.raises(PaymentRefused, match="nonce_used"):
            await buyer.get(wire.url + PATH, quoted)
    assert len({seen.nonce for seen in shop.payments}) == 1


async def test_an_open_payment_that_is_refused_blocks_another_until_it_is_void(shop: Shop) -> None:
    clock = [time.time()]
    async with a_buyer(clock=lambda: clock[0]) as buyer:
        shop.faults.extend(["503"] * 4)
        shop.retry_after = "10"
        with pytest.raises(PaymentPending):
            await buyer.get(shop.url + PATH)
        shop.price = 500  # the terms are others by now, and still nothing is signed anew
        with pytest.raises(PaymentRefused):
            await buyer.get(shop.url + PATH)
        clock[0] += 301  # what was signed can no longer be taken
        answer = await buyer.get(shop.url + PATH)
    assert answer.content == shop.files[PATH]
    assert len({seen.nonce for seen in shop.payments}) == 2
    assert buyer.payer.budget.signed == AMOUNT + 144  # the void one may have been taken before


async def test_a_request_that_is_cancelled_leaves_its_payment_to_the_next(shop: Shop) -> None:
    async with a_buyer() as buyer:
        shop.faults.append("hold")
        task = asyncio.ensure_future(buyer.get(shop.url + PATH))
        await asyncio.to_thread(shop.held.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        shop.release.set()
        await buyer.get(shop.url + PATH)
    assert len({seen.nonce for seen in shop.payments}) == len(shop.charges) == 1


async def test_a_body_left_half_read_is_still_open(shop: Shop) -> None:
    async with a_buyer() as buyer:
        async with buyer.client.stream("GET", shop.url + PATH) as answer:
            async for _ in answer.aiter_raw(1000):
                break
        assert (await buyer.get(shop.url + PATH)).content == shop.files[PATH]
    assert len(shop.charges) == 1


async def test_two_requests_at_once_are_two_purchases(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await asyncio.gather(*(buyer.get(shop.url + PATH) for _ in range(5)))
    assert len(shop.charges) == 5


async def test_a_payment_in_use_is_not_taken_for_another_request(shop: Shop) -> None:
    async with a_buyer() as buyer:
        shop.faults.append("hold")
        first = asyncio.ensure_future(buyer.get(shop.url + PATH))
        await asyncio.to_thread(shop.held.wait)
        await buyer.get(shop.url + PATH)
        shop.release.set()
        await first
    assert len(shop.charges) == 2


async def test_a_server_that_never_answers(shop: Shop) -> None:
    async with a_buyer() as buyer, cutting(shop) as wire:
        await buyer.get(f"{wire.url}/hls/plasma/source/2.ts")
        quoted = ahead(shop)
        gone = wire.url
    async with a_buyer(payer=buyer.payer) as again:
        with pytest.raises(DeliveryFailed):  # it was signed, and nobody saw it
            await again.get(gone + PATH, Quoted(item_of(gone + PATH), amount=quoted.amount))
        with pytest.raises(httpx2.ConnectError):  # nothing was signed
            await again.get("http://127.0.0.1:1/x")
    assert buyer.payer.budget.signed == AMOUNT + 96


# Limits, before anything is signed.


async def test_fetching_in_parallel_never_exceeds_the_budget(shop: Shop) -> None:
    async with a_buyer(10 * AMOUNT + 5) as buyer:
        outcomes = await asyncio.gather(
            *(buyer.get(shop.url + PATH) for _ in range(20)), return_exceptions=True
        )
    delivered = [o for o in outcomes if isinstance(o, httpx2.Response)]
    assert len(delivered) == 10
    assert sum(isinstance(o, BudgetExceeded) for o in outcomes) == 10
    assert shop.paid == buyer.payer.budget.signed == 10 * AMOUNT


async def test_a_price_above_the_playlists_is_refused(shop: Shop) -> None:
    async with a_buyer() as buyer:
        quoted = ahead(shop)
        shop.price = 1100
        with pytest.raises(TermsRefused, match="quoted"):
            await buyer.get(shop.url + PATH, quoted)
    assert buyer.payer.budget.signed == 0


async def test_a_price_raised_after_paying_ahead_is_refused(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await warm(buyer, shop)
        quoted = ahead(shop)
        shop.price = 1100
        with pytest.raises(TermsRefused, match="quoted"):
            await buyer.get(shop.url + PATH, quoted)
    assert len(shop.payments) == 1
    assert shop.paid == 0


async def test_a_price_lowered_after_paying_ahead_is_signed_for_once_more(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await warm(buyer, shop)
        quoted = ahead(shop)
        shop.price = 500
        answer = await buyer.get(shop.url + PATH, quoted)
        assert answer.content == shop.files[PATH]
        assert shop.paid == 144
        assert buyer.payer.budget.signed == 96 + AMOUNT + 144
        shop.faults.extend(["refuse:first", "refuse:second"])
        shop.price = 100
        with pytest.raises(PaymentRefused, match="second"):
            await buyer.get(shop.url + PATH, quoted)
    assert len({seen.nonce for seen in shop.payments}) == 4


async def test_a_refusal_that_signing_anew_would_not_help(shop: Shop) -> None:
    async with a_buyer() as buyer:
        await warm(buyer, shop)
        shop.faults.append("refuse:insufficient_funds")
        with pytest.raises(PaymentRefused, match="insufficient_funds"):
            await buyer.get(shop.url + PATH, ahead(shop))
        shop.faults.append("refuse:insufficient_funds")
        with pytest.raises(PaymentRefused):
            await buyer.get(f"{shop.url}/hls/plasma/source/1.ts")
    assert len(shop.payments) == 2


BOMBS: list[tuple[dict[str, str], bytes]] = [
    ({"payment-required": "A" * 80_000}, b""),
    ({"payment-required": "%%%"}, b""),
    ({"payment-required": encoded({"x402Version": 2, "accepts": [{}] * 10_000})}, b""),
    ({}, b"[" * 10**6),
    ({}, b"<html>pay here</html>"),
    ({}, b""),
]


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_402_that_is_no_offer(shop: Shop, bomb: tuple[dict[str, str], bytes]) -> None:
    shop.raw_402 = bomb
    async with a_buyer() as buyer:
        with pytest.raises(TermsRefused):
            await buyer.get(shop.url + PATH)
    assert buyer.payer.budget.signed == 0


# What is handed over is what was quoted.


@pytest.mark.parametrize("lie", [-1, 1])
async def test_another_size_than_quoted_is_noticed(shop: Shop, lie: int) -> None:
    async with a_buyer() as buyer:
        quoted = ahead(shop, size=SIZE + lie)
        with pytest.raises(DeliveryFailed, match=f"{SIZE} bytes where {SIZE + lie}"):
            await buyer.get(shop.url + PATH, quoted)
        answer = await buyer.get(shop.url + PATH, ahead(shop))
    assert answer.content == shop.files[PATH]
    assert len(shop.charges) == 1  # the payment was still open


async def test_bytes_are_counted_where_no_length_is_said() -> None:
    async def reply(request: httpx2.Request) -> httpx2.Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * 10

        return httpx2.Response(200, content=chunks())

    payer = Payer(ACCOUNT, Budget(0))
    transport = PayingTransport(payer, httpx2.MockTransport(reply))
    async with httpx2.AsyncClient(transport=transport) as client:
        for size, good in ((40, True), (39, False), (41, False)):
            sent = client.get("http://localhost/x", extensions={QUOTED: Quoted("i", size=size)})
            if good:
                assert len((await sent).content) == 40
            else:
                with pytest.raises(DeliveryFailed):
                    await sent


async def test_encoded_bytes_are_not_what_was_sold() -> None:
    async def reply(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx2.Response(200, content=b"x" * 9, headers={"content-encoding": "br"})

    transport = PayingTransport(Payer(ACCOUNT, Budget(0)), httpx2.MockTransport(reply))
    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(DeliveryFailed, match="encoded"):
            await client.get("http://localhost/x", extensions={QUOTED: Quoted("i", size=9)})


async def test_a_body_that_changes_while_it_is_mended(shop: Shop) -> None:
    async with a_buyer() as buyer, cutting(shop) as wire:
        wire.cuts.append(5000)
        async with buyer.client.stream("GET", wire.url + PATH) as answer:
            shop.files[PATH] = bytes([9]) * SIZE
            with pytest.raises(DeliveryFailed, match="something else"):
                await answer.aread()


async def test_bodies_are_streamed(shop: Shop) -> None:
    shop.files["/big"] = bytes(8 * MIB)
    async with (
        a_buyer() as buyer,
        buyer.client.stream("GET", f"{shop.url}/big") as answer,
    ):
        sizes = [len(chunk) async for chunk in answer.aiter_raw()]
    assert sum(sizes) == 8 * MIB
    assert max(sizes) <= MIB


# Where a payment may go.


async def test_a_payment_answered_with_a_redirect_goes_nowhere(shop: Shop) -> None:
    async with a_buyer(follow_redirects=True) as buyer:
        shop.faults.append("redirect:/elsewhere")
        with pytest.raises(DeliveryFailed, match="redirect"):
            await buyer.get(shop.url + PATH)
    assert [seen.path for seen in shop.seen] == [PATH, PATH]


async def test_a_redirect_to_another_origin_is_not_paid_there(shop: Shop) -> None:
    with open_shop() as other:
        other.files["/x"] = bytes(1000)

        async def reply(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(302, headers={"location": f"{other.url}/x"})

        class Both(httpx2.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                if request.url.host == "localhost":
                    return await httpx2.MockTransport(reply).handle_async_request(request)
                return await super().handle_async_request(request)

        payer = Payer(ACCOUNT, Budget(10**6))
        transport = PayingTransport(payer, Both(verify=False))
        async with httpx2.AsyncClient(transport=transport, follow_redirects=True) as client:
            with pytest.raises(TermsRefused, match="first sent"):
                await client.get("http://localhost/x", extensions={QUOTED: Quoted("i", amount=9)})
            assert payer.budget.signed == 0
            assert (await client.get(f"{other.url}/x")).status_code == 200
        assert len(other.charges) == 1


async def test_plain_http_is_paid_on_this_machine_only(shop: Shop) -> None:
    class Anywhere(httpx2.AsyncHTTPTransport):
        """Every name is this machine's."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            port = int(shop.url.rpartition(":")[2])
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
            return await super().handle_async_request(request)

    for url, allowed, paid in (
        ("http://shop.example", False, False),
        ("http://shop.example", True, True),
        ("http://localhost.example", False, False),
        ("https://shop.example", False, True),
        ("http://localhost", False, True),
        ("http://[::1]", False, True),
    ):
        payer = Payer(ACCOUNT, Budget(10**6))
        transport = PayingTransport(payer, Anywhere(verify=False), allow_plain_http=allowed)
        async with httpx2.AsyncClient(transport=transport) as client:
            if paid:
                assert (await client.get(url + PATH)).status_code == 200
            else:
                with pytest.raises(TermsRefused, match="https"):
                    await client.get(url + PATH)
        assert bool(payer.budget.signed) is paid


def test_names_of_this_machine() -> None:
    for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1"):
        assert is_loopback(host)
    for host in ("localhost.evil.example", "10.0.0.1", "0.0.0.0", "example.com", "", "127.0.0.1.x"):
        assert not is_loopback(host)


async def test_the_payment_is_noted_before_it_is_sent(shop: Shop) -> None:
    noted: list[int] = []

    class Watched(MemoryJournal):
        async def keep(self, payment: Any) -> None:
            noted.append(len(shop.payments))
            await super().keep(payment)

    journal = Watched()
    async with a_buyer(journal=journal) as buyer:
        await buyer.get(shop.url + PATH)
    assert noted == [0]
    assert not journal.find(resource_of(shop.url + PATH))


async def test_a_journal_that_cannot_be_written_stops_the_payment(shop: Shop) -> None:
    class Full(MemoryJournal):
        async def keep(self, payment: Any) -> None:
            raise OSError("disk full")

    async with a_buyer(journal=Full()) as buyer:
        with pytest.raises(OSError, match="full"):
            await buyer.get(shop.url + PATH)
    assert not shop.payments


async def test_the_402_of_the_sdks_own_server_code_is_paid(shop: Shop) -> None:
    """A payment's document has nothing the SDK's models do not know."""
    from x402.schemas import PaymentPayload

    async with a_buyer() as buyer:
        answer = await buyer.get(shop.url + PATH)
    document = json.loads(base64.b64decode(answer.extensions[PAYMENT].value))
    assert PaymentPayload.model_validate(document).model_dump(exclude_none=True) == document


def test_the_paying_side_imports_nothing_heavy() -> None:
    code = (
        "import sys, xbyte_live.client.download.download, xbyte_live.client.payer.keystore, "
        "xbyte_live.client.payer.chain\n"
        "heavy = {'av', 'starlette', 'fastapi', 'sqlalchemy', 'web3', 'x402', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Live segments for sale: at the price they were listed at, to the real payer, on a real chain."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from x402.http.utils import decode_payment_required_header

from tests.support.broadcaster import PRICE, Broadcaster, a_broadcaster
from tests.support.chain import ETHER, SharedDevnet
from tests.support.media import Audio, Recipe, h264
from tests.support.paying import payment_headers
from tests.support.players import decode
from tests.support.publishers import publishing
from xbyte_live.money import Price
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.server.catalog_access import open_catalog

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = Recipe(".flv", "flv", h264(group=25, b_frames=2), Audio(rate=44100), seconds=20)
FUNDS = 50_000_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLIP.make(tmp_path_factory.mktemp("clips") / "clip.flv")


@pytest.fixture(scope="module")
def payee(devnet: SharedDevnet) -> str:
    return str(devnet.new_account().address)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def air(
    devnet: SharedDevnet, payee: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Broadcaster]:
    gas = devnet.new_account(wei=10 * ETHER)
    async with a_broadcaster(
        tmp_path_factory.mktemp("air"),
        pay_to=payee,
        rpc_urls=f"eip155:84532={devnet.rpc_url}",
        gas_key="0x" + bytes(gas.key).hex(),
        facilitators="",
        schemes="exact",
    ) as running:
        yield running


async def test_a_push_can_be_paid_for_within_two_segments(
    air: Broadcaster, devnet: SharedDevnet, payee: str, clip: Path, tmp_path: Path
) -> None:
    key = await air.stream(free=False)
    payer = devnet.new_account(usdc=FUNDS)
    viewer = air.viewer()
    out = tmp_path / "live.ts"
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(1)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live", "pay", f"{air.server.url}/watch/live"),
            *("--time-limit", "4", "--budget", "5", "--json", "--out", str(out)),
            env=air.server.environment | {"XBYTE_WALLET_KEY": "0x" + bytes(payer.key).hex()},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        status = await air.status()
        assert status["viewers_paying"] == 1
    bought = json.loads(output)
    assert bought["ending"] == "time"
    assert bought["pieces"] >= 3
    await viewer.reload()
    sold = viewer.segments[: bought["pieces"]]
    assert sold[0].msn == 0
    assert bought["bytes"] == out.stat().st_size == sum(segment.size for segment in sold)
    assert bought["cost"] == bought["signed"] == sum(segment.amount for segment in sold)
    assert devnet.usdc_balance(payee) == bought["cost"]
    async with open_catalog(air.server.settings) as shelf:
        totals = await ChargeLedger(shelf.database).totals()
    assert [(t.count, t.amount) for t in totals] == [(bought["pieces"], bought["cost"])]
    played = decode(str(out))
    for track in played.tracks:
        assert (track.corrupt, track.jumps) == (0, [])
    assert played.picture.length == pytest.approx(sum(s.duration_us for s in sold) / 1e6, abs=0.1)


async def test_a_segment_keeps_the_price_it_was_listed_at(
    air: Broadcaster, devnet: SharedDevnet, clip: Path
) -> None:
    key = await air.stream("dearer", free=False)
    payer = devnet.new_account(usdc=FUNDS)
    viewer = air.viewer("dearer")
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(1)
        await air.set_price(3 * PRICE, "dearer")
        before = viewer.segments[-1].msn
        await viewer.until(lambda now: now.segments[-1].amount > 2 * viewer.segments[0].amount)
        old = [s for s in viewer.segments if s.amount == Price(PRICE).amount_for(s.size)]
        new = [s for s in viewer.segments if s.amount == Price(3 * PRICE).amount_for(s.size)]
        assert [s.msn for s in old + new] == [s.msn for s in viewer.segments]
        assert old[-1].msn <= before + 1
        for segment in (old[0], old[-1], new[0]):
            url = f"{air.server.url}/hls/dearer/source/{segment.uri}"
            asked = await air.http.get(url)
            assert asked.status_code == 402
            offer = decode_payment_required_header(asked.headers["PAYMENT-REQUIRED"])
            terms = offer.accepts[0].model_dump(by_alias=True, exclude_none=True)
            assert terms["amount"] == str(segment.amount)
            paid = await air.http.get(url, headers=payment_headers(payer, terms))
            assert paid.status_code == 200
            assert len(paid.content) == segment.size

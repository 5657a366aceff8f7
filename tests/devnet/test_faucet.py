"""The faucet of the demo, on a real local chain: it gives, to pages of the demo, so much."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from xbyte_live.devnet.chain import Devnet
from xbyte_live.devnet.faucet import GRANT, LIMIT, faucet_app, open_faucet

PAGE = "http://127.0.0.1:8402"
VIEWER = "0x00000000000000000000000000000000000000C1"


@pytest.mark.timeout(120)
async def test_test_money_is_given_within_bounds(tmp_path: Path) -> None:
    async with (
        Devnet(tmp_path / "chain") as devnet,
        open_faucet(devnet.chain, [PAGE]) as url,
        httpx2.AsyncClient(headers={"Origin": PAGE}, trust_env=False) as page,
    ):
        first = await page.post(url, json={"address": VIEWER})
        assert first.json() == {
            "address": VIEWER.lower(),
            "amount": str(GRANT),
            "balance": str(GRANT),
        }
        assert first.headers["access-control-allow-origin"] == PAGE
        assert await devnet.chain.usdc_balance(VIEWER) == GRANT

        more = await asyncio.gather(*(page.post(url, json={"address": VIEWER}) for _ in range(9)))
        given = [answer.status_code for answer in more].count(200)
        assert (given + 1) * GRANT == LIMIT == await devnet.chain.usdc_balance(VIEWER)
        assert {answer.status_code for answer in more} == {200, 429}
        other = await page.post(url, json={"address": "0x" + "c2" * 20})
        assert other.status_code == 200

        for content in (
            b"",
            b"{}",
            b"[]",
            b'{"address": 7}',
            b'{"address": "0x12"}',
            b'{"address": "' + b"0" * 2000 + b'"}',
            b"\xff",
        ):
            assert (await page.post(url, content=content)).status_code == 400

        preflight = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        assert (await page.options(url, headers=preflight)).status_code == 200
        stranger = {"Origin": "https://evil.example"}
        refused = await page.options(url, headers=preflight | stranger)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        assert (await page.get(url)).status_code == 405

        await devnet.chain.close()
        gone = await page.post(url, json={"address": "0x" + "c3" * 20})
        assert gone.status_code in (500, 503)


def test_the_faucet_is_all_there_is() -> None:
    app = faucet_app(None, [PAGE])  # type: ignore[arg-type]
    assert [route.path for route in app.routes] == ["/faucet"]  # type: ignore[attr-defined]

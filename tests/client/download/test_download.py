"""Downloads from a shop on real HTTP: whole, in order, within the budget, and bought once."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from eth_account import Account

from tests.support.paid_site import KEY, MIB, Shop, content, cutting, open_shop
from xbyte_live.client.download.download import Options, Result, download
from xbyte_live.client.download.progress import DownloadPlan
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.pieces import OfferedPiece, object_pieces, playlist_of_page, suggested_name
from xbyte_live.client.playlists import Selection
from xbyte_live.errors import (
    BudgetExceeded,
    ConfigError,
    DeliveryFailed,
    MediaError,
    PaymentPending,
    PaymentRefused,
    StoreError,
    TermsRefused,
)
from xbyte_live.money import Price

ROOT = Path(__file__).parents[3]
ACCOUNT = Account.from_key(KEY)
SIZES = [300_000, 250_000, 200_001, 150_000, 99, 120_000]
QUICK = Patience(tries=3, first_wait=0.01, pending=0.05)


@pytest.fixture(scope="module")
def site() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def shop(site: Shop) -> Shop:
    site.reset()
    site.add_title("plasma", SIZES)
    return site


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


async def buy(
    url: str, out: Path, *, total: int = 10**6, payer: Payer | None = None, **how: Any
) -> Result:
    options = {name: how.pop(name) for name in ("parallel", "time_limit") if name in how}
    names = ("rendition", "max_bandwidth", "piece_size")
    wanted = Selection(**{name: how.pop(name) for name in names if name in how})
    return await download(
        url,
        out,
        payer or Payer(ACCOUNT, Budget(total, max_price=how.pop("max_price", None))),
        options=Options(wanted=wanted, patience=QUICK, **options),
        inner=httpx2.AsyncHTTPTransport(verify=False),
        **{"sleep": no_sleep} | how,
    )


def total_of(shop: Shop, sizes: list[int] = SIZES) -> int:
    return sum(shop.amount(size) for size in sizes)


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


@pytest.mark.parametrize("path", ["/hls/plasma/index.m3u8", "/watch/plasma", "/watch/plasma/#top"])
async def test_a_title_arrives_whole_and_costs_what_the_playlist_said(
    shop: Shop, tmp_path: Path, path: str
) -> None:
    out = tmp_path / "plasma.ts"
    result = await buy(shop.url + path, out)
    assert out.read_bytes() == shop.whole("plasma")
    assert result.cost == result.signed == shop.paid == total_of(shop)
    assert (result.size, result.pieces, result.ending) == (sum(SIZES), len(SIZES), "complete")
    assert len(result.receipts) == len(shop.charges) == len(SIZES)
    assert beside(out) == ["plasma.ts"]


async def test_once_the_terms_are_known_a_segment_is_one_request(
    shop: Shop, tmp_path: Path
) -> None:
    await buy(f"{shop.url}/hls/plasma/index.m3u8", tmp_path / "a.ts", parallel=1)
    segments = [seen for seen in shop.seen if seen.path.endswith(".ts")]
    assert len(segments) == len(SIZES) + 1
    shop.seen.clear()
    offer = {k: v for k, v in shop.requirements(1).items() if k != "amount"}
    shop.texts["/hls/plasma/pricing.json"] = json.dumps({"accepts": [offer]})
    await buy(f"{shop.url}/hls/plasma/source/index.m3u8", tmp_path / "b.ts")
    assert len([seen for seen in shop.seen if seen.path.endswith(".ts")]) == len(SIZES)


async def test_progress_is_told(shop: Shop, tmp_path: Path) -> None:
    class Watching:
        def __init__(self) -> None:
            self.plans: list[DownloadPlan] = []
            self.spent = self.arrived = 0

        def planned(self, plan: DownloadPlan) -> None:
            self.plans.append(plan)

        def paid(self, payment: Any, receipt: Any) -> None:
            assert receipt is not None
            self.spent += payment.amount

        def received(self, size: int) -> None:
            self.arrived += size

    watching = Watching()
    await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts", progress=watching)
    assert watching.plans == [DownloadPlan(len(SIZES), sum(SIZES), total_of(shop), 0, live=False)]
    assert (watching.spent, watching.arrived) == (total_of(shop), sum(SIZES))


async def test_the_best_rendition_is_taken_unless_another_is_wanted(
    shop: Shop, tmp_path: Path
) -> None:
    shop.add_title("many", [1000], rendition="low")
    shop.files["/hls/many/high/0.ts"] = content(5000)
    shop.list_segments("many", range(1), rendition="high")
    shop.texts["/hls/many/index.m3u8"] = (
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=500\nlow/index.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=900\nhigh/index.m3u8\n"
    )
    url = f"{shop.url}/hls/many/index.m3u8"
    assert (await buy(url, tmp_path / "1")).size == 5000
    assert (await buy(url, tmp_path / "2", max_bandwidth=899)).size == 1000
    assert (await buy(url, tmp_path / "3", rendition="low")).size == 1000
    for wanted in ({"rendition": "4k"}, {"max_bandwidth": 10}):
        with pytest.raises(DeliveryFailed, match="low, high"):
            await buy(url, tmp_path / "4", **wanted)


async def test_a_single_segment_is_bought_at_its_listed_price(shop: Shop, tmp_path: Path) -> None:
    url = f"{shop.url}/hls/plasma/source/1.ts"
    result = await buy(url, tmp_path / "1.ts", max_price=Price(1000))
    assert (tmp_path / "1.ts").read_bytes() == shop.files["/hls/plasma/source/1.ts"]
    assert result.cost == shop.amount(SIZES[1]) == shop.paid


async def test_what_is_free_is_just_downloaded(shop: Shop, tmp_path: Path) -> None:
    shop.price = 0
    shop.add_title("gift", SIZES)
    shop.files["/gift"] = content(1000)
    result = await buy(f"{shop.url}/watch/gift", tmp_path / "a", total=0)
    assert (tmp_path / "a").read_bytes() == shop.whole("gift")
    assert result.cost == 0
    await buy(f"{shop.url}/gift", tmp_path / "b", total=0)
    assert (tmp_path / "b").read_bytes() == content(1000)


# Objects.


def list_object(shop: Shop, path: str, size: int) -> str:
    """An object with the price list our server has for it."""
    shop.files[path] = content(size)
    pricing = {"bytes": size, "price_per_mb": "0.001", "payment_methods": []}
    shop.texts[f"{path}/pricing.json"] = json.dumps(pricing)
    return shop.url + path


async def test_an_object_is_bought_in_ranges(shop: Shop, tmp_path: Path) -> None:
    url = list_object(shop, "/objects/book", 5 * MIB + 77)
    result = await buy(url, tmp_path / "book", piece_size=MIB)
    assert (tmp_path / "book").read_bytes() == shop.files["/objects/book"]
    assert result.cost == shop.paid == 5 * 1000 + 1 == shop.amount(5 * MIB + 77)
    assert len({seen.byte_range for seen in shop.payments}) == 6
    assert {s.byte_range for s in shop.payments} >= {f"bytes={5 * MIB}-{5 * MIB + 76}"}


async def test_an_object_dearer_than_the_budget_is_not_begun(shop: Shop, tmp_path: Path) -> None:
    url = list_object(shop, "/objects/book", 5 * MIB)
    with pytest.raises(BudgetExceeded, match=r"\$0.005, and \$0.004999"):
        await buy(url, tmp_path / "book", piece_size=MIB, total=4999)
    assert not shop.payments
    assert not [seen for seen in shop.seen if seen.path == "/objects/book"]


async def test_another_range_than_asked_for_is_not_put_in_its_place(
    shop: Shop, tmp_path: Path
) -> None:
    url = list_object(shop, "/objects/book", 3 * MIB)
    shop.lie_about_range = 1
    with pytest.raises(DeliveryFailed, match="range"):
        await buy(url, tmp_path / "book", piece_size=MIB)
    assert not (tmp_path / "book").exists()


async def test_an_object_that_changes_under_way_is_not_mixed(shop: Shop, tmp_path: Path) -> None:
    url = list_object(shop, "/objects/book", 3 * MIB)
    out = tmp_path / "book"
    shop.faults.extend(["ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(url, out, piece_size=MIB, parallel=1)
    shop.files["/objects/book"] = content(3 * MIB, 5)
    with pytest.raises(DeliveryFailed, match="changed"):
        await buy(url, out, piece_size=MIB, parallel=1)
    assert not out.exists()


async def test_anything_else_behind_a_402_is_bought_whole(shop: Shop, tmp_path: Path) -> None:
    shop.files["/api/report.json"] = content(20_000)
    for versions in ((2,), (1,)):
        shop.versions = versions
        shop.seen.clear()
        out = tmp_path / f"v{versions[0]}"
        result = await buy(f"{shop.url}/api/report.json?x=1#y", out)
        assert out.read_bytes() == content(20_000)
        assert result.cost == 20
        assert [seen.version for seen in shop.seen] == [None, versions[0]]  # asked, then bought
    with pytest.raises(BudgetExceeded):
        await buy(f"{shop.url}/api/report.json", tmp_path / "c", total=19)
    with pytest.raises(BudgetExceeded, match="size is not known"):
        await buy(f"{shop.url}/api/report.json", tmp_path / "c", max_price=Price(10**6))
    with pytest.raises(DeliveryFailed, match="404"):
        await buy(f"{shop.url}/nothing", tmp_path / "c")


# Limits.


async def test_a_playlist_dearer_than_the_budget_is_refused_before_the_first_cent(
    shop: Shop, tmp_path: Path
) -> None:
    total = total_of(shop)
    with pytest.raises(BudgetExceeded):
        await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts", total=total - 1)
    assert beside(tmp_path / "a.ts") == []
    assert not [seen for seen in shop.seen if seen.path.endswith(".ts")]
    await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts", total=total)


async def test_a_segment_above_the_highest_price_is_refused_before_the_first_cent(
    shop: Shop, tmp_path: Path
) -> None:
    text = shop.texts["/hls/plasma/source/index.m3u8"]
    last = f"BYTES={SIZES[-1]},AMOUNT={shop.amount(SIZES[-1])}"
    shop.texts["/hls/plasma/source/index.m3u8"] = text.replace(
        last, f"BYTES={SIZES[-1]},AMOUNT=200"
    )
    url = f"{shop.url}/watch/plasma"
    with pytest.raises(BudgetExceeded, match="per MB"):
        await buy(url, tmp_path / "a.ts", max_price=Price(1000))
    assert not shop.payments


async def test_a_price_raised_above_the_playlists_stops_the_download(
    shop: Shop, tmp_path: Path
) -> None:
    shop.price = 1100
    with pytest.raises(TermsRefused, match="quoted"):
        await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts", parallel=1)
    assert not shop.payments
    shop.price = 900  # lower is welcome
    result = await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts", parallel=1)
    assert result.cost == shop.paid == total_of(shop)


async def test_after_an_error_what_is_paid_for_is_still_fetched(shop: Shop, tmp_path: Path) -> None:
    shop.faults.extend(["hold", "refuse:no", "ok"])

    async def release() -> None:
        await asyncio.to_thread(shop.refused.wait, 10)
        shop.release.set()

    waiting = asyncio.ensure_future(release())
    out = tmp_path / "a.ts"
    with pytest.raises(PaymentRefused):
        await buy(f"{shop.url}/watch/plasma", out, parallel=2)
    await waiting
    assert len(shop.charges) == 1
    text = (tmp_path / "a.ts.part.state").read_text()
    assert text.count('"piece"') == 1


# Going on.


async def test_a_download_goes_on_where_it_stopped(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "charge+503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    assert beside(out) == ["a.ts.part", "a.ts.part.state"]
    shop.seen.clear()
    result = await buy(f"{shop.url}/watch/plasma", out, parallel=1, total=total_of(shop))
    assert out.read_bytes() == shop.whole("plasma")
    assert result.cost == result.signed == shop.paid == total_of(shop)
    assert {seen.path[-4:] for seen in shop.seen} >= {"2.ts"[-4:]}
    assert not [seen for seen in shop.seen if seen.path.endswith(("/0.ts", "/1.ts"))]
    assert beside(out) == ["a.ts"]


async def test_what_earlier_runs_signed_counts(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "refuse:no"])
    with pytest.raises(PaymentRefused):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    with pytest.raises(BudgetExceeded):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1, total=total_of(shop) - 1)


async def test_bytes_damaged_on_disk_are_fetched_again_with_their_payment(
    shop: Shop, tmp_path: Path
) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok"] * 3 + ["503"] * 3)
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    with (tmp_path / "a.ts.part").open("r+b") as part:
        part.seek(SIZES[0] + 5)
        part.write(b"damage")
        part.truncate(SIZES[0] + SIZES[1] + 10)
    await buy(f"{shop.url}/watch/plasma", out)
    assert out.read_bytes() == shop.whole("plasma")
    assert shop.paid == total_of(shop)
    assert len([s for s in shop.seen if s.path.endswith(("/1.ts", "/2.ts")) and s.nonce]) == 4


async def test_a_torn_last_line_of_the_state_is_dropped(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    for _ in range(2):  # what is written after it must be read again
        with (tmp_path / "a.ts.part.state").open("ab") as state:
            state.write(b'{"signed": {"res')
        shop.faults.extend(["ok", "503", "503", "503"])
        with pytest.raises(PaymentPending):
            await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    await buy(f"{shop.url}/watch/plasma", out)
    assert out.read_bytes() == shop.whole("plasma")
    assert shop.paid == total_of(shop)


async def test_a_killed_download_buys_nothing_twice(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "ok", "hold"])
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom eth_account import Account\n"
        "from xbyte_live.client.payer.budget import Budget\n"
        "from xbyte_live.client.payer.payer import Payer\n"
        "from xbyte_live.client.download.download import Options, download\n"
        "payer = Payer(Account.from_key(sys.argv[3]), Budget(10**6))\n"
        "how = Options(parallel=1)\n"
        "asyncio.run(download(sys.argv[1], Path(sys.argv[2]), payer, options=how))\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, f"{shop.url}/watch/plasma", str(out), KEY, cwd=ROOT
    )
    assert await asyncio.to_thread(shop.held.wait, 60)
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    shop.release.set()
    paid_for = {seen.nonce for seen in shop.payments}
    assert len(paid_for) == 4
    result = await buy(f"{shop.url}/watch/plasma", out)
    assert out.read_bytes() == shop.whole("plasma")
    assert result.cost == result.signed == shop.paid == total_of(shop)
    assert paid_for < set(shop.charges)


async def test_a_connection_cut_here_and_there_costs_nothing_more(
    shop: Shop, tmp_path: Path
) -> None:
    async with cutting(shop) as wire:
        wire.cuts.extend([0, 1000, 10**9, 20_000, 0])
        result = await buy(f"{wire.url}/watch/plasma", tmp_path / "a.ts")
    assert (tmp_path / "a.ts").read_bytes() == shop.whole("plasma")
    assert result.signed == shop.paid == total_of(shop)


async def test_files_of_others_are_left_alone(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    url = f"{shop.url}/watch/plasma"
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists"):
        await buy(url, out)
    assert out.read_bytes() == b"mine"
    out.unlink()
    (tmp_path / "a.ts.part").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="something else"):
        await buy(url, out)
    (tmp_path / "a.ts.part").unlink()
    state = tmp_path / "a.ts.part.state"
    for text, why in (
        ('{"source":"http://other/x","layout":"placed"}\n', "http://other/x"),
        ("[]\n", "not the state"),
        ("garbage\n", "not the state"),
        ('{"source":"x","layout":"placed"}\n{"signed":{"x":1}}\n', "not the state"),
    ):
        state.write_text(text)
        with pytest.raises(ConfigError, match=why):
            await buy(url, out)
        assert state.read_text() == text
    state.unlink()
    shop.faults.append("hold")
    first = asyncio.ensure_future(buy(url, out, parallel=1))
    await asyncio.to_thread(shop.held.wait, 10)
    with pytest.raises(ConfigError, match="another download"):
        await buy(url, out)
    shop.release.set()
    await first
    assert shop.paid == total_of(shop)


async def test_a_title_that_was_replaced_is_not_mixed(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)
    shop.add_title("plasma", [5, *SIZES])
    with pytest.raises(ConfigError, match="changed"):
        await buy(f"{shop.url}/watch/plasma", out, parallel=1)


async def test_a_disk_that_is_too_small_is_noticed_before_paying(
    shop: Shop, tmp_path: Path
) -> None:
    text = shop.texts["/hls/plasma/source/index.m3u8"]
    shop.texts["/hls/plasma/source/index.m3u8"] = text.replace("BYTES=99,", f"BYTES={2**53},")
    with pytest.raises(StoreError, match="disk"):
        await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts")
    with pytest.raises(StoreError, match="cannot be written"):
        await buy(f"{shop.url}/watch/plasma", tmp_path / "no folder" / "a.ts")
    assert not shop.payments


# What a server may say.


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("http://other.example/1.ts", "another server"),
        ("https://127.0.0.1/1.ts", "another server"),
        ("file:///etc/passwd", "another server"),
        ("//other.example/1.ts", "another server"),
        ("0.ts", "twice"),
    ],
)
async def test_a_playlist_that_leads_astray(
    shop: Shop, tmp_path: Path, line: str, why: str
) -> None:
    text = shop.texts["/hls/plasma/source/index.m3u8"]
    shop.texts["/hls/plasma/source/index.m3u8"] = text.replace("\n1.ts", f"\n{line}")
    with pytest.raises(DeliveryFailed, match=why):
        await buy(f"{shop.url}/watch/plasma", tmp_path / "a.ts")
    assert not shop.payments


async def test_playlists_that_are_none(shop: Shop, tmp_path: Path) -> None:
    path = "/hls/plasma/source/index.m3u8"
    shop.texts[path] = "<html>"
    with pytest.raises(MediaError):
        await buy(shop.url + path, tmp_path / "a.ts")
    shop.texts[path] = "#EXTM3U\n" + "#\n" * 5 * MIB
    with pytest.raises(DeliveryFailed, match="larger"):
        await buy(shop.url + path, tmp_path / "a.ts")
    for url in ("ftp://x/y", "nonsense", "http://", "file:///etc/passwd"):
        with pytest.raises(ConfigError, match="URL"):
            await buy(url, tmp_path / "a.ts")
    with pytest.raises(DeliveryFailed, match="does not answer"):
        await buy("http://127.0.0.1:1/x.m3u8", tmp_path / "a.ts")
    assert beside(tmp_path / "a.ts") == []


async def test_a_playlist_without_prices_is_bought_for_what_each_402_asks(
    shop: Shop, tmp_path: Path
) -> None:
    path = "/hls/plasma/source/index.m3u8"
    lines = shop.texts[path].splitlines()
    shop.texts[path] = "\n".join(line for line in lines if "XBYTE" not in line)
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(shop.url + path, out)
    result = await buy(shop.url + path, out)
    assert out.read_bytes() == shop.whole("plasma")
    assert result.cost == shop.paid == total_of(shop)
    with pytest.raises(BudgetExceeded):
        await buy(shop.url + path, tmp_path / "b.ts", total=600)
    assert shop.paid <= total_of(shop) + 600


# Live.


class Broadcast:
    """A live playlist that grows whenever the downloader waits for it."""

    def __init__(self, shop: Shop, windows: list[range], *, then_end: bool = True) -> None:
        shop.add_title("live", [20_000 + n for n in range(12)])
        self._shop = shop
        self._windows = windows
        self._then_end = then_end
        self.waits: list[float] = []
        self._show()

    async def sleep(self, seconds: float) -> None:
        if seconds >= 0.5:  # not between two tries of one request
            self.waits.append(seconds)
            self._show()

    def _show(self) -> None:
        if self._windows:
            self._shop.list_segments("live", self._windows.pop(0), ended=False)
        elif self._then_end:
            self._shop.list_segments("live", range(8, 12))

    def bytes_of(self, msns: range) -> bytes:
        return b"".join(self._shop.files[f"/hls/live/source/{msn}.ts"] for msn in msns)


async def test_a_live_playlist_is_followed_to_its_end(shop: Shop, tmp_path: Path) -> None:
    live = Broadcast(shop, [range(3), range(3), range(2, 6), range(5, 9)])
    result = await buy(f"{shop.url}/watch/live", tmp_path / "a.ts", sleep=live.sleep)
    assert (tmp_path / "a.ts").read_bytes() == live.bytes_of(range(12))
    assert (result.ending, result.pieces) == ("complete", 12)
    assert live.waits == [1.0, 0.5, 1.0, 1.0]
    assert shop.paid == result.cost == sum(shop.amount(20_000 + n) for n in range(12))


async def test_a_live_download_ends_with_its_budget_or_time(shop: Shop, tmp_path: Path) -> None:
    live = Broadcast(shop, [range(3), range(2, 6)])
    result = await buy(f"{shop.url}/watch/live", tmp_path / "a.ts", sleep=live.sleep, total=4 * 20)
    assert (result.ending, result.pieces) == ("budget", 4)
    assert (tmp_path / "a.ts").read_bytes() == live.bytes_of(range(4))
    with pytest.raises(BudgetExceeded):
        await buy(f"{shop.url}/watch/live", tmp_path / "b.ts", total=5)
    now = [1_800_000_000.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    live = Broadcast(shop, [range(3)], then_end=False)
    result = await buy(
        f"{shop.url}/watch/live",
        tmp_path / "c.ts",
        sleep=sleep,
        time_limit=10,
        clock=lambda: now[0],
    )
    assert (result.ending, result.pieces, result.seconds) == ("time", 3, 10)


async def test_a_live_segment_that_is_gone_is_left_out(shop: Shop, tmp_path: Path) -> None:
    live = Broadcast(shop, [range(3)])
    gone = shop.files.pop("/hls/live/source/1.ts")
    result = await buy(f"{shop.url}/watch/live", tmp_path / "a.ts", sleep=live.sleep)
    assert (tmp_path / "a.ts").read_bytes() == (
        live.bytes_of(range(1)) + live.bytes_of(range(2, 3)) + live.bytes_of(range(8, 12))
    )
    assert result.pieces == 6
    shop.files["/hls/live/source/1.ts"] = gone


async def test_a_live_download_goes_on_after_a_stop(shop: Shop, tmp_path: Path) -> None:
    live = Broadcast(shop, [range(3), range(2, 6)])
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/live", out, sleep=live.sleep)
    result = await buy(f"{shop.url}/watch/live", out, sleep=live.sleep)
    assert out.read_bytes() == live.bytes_of(range(6)) + live.bytes_of(range(8, 12))
    assert len(shop.charges) == result.pieces == 10
    assert result.signed == result.cost == shop.paid


async def test_live_bytes_damaged_on_disk_leave_no_gap(shop: Shop, tmp_path: Path) -> None:
    live = Broadcast(shop, [range(4)])
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/live", out, sleep=live.sleep)
    with (tmp_path / "a.ts.part").open("r+b") as part:
        part.seek(20_000 + 5)
        part.write(b"damage")
    await buy(f"{shop.url}/watch/live", out, sleep=live.sleep)
    assert out.read_bytes() == live.bytes_of(range(4)) + live.bytes_of(range(8, 12))
    assert len(shop.charges) == 8


async def test_a_live_download_is_completed_after_the_broadcast_ended(
    shop: Shop, tmp_path: Path
) -> None:
    live = Broadcast(shop, [range(3)])
    out = tmp_path / "a.ts"
    shop.faults.extend(["ok", "ok", "503", "503", "503"])
    with pytest.raises(PaymentPending):
        await buy(f"{shop.url}/watch/live", out, sleep=live.sleep)
    shop.list_segments("live", range(1, 12))  # the window has moved on
    await buy(f"{shop.url}/watch/live", out)
    assert out.read_bytes() == shop.whole("live")
    assert len({seen.nonce for seen in shop.payments}) == 12


# Plans.


def test_pages_lead_to_playlists() -> None:
    for page, playlist in (
        ("http://h/watch/plasma", "http://h/hls/plasma/index.m3u8"),
        ("https://h/x/watch/plasma/?t=5#a", "https://h/x/hls/plasma/index.m3u8"),
        ("http://h/watch/Plasma", "http://h/watch/Plasma"),
        ("http://h/objects/a#b", "http://h/objects/a"),
    ):
        assert playlist_of_page(page) == playlist


def test_names_for_files_are_harmless() -> None:
    for url, name in (
        ("http://h/watch/plasma", "plasma.ts"),
        ("http://h/hls/plasma/source/index.m3u8", "plasma.ts"),
        ("http://h/objects/book.pdf", "book.pdf"),
        ("http://h/objects/..", "download"),
        ("http://h/objects/.bashrc", "download"),
        ("http://h/objects/%2e%2e%2fx", "download"),
        ("http://h/hls/../x.m3u8", "download.ts"),
        ("http://h/", "download"),
    ):
        assert suggested_name(url) == name


def test_the_pieces_of_an_object_cover_it_once() -> None:
    for size in (0, 1, MIB, MIB + 1, 3 * MIB - 1):
        pieces = object_pieces("u", size, Price(1000), MIB)
        assert sum(piece.size or 0 for piece in pieces) == size
        assert sum(p.amount or 0 for p in pieces) == Price(1000).amount_for(size)
        starts = [piece.start or 0 for piece in pieces]
        assert starts == [i * MIB for i in range(len(pieces))]
    assert object_pieces("u", MIB, Price(1), MIB) == (OfferedPiece("u", MIB, 1),)
    assert len(object_pieces("u", 2**50, Price(0), MIB)) <= 100_000

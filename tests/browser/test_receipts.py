"""Receipts: what is exported is what was bought, no more and no less."""

import csv
import json
from pathlib import Path

from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import WatchPage, paid_in_full, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER


async def saved(watch: WatchPage, kind: str, folder: Path) -> Path:
    """The file one gets at a click."""
    async with watch.page.expect_download() as coming:
        await watch.page.get_by_role("button", name=kind, exact=True).click()
    download = await coming.value
    assert download.suggested_filename == f"{watch.slug}-receipts.{kind.lower()}"
    path = folder / download.suggested_filename
    await download.save_as(path)
    return path


async def test_exports_hold_exactly_what_was_paid(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        await watch.play("Test wallet")
        await watch.playing(7)
        await watch.pause()
        paid, bought = await paid_in_full(watch), watch.bought()
        await watch.page.get_by_text("Receipts").first.click()
        await expect(watch.page.locator("#receipt-rows tr")).to_have_count(len(bought))

        as_json = json.loads((await saved(watch, "JSON", tmp_path)).read_text("utf-8"))
        text = (await saved(watch, "CSV", tmp_path)).read_text("utf-8")
        as_csv = list(csv.DictReader(text.splitlines()))

        assert [{**row, "bytes": int(row["bytes"])} for row in as_csv] == as_json
        assert [(row["url"], row["bytes"]) for row in as_json] == [
            (f"{demo.url}/{one.path}", one.size) for one in bought
        ]
        assert sum(int(row["amount"]) for row in as_json) == paid
        assert int(as_json[-1]["cumulative"]) == paid  # a channel of its own
        assert {row["channel"] for row in as_json} == {bought[0].channel}
        assert [bool(row["transaction"]) for row in as_json] == [one.deposits for one in bought]
        await watch.tab.check()

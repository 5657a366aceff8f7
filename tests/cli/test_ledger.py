"""``ledger audit`` and ``ledger export`` as an operator and a bookkeeper use them."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result

from tests.support.ledger_books import ASSET, DAYS, PAY_TO, Busy, a_busy_shop
from xbyte_live.cli import main
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.reports.export import COLUMNS, Entry, Export
from xbyte_live.storage.db.engine import Database

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
async def busy(database: Database) -> Busy:
    return await a_busy_shop(database)


async def entries(busy: Busy, since: float = 0.0, until: float = 1e11) -> list[Entry]:
    found: list[Entry] = []
    seen: list[tuple[int, int]] = []
    export = Export(busy.shop.database)
    count = await export.entries(since, until, found.append, lambda *at: seen.append(at))
    assert count == len(found) and seen[-1] == (count, count)
    return found


def of(found: list[Entry], kind: str) -> list[tuple[int, int]]:
    return [(entry.amount, entry.income) for entry in found if entry.kind == kind]


async def test_every_delivery_is_a_row_and_income_adds_up(busy: Busy) -> None:
    found = await entries(busy)

    assert of(found, "delivery") == [
        *((a, a) for a in (9, 10, 11, 5, 6, 12)),
        *((a, a) for a in (13, 15)),
    ]
    assert of(found, "purchase") == [(200, 200), (300, 300), (400, 400)]
    assert of(found, "draw") == [(50, 0), (60, 0), (70, 0)]
    assert of(found, "return") == [(70, -70), (150, -150), (330, -330)]
    days = {(e.scheme, e.count, e.bytes, e.amount, e.income) for e in found if e.kind == "day"}
    assert days == {
        ("batch-settlement", 2, 150, 15, 15),
        ("batch-settlement/session", 1, 1000, 100, 100),
        ("session", 1, 300, 30, 0),
        ("exact", 1, 100_000, 40, 40),
    }
    charged = 0
    for payer in (busy.plain, busy.sessions, busy.refunding):
        charged += (await busy.shop.channel(payer)).charged
    assert sum(entry.income for entry in found) == charged + 40 + 13 + 15 + 70


async def test_rolling_up_changes_no_income(busy: Busy) -> None:
    before = await entries(busy)
    busy.shop.pass_days(DAYS + 30)
    assert await busy.shop.roll_up()
    after = await entries(busy)

    assert sum(e.income for e in after) == sum(e.income for e in before)
    for scheme in ("exact", "session"):
        assert sum(e.amount for e in after if e.scheme == scheme) == sum(
            e.amount for e in before if e.scheme == scheme
        )


async def test_a_day_is_told_once_by_whoever_asks_for_it(busy: Busy) -> None:
    whole = await entries(busy)
    first = min(e.at for e in whole) // DAY * DAY
    last = max(e.at for e in whole) // DAY * DAY + DAY
    middle = first + DAY
    parts = await entries(busy, first, middle) + await entries(busy, middle, last)
    key = [(e.kind, e.at, e.amount) for e in whole]
    assert sorted((e.kind, e.at, e.amount) for e in parts) == sorted(key)
    assert await entries(busy, last, last + DAY) == []


async def test_more_rows_than_a_page_come_once_each(busy: Busy) -> None:
    for _ in range(1100):
        assert await busy.shop.charge(busy.plain, 1) == "charged"
    found = [e for e in await entries(busy) if e.kind == "delivery" and e.amount == 1]
    assert len({e.resource for e in found}) == len(found) == 1100


# The command line


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return {"XBYTE_DATA_DIR": str(tmp_path), "XBYTE_RPC_URLS": f"{ASSET.network}={NOBODY}"}


@pytest.fixture
def sold(env: dict[str, str], tmp_path: Path) -> Iterator[Busy]:
    """A busy shop in the database that the command line opens."""
    with start_blocking_portal() as portal:
        database = Database(f"sqlite:///{tmp_path / 'xbyte.db'}")
        portal.call(database.start)
        yield portal.call(a_busy_shop, database)
        portal.call(database.stop)


def run(env: dict[str, str], *args: str) -> Result:
    return CliRunner().invoke(main, ("ledger", *args), env=env)


def test_nothing_sold_is_clean(env: dict[str, str]) -> None:
    result = run(env, "audit")
    assert result.exit_code == 0, result.output
    assert "no disagreements" in result.stderr


def test_an_audit_without_the_chain(env: dict[str, str], sold: Busy) -> None:
    result = run(env, "audit", "--no-chain")
    assert result.exit_code == 0, result.output
    assert "0.000448" in result.stdout and PAY_TO in result.stdout
    assert "the chain was not asked" in result.stderr


def test_a_chain_that_is_down_ends_with_a_code_of_its_own(env: dict[str, str], sold: Busy) -> None:
    result = run(env, "audit")
    assert result.exit_code == 3, result.output
    assert "the chain is not checked: eip155:84532: the RPC node gave no answer" in result.stderr
    told = json.loads(run(env, "audit", "--json").stdout)
    assert (told["clean"], told["chain"], told["disagreements"]) == (True, "not checked", [])
    assert told["unchecked"] and told["payees"][0]["charged"] == 448


def test_a_disagreement_ends_with_one_and_is_shown(
    env: dict[str, str], sold: Busy, tmp_path: Path
) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "xbyte.db") as db:
        db.execute("UPDATE channels SET reserved = 3 WHERE id = 1")
    db.close()
    result = run(env, "audit")
    assert result.exit_code == 1
    assert "channel.reserved" in result.stdout and sold.plain.channel_id in result.stdout
    (found,) = json.loads(run(env, "audit", "--json").stdout)["disagreements"]
    assert (found["code"], found["expected"], found["found"]) == ("channel.reserved", 0, 3)


def export(env: dict[str, str], *more: str) -> Result:
    result = run(env, "export", "--from", "2025-01-01", "--to", "2027-01-01", *more)
    assert result.exit_code == 0, result.output
    return result


def test_csv_and_json_have_the_same_rows(env: dict[str, str], sold: Busy, tmp_path: Path) -> None:
    out = tmp_path / "books.csv"
    export(env, "--out", str(out))
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    listed: list[dict[str, Any]] = json.loads(export(env, "--format", "json").stdout)

    assert list(rows[0]) == list(COLUMNS)
    assert [{k: str(v) for k, v in row.items()} for row in listed] == rows
    assert export(env).stdout == out.read_text("utf-8")
    assert [p.name for p in tmp_path.glob("*.part")] == []
    first = next(row for row in listed if row["kind"] == "delivery")
    assert datetime.fromisoformat(first["time"]).tzinfo == UTC
    assert (first["amount"], first["dollars"], first["payee"]) == (9, "0.000009", PAY_TO)
    assert first["reference"] == sold.plain.channel_id


def test_no_rows_are_an_empty_list(env: dict[str, str]) -> None:
    assert json.loads(export(env, "--format", "json").stdout) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--from", "2026-01-02", "--to", "2026-01-02"), "--to"),
        (("--from", "2026-01-02", "--to", "yesterday"), "%Y-%m-%d"),
        (("--from", "2026-01-02", "--to", "2026-02-02", "--out", "no/such/x.csv"), "--out"),
    ],
)
def test_a_mistake_is_one_line(env: dict[str, str], args: tuple[str, ...], says: str) -> None:
    result = run(env, "export", *args)
    assert result.exit_code in (1, 2) and says in result.stderr

"""Adapter: earnings, payers and balances as JSON, for the studio and for platforms."""

import asyncio
import tempfile
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import BadRequest, ItemNotFound, Overloaded
from xbyte_live.models import Item, Object, Stream, Title, check_slug
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.reports.balances import Balance
from xbyte_live.payments.reports.earnings import Earned, Earnings, Moment, PayerEarnings, Period
from xbyte_live.payments.reports.export import Export, Format, writing
from xbyte_live.web.admin.auth import Guard
from xbyte_live.web.admin.periods import DAY, read_period, read_step, read_whole
from xbyte_live.web.common.responses import JSON, NO_STORE, json_reply

ITEMS = 200  # items a report names
MOMENTS = 2000  # places on a timeline a heat map names
PAYERS = 500

_KEPT = 32  # answers that are kept
_KEPT_FOR = 10  # times as long as they took
_CHUNK = 262_144  # bytes of an export read at once

Answer = dict[str, Any]


class Dashboard:
    """Serves ``/api/v1/{earnings,payers,settlement,export}``.

    Sums over long periods take the database a while, so only one runs at a time, and its result
    is kept ten times as long as it took.
    """

    def __init__(
        self,
        earnings: Earnings,
        export: Export,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._earnings = earnings
        self._export = export
        self._catalog = catalog
        self._clock = clock
        self._kept: OrderedDict[tuple[object, ...], tuple[float, Answer]] = OrderedDict()
        self._summing = asyncio.Lock()
        self._exporting = asyncio.Lock()

    def routes(self, guard: Guard) -> list[Route]:
        """Its routes, all guarded."""
        return [
            guard.route("/api/v1/earnings", self.earned),
            guard.route("/api/v1/earnings/{slug}/moments", self.moments),
            guard.route("/api/v1/payers", self.payers),
            guard.route("/api/v1/settlement", self.settlement),
            guard.route("/api/v1/export", self.export),
        ]

    async def earned(self, request: Request) -> Response:
        """``GET /api/v1/earnings``: earnings by step of time, by item, and in all."""
        query = request.query_params
        since, until = read_period(query, self._clock())
        step, period = read_step(query, since, until), _period(query, since, until)

        async def work() -> Answer:
            report = await self._earnings.report(period, step=step)
            named, others = report.items[:ITEMS], report.items[ITEMS:]
            return {
                "from": since,
                "to": until,
                "step": step,
                "total": _money(report.total),
                "series": [{"at": since + n * step, **_money(e)} for n, e in report.steps.items()],
                "items": [{"slug": slug, **_money(earned)} for slug, earned in named],
                "other_items": _money(sum((earned for _, earned in others), Earned())),
            }

        return await self._reply(("earned", period, step), work)

    async def moments(self, request: Request) -> Response:
        """``GET /api/v1/earnings/{slug}/moments``: which moments of an item earn."""
        item = await self._catalog.item(check_slug(request.path_params["slug"]))
        if item is None:
            raise ItemNotFound("there is no such item; /api/v1/catalog lists what there is")
        since, until = read_period(request.query_params, self._clock(), days=30)
        period = Period(since, until, item.slug)
        places = _places(item)

        async def work() -> Answer:
            found = await self._earnings.moments(period, list(places))
            timeline, width = _timeline(places, found.segments)
            return {
                "slug": item.slug,
                "from": since,
                "to": until,
                "duration_seconds": _duration_us(item) / 1e6,
                "merged_seconds": width,
                "moments": timeline,
                "elsewhere": _moment(found.elsewhere),
            }

        return await self._reply(("moments", period, len(places)), work)

    async def payers(self, request: Request) -> Response:
        """``GET /api/v1/payers``: the payers of most."""
        query = request.query_params
        since, until = read_period(query, self._clock(), days=30)
        limit, period = read_whole(query, "limit", 50, PAYERS), _period(query, since, until)

        async def work() -> Answer:
            found = await self._earnings.payers(period, limit=limit)
            top = [_payer(payer) for payer in found.top]
            return {"from": since, "to": until, "count": found.count, "payers": top}

        return await self._reply(("payers", period, limit), work)

    async def settlement(self, _: Request) -> Response:
        """``GET /api/v1/settlement``: charged, claimed and paid out, by payee and asset."""

        async def work() -> Answer:
            found = await self._earnings.settlement()
            return {"at": self._clock(), "payees": [_settled(payee) for payee in found]}

        return await self._reply(("settlement",), work)

    async def export(self, request: Request) -> Response:
        """``GET /api/v1/export``: every delivery of some days (UTC), as a file."""
        query = request.query_params
        if "from" not in query or "to" not in query:
            raise BadRequest("name the days: `from` is included, `to` is not")
        since, until = read_period(query, self._clock())
        form = query.get("format", "csv")
        if form not in ("csv", "json"):
            raise BadRequest("format is csv or json")
        if since % DAY or until % DAY:
            raise BadRequest("from and to are days, such as 2026-01-31, beginning in UTC")
        named = f'attachment; filename="xbyte-live.{form}"'
        headers = {
            **NO_STORE,
            "content-type": "text/csv; charset=utf-8" if form == "csv" else JSON,
            "content-disposition": named,
        }
        if request.method == "HEAD":
            return Response(None, 200, headers)
        if self._exporting.locked():
            raise Overloaded("an export is being written already; try again shortly")
        async with self._exporting:
            file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115
            try:
                with writing(cast(Format, form), file) as take:
                    await self._export.entries(since, until, take, _ignore)
            except BaseException:
                file.close()
                raise
        return StreamingResponse(_read(file), 200, headers)

    async def _reply(
        self, key: tuple[object, ...], work: Callable[[], Awaitable[Answer]]
    ) -> Response:
        async with self._summing:
            now = time.monotonic()
            good_until, answer = self._kept.get(key, (0.0, {}))
            if now >= good_until:
                answer = await work()
                done = time.monotonic()
                self._kept[key] = (done + _KEPT_FOR * (done - now), answer)
                self._kept.move_to_end(key)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return json_reply(answer, NO_STORE)


def money(amount: int) -> Answer:
    """An amount as strings: atomic units and dollars."""
    return {"amount": str(amount), "dollars": format_decimal(amount, PRICE_DECIMALS)}


def _period(query: Mapping[str, str], since: int, until: int) -> Period:
    slug = query.get("slug")
    return Period(since, until, None if slug is None else check_slug(slug))


def _money(earned: Earned) -> Answer:
    return {
        "deliveries": earned.deliveries,
        "bytes": earned.bytes,
        **money(earned.amount),
        "income": str(earned.income),
    }


def _moment(moment: Moment) -> Answer:
    return {"plays": moment.plays, "bytes": moment.bytes, **money(moment.amount)}


def _payer(payer: PayerEarnings) -> Answer:
    times = {"first_at": payer.first_at, "last_at": payer.last_at}
    return {"payer": payer.payer, **_money(payer.earned), **times}


def _settled(payee: Balance) -> Answer:
    return {k: str(v) if isinstance(v, int) else v for k, v in asdict(payee).items()}


def _places(item: Item) -> dict[str, tuple[int, int]]:
    """Start and duration in µs of each resource of an item, by its path."""
    if isinstance(item, Object):
        return {}
    return {
        f"/hls/{item.slug}/{rendition.name}/{segment.msn}.ts": (
            segment.start_us,
            segment.duration_us,
        )
        for rendition in item.renditions
        for segment in rendition.segments
    }


def _duration_us(item: Item) -> int:
    if isinstance(item, Title):
        return item.duration_us
    if isinstance(item, Stream):
        return max((r.segments[-1].end_us for r in item.renditions if r.segments), default=0)
    return 0


def _timeline(
    places: Mapping[str, tuple[int, int]], sold: Mapping[str, Moment]
) -> tuple[Sequence[Answer], float | None]:
    """Moments in order, renditions added up; more than ``MOMENTS`` are merged into equal parts."""
    by_start: dict[int, tuple[int, Moment]] = {}
    for name, (start, duration) in places.items():
        longest, moment = by_start.get(start, (0, Moment()))
        by_start[start] = (max(longest, duration), moment + sold.get(name, Moment()))
    if len(by_start) <= MOMENTS:
        return [
            {"start_seconds": start / 1e6, "duration_seconds": duration / 1e6, **_moment(moment)}
            for start, (duration, moment) in sorted(by_start.items())
        ], None
    first, last = min(by_start), max(start + lasts for start, (lasts, _) in by_start.items())
    width = -(-(last - first) // MOMENTS)
    parts: dict[int, Moment] = {}
    for start, (_, moment) in by_start.items():
        number = (start - first) // width
        parts[number] = parts.get(number, Moment()) + moment
    return [
        {
            "start_seconds": (first + number * width) / 1e6,
            "duration_seconds": width / 1e6,
            **_moment(parts.get(number, Moment())),
        }
        for number in range(max(parts) + 1)
    ], width / 1e6


def _read(file: TextIO) -> Iterator[bytes]:
    with file:
        file.flush()
        file.seek(0)
        while text := file.read(_CHUNK):
            yield text.encode()


def _ignore(_: int, __: int) -> None:
    """Ignore the progress of an export."""

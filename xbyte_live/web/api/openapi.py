"""Pure: the API described for programs, as an OpenAPI 3.1 document."""

from xbyte_live import __version__
from xbyte_live.web.api.openapi_schemas import SCHEMAS, Json, ref

_ADMIN: list[Json] = [{"token": []}, {"login": []}]
_ABOUT = (
    "What pages and platforms use. Amounts are strings of atomic units (six decimals: a million "
    "is one dollar); `dollars` says the same as a decimal. 1 MB is 1,048,576 bytes. Times are "
    "Unix seconds unless a name ends in `_s` (a duration). Media, playlists and payments are "
    "described by RFC 8216bis and x402 v2; each item's `pricing.json` says what it costs."
)


def document(server: str) -> Json:
    """The document for a server that is reached at a URL."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "xByte Live",
            "version": __version__,
            "summary": "Live feeds and files as HLS, sold by the byte over x402",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "tags": [
            {"name": "public", "description": "Free for everyone."},
            {"name": "money", "description": "What was earned, and where it is."},
            {"name": "items", "description": "Streams, their keys, and what items cost."},
        ],
        "paths": {**_public(), **_money(), **_items()},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin token: `xbyte-live studio` says where it is.",
                },
                "login": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "xbyte_studio",
                    "description": "What the studio's page has after a login; over TLS its name "
                    "begins with `__Host-`. Requests that change something need the page's Origin.",
                },
            },
            "responses": _RESPONSES,
            "schemas": SCHEMAS,
        },
    }


def _public() -> Json:
    return {
        "/api/v1/catalog": _path(
            get=_does("Everything on sale", "catalog", _ok("Catalog"), tag="public")
        ),
        "/api/v1/site": _path(
            get=_does("What this server is, and the money it takes", "site", _ok("Site"))
        ),
        "/api/v1/streams": _path(
            get=_does("Every stream and how it is doing", "streams", _ok("Streams")),
            post=_does(
                "Make a stream; its key is shown this once",
                "createStream",
                {"201": _json("NewKey", "It was made"), **_refs("400", "409")},
                tag="items",
                body="NewStream",
            ),
        ),
        "/api/v1/streams/{slug}": _path(
            _SLUG,
            get=_does(
                "How a stream is doing, and what is wrong with its feed",
                "stream",
                {**_ok("StreamStatus"), **_refs("404")},
            ),
        ),
        "/api/v1/sessions": _path(
            post=_does(
                "Buy a URL that any player plays, for a budget",
                "buySession",
                {
                    "201": _json("Session", "Paid for"),
                    "402": {
                        "description": "What to pay, as x402 has it: `PAYMENT-REQUIRED`",
                        "headers": {
                            "PAYMENT-REQUIRED": {"schema": {"type": "string"}, "required": True}
                        },
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    **_refs("400", "404"),
                },
                body="WantedSession",
                more=[
                    _header("PAYMENT-SIGNATURE", "An x402 v2 payment; without it, 402"),
                    _header("X-PAYMENT", "An x402 v1 payment"),
                    _header("Idempotency-Key", "Tells two like sessions of a payer apart"),
                ],
            ),
        ),
        "/api/v1/openapi.json": _path(
            get=_does(
                "This document",
                "openapi",
                {
                    "200": {
                        "description": "OpenAPI 3.1",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            )
        ),
        "/hls/{slug}/pricing.json": _path(
            _SLUG,
            get=_does(
                "What a title or stream costs, and how it may be paid",
                "pricing",
                {**_ok("Pricing"), **_refs("404")},
            ),
        ),
        "/objects/{slug}/pricing.json": _path(
            _SLUG,
            get=_does(
                "What an object costs, and how it may be paid",
                "objectPricing",
                {**_ok("Pricing"), **_refs("404")},
            ),
        ),
    }


def _money() -> Json:
    return {
        "/api/v1/earnings": _path(
            get=_does(
                "What was earned: by time, by item, and in all",
                "earnings",
                {**_ok("Earnings"), **_refs("400", "404")},
                tag="money",
                more=[
                    *_PERIOD,
                    _query("slug", {"type": "string"}, "Of one item only"),
                    _query(
                        "step",
                        {"type": "integer", "minimum": 1},
                        "Seconds; at most 2000 steps. What was summed up by day is at its day's "
                        "first moment (UTC).",
                    ),
                ],
            )
        ),
        "/api/v1/earnings/{slug}/moments": _path(
            _SLUG,
            get=_does(
                "Which moments of an item earn: every play counts, rewinds included",
                "moments",
                {**_ok("Moments"), **_refs("400", "404")},
                tag="money",
                more=_PERIOD,
            ),
        ),
        "/api/v1/payers": _path(
            get=_does(
                "Who paid most",
                "payers",
                {**_ok("Payers"), **_refs("400", "404")},
                tag="money",
                more=[
                    *_PERIOD,
                    _query("slug", {"type": "string"}, "For one item only"),
                    _query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
                        "At most so many",
                    ),
                ],
            )
        ),
        "/api/v1/settlement": _path(
            get=_does(
                "Charged, claimed and settled, by payee and asset",
                "settlement",
                _ok("Settlement"),
                tag="money",
            )
        ),
        "/api/v1/export": _path(
            get=_does(
                "Every delivery of some days, a row each",
                "export",
                {
                    "200": {
                        "description": "The rows",
                        "content": {
                            "text/csv": {"schema": {"type": "string"}},
                            "application/json": {
                                "schema": {"type": "array", "items": {"type": "object"}}
                            },
                        },
                    },
                    **_refs("400"),
                },
                tag="money",
                more=[
                    _query("from", _DAY, "First day, UTC, included", required=True),
                    _query("to", _DAY, "Day to stop before, UTC", required=True),
                    _query(
                        "format", {"type": "string", "enum": ["csv", "json"], "default": "csv"}, ""
                    ),
                ],
            )
        ),
        "/api/v1/events": _path(
            get=_does(
                "Live figures as server-sent events",
                "events",
                {
                    "200": {
                        "description": "`figures` events, each with a `Figures` as its data, "
                        "whenever they change; it ends now and then, to be asked for again",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                },
                tag="money",
            )
        ),
    }


def _items() -> Json:
    return {
        "/api/v1/streams/{slug}/keys": _path(
            _SLUG,
            get=_does(
                "What is known of a stream's keys, and where publishers push to",
                "streamKeys",
                {**_ok("Keys"), **_refs("404")},
                tag="items",
            ),
            post=_does(
                "One more key, which is shown this once",
                "addStreamKey",
                {"201": _json("NewKey", "It was made"), **_refs("400", "404")},
                tag="items",
                body="WantedKey",
            ),
        ),
        "/api/v1/streams/{slug}/keys/rotate": _path(
            _SLUG,
            post=_does(
                "Revoke every key of a stream and make a new one",
                "rotateStreamKeys",
                {**_ok("NewKey"), **_refs("400", "404")},
                tag="items",
            ),
        ),
        "/api/v1/streams/{slug}/keys/{id}": _path(
            _SLUG,
            {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
            delete=_does(
                "Revoke a key; who is on air with it is cut off",
                "revokeStreamKey",
                {**_ok("Revoked"), **_refs("404")},
                tag="items",
            ),
        ),
        "/api/v1/items/{slug}": _path(
            _SLUG,
            get=_does(
                "An item as its publisher sees it",
                "item",
                {**_ok("Item"), **_refs("404")},
                tag="items",
            ),
            patch=_does(
                "Change what an item costs; quotes that were given stay good for a while",
                "changeItem",
                {**_ok("Item"), **_refs("400", "404")},
                tag="items",
                body="Terms",
            ),
            delete=_does(
                "Take an item off sale, and off the air",
                "removeItem",
                {**_ok("Removed"), **_refs("404")},
                tag="items",
            ),
        ),
    }


def _path(*parameters: Json, **operations: Json) -> Json:
    return {**({"parameters": list(parameters)} if parameters else {}), **operations}


def _does(
    summary: str,
    name: str,
    responses: Json,
    *,
    tag: str = "public",
    body: str | None = None,
    more: list[Json] | None = None,
) -> Json:
    admin = tag != "public"
    found: Json = {"tags": [tag], "summary": summary, "operationId": name}
    if more:
        found["parameters"] = more
    if body:
        found["requestBody"] = {"required": True, "content": _content(body)}
    always = ("401", "403", "429", "503") if admin else ("503",)
    found["responses"] = {**responses, **_refs(*always)}
    found["security"] = _ADMIN if admin else []
    return found


def _ok(schema: str) -> Json:
    return {"200": _json(schema, "As asked")}


def _json(schema: str, description: str) -> Json:
    return {"description": description, "content": _content(schema)}


def _content(schema: str) -> Json:
    return {"application/json": {"schema": ref(schema)}}


def _refs(*statuses: str) -> Json:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _query(name: str, schema: Json, about: str, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": about,
        "schema": schema,
    }


def _header(name: str, about: str) -> Json:
    return {"name": name, "in": "header", "description": about, "schema": {"type": "string"}}


_DAY = {"type": "string", "examples": ["2026-01-31"]}
_SLUG = {
    "name": "slug",
    "in": "path",
    "required": True,
    "description": "The item's name in URLs",
    "schema": {"type": "string", "pattern": "^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"},
}
_PERIOD = [
    _query("from", _DAY, "Unix seconds or ISO 8601 (UTC), included"),
    _query("to", _DAY, "The same, not included; without it: now"),
]

_RESPONSES: Json = {
    status: _json("Problem", about)
    for status, about in (
        ("400", "The request means nothing"),
        ("401", "No admin token and no login"),
        ("403", "A page of another origin asked"),
        ("404", "There is no such thing"),
        ("409", "The slug is taken"),
        ("429", "Too many wrong tokens came from this network"),
        ("503", "Too much waits, or the database is away; try again shortly"),
    )
}

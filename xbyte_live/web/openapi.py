"""Pure: the API described for programs, as an OpenAPI 3.1 document."""

from typing import Any

from xbyte_live import __version__

Json = dict[str, Any]

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
            "schemas": _SCHEMAS,
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
                {**_ok("Earnings"), **_refs("400")},
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
                {**_ok("Payers"), **_refs("400")},
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
                    **_refs("400", "503"),
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
                    **_refs("503"),
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
                {**_ok("NewKey"), **_refs("404")},
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
    found["responses"] = {**responses, **(_refs("401", "403", "429") if admin else {})}
    found["security"] = _ADMIN if admin else []
    return found


def _ok(schema: str) -> Json:
    return {"200": _json(schema, "As asked")}


def _json(schema: str, description: str) -> Json:
    return {"description": description, "content": _content(schema)}


def _content(schema: str) -> Json:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


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


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(schema: str) -> Json:
    return {"type": "array", "items": _ref(schema)}


_TEXT: Json = {"type": "string"}
_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_TIME: Json = {"type": "number"}
_MAYBE_TIME: Json = {"type": ["number", "null"]}
_FLAG: Json = {"type": "boolean"}
_UNITS: Json = {"type": "string", "pattern": "^-?[0-9]+$"}
_DOLLARS: Json = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,6})?$"}
_REWATCH: Json = {"type": "string", "enum": ["paid", "free"]}
_PRICE: Json = {**_DOLLARS, "description": "Dollars per MB"}
_ADDRESS: Json = {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}
_EARNED: Json = {
    "deliveries": _COUNT,
    "bytes": _COUNT,
    "amount": {**_UNITS, "description": "What the delivered bytes cost"},
    "dollars": _DOLLARS,
    "income": {**_UNITS, "description": "What payers were charged less what sessions returned"},
}
_EARNED_ALL = "deliveries bytes amount dollars income"

_SCHEMAS: Json = {
    "Problem": _object("error message", error=_TEXT, message=_TEXT),
    "Catalog": _object("items", items=_list("CatalogItem")),
    "CatalogItem": _object(
        "slug name kind price_per_mb rewatch url pricing_url",
        slug=_TEXT,
        name=_TEXT,
        kind={"type": "string", "enum": ["title", "stream", "object"]},
        price_per_mb=_PRICE,
        price_per_minute={**_DOLLARS, "type": ["string", "null"]},
        price_whole={**_DOLLARS, "type": ["string", "null"]},
        rewatch=_REWATCH,
        has_video=_FLAG,
        viewers_paying=_COUNT,
        duration_seconds=_TIME,
        preview_seconds=_TIME,
        state=_TEXT,
        started_at=_MAYBE_TIME,
        size=_COUNT,
        content_type=_TEXT,
        url=_TEXT,
        pricing_url=_TEXT,
        poster_url=_MAYBE_TEXT,
        status_url=_TEXT,
    ),
    "Pricing": {
        "allOf": [
            _ref("CatalogItem"),
            _object(
                "bytes_per_mb pay_to asset networks schemes",
                bytes_per_mb=_COUNT,
                quote_ttl_seconds=_COUNT,
                pay_to=_ADDRESS,
                asset=_ADDRESS,
                networks={"type": "array", "items": _TEXT},
                schemes={"type": "array", "items": _TEXT},
            ),
        ]
    },
    "Site": _object(
        "name version networks",
        name=_TEXT,
        version=_TEXT,
        networks=_list("Network"),
    ),
    "Network": _object(
        "network chain_id name asset symbol decimals",
        network={**_TEXT, "description": "CAIP-2"},
        chain_id=_COUNT,
        name=_TEXT,
        asset=_ADDRESS,
        symbol=_TEXT,
        decimals=_COUNT,
        rpc_url=_MAYBE_TEXT,
        faucet_url=_MAYBE_TEXT,
    ),
    "Streams": _object("streams", streams=_list("StreamStatus")),
    "StreamStatus": _object(
        "slug name state connected feed",
        slug=_TEXT,
        name=_TEXT,
        state={"type": "string", "enum": ["idle", "on_air", "waiting", "ended"]},
        connected=_FLAG,
        broadcast=_COUNT,
        on_air_since=_MAYBE_TIME,
        on_air_for_s=_MAYBE_TIME,
        playlist={"type": "string", "enum": ["window", "event"]},
        window_s=_TIME,
        recording=_FLAG,
        pulled=_FLAG,
        viewers_paying=_COUNT,
        feed={
            "type": ["object", "null"],
            "description": "What the feed last said of itself, with `warnings`",
        },
    ),
    "WantedSession": _object(
        "slug",
        slug=_TEXT,
        budget={**_DOLLARS, "description": "Dollars; or say `minutes`"},
        minutes={"type": "integer", "minimum": 1},
        ttl={"type": "integer", "minimum": 1, "description": "Seconds it lasts"},
    ),
    "Session": _object(
        "token url budget drawn left expires_at",
        token=_TEXT,
        slug=_TEXT,
        url=_TEXT,
        budget=_DOLLARS,
        drawn=_DOLLARS,
        left=_DOLLARS,
        expires_at=_TIME,
        topup_url=_TEXT,
    ),
    "Earned": _object(_EARNED_ALL, **_EARNED),
    "Earnings": _object(
        "from to step total series items other_items",
        **{"from": _TIME, "to": _TIME},
        step=_COUNT,
        total=_ref("Earned"),
        series={
            "type": "array",
            "maxItems": 2000,
            "description": "Steps in which nothing was earned are left out",
            "items": _object(f"at {_EARNED_ALL}", at=_TIME, **_EARNED),
        },
        items={
            "type": "array",
            "maxItems": 200,
            "description": "Those that earned most first; no name: debts that were paid",
            "items": _object(f"slug {_EARNED_ALL}", slug=_TEXT, **_EARNED),
        },
        other_items=_ref("Earned"),
    ),
    "Moment": _object(
        "plays bytes amount dollars", plays=_COUNT, bytes=_COUNT, amount=_UNITS, dollars=_DOLLARS
    ),
    "Moments": _object(
        "slug duration_s moments elsewhere",
        slug=_TEXT,
        **{"from": _TIME, "to": _TIME},
        duration_s=_TIME,
        merged_s={
            **_MAYBE_TIME,
            "description": "How long each place is, where segments were too many to be named",
        },
        moments={
            "type": "array",
            "maxItems": 2000,
            "items": _object(
                "start_s duration_s plays bytes amount dollars",
                start_s=_TIME,
                duration_s=_TIME,
                plays=_COUNT,
                bytes=_COUNT,
                amount=_UNITS,
                dollars=_DOLLARS,
            ),
        },
        elsewhere={
            **_ref("Moment"),
            "description": "Of what is no longer listed, or was summed up by day",
        },
    ),
    "Payers": _object(
        "from to count payers",
        **{"from": _TIME, "to": _TIME},
        count=_COUNT,
        payers={
            "type": "array",
            "maxItems": 500,
            "items": _object(
                f"payer first_at last_at {_EARNED_ALL}",
                payer=_ADDRESS,
                first_at=_TIME,
                last_at=_TIME,
                **_EARNED,
            ),
        },
    ),
    "Settlement": _object("at payees", at=_TIME, payees=_list("Payee")),
    "Payee": _object(
        "scheme network asset pay_to charged held unclaimed claimed settled waiting in_doubt owed",
        scheme=_TEXT,
        network=_TEXT,
        asset=_ADDRESS,
        pay_to=_ADDRESS,
        charged={**_UNITS, "description": "Taken from payers; as `ledger audit` sums it"},
        held={**_UNITS, "description": "Left in open sessions, and may go back"},
        unclaimed={**_UNITS, "description": "Charged, and not asked of the chain yet"},
        claimed={**_UNITS, "description": "Claimed from channels"},
        settled={**_UNITS, "description": "Paid out to the payee"},
        waiting={**_UNITS, "description": "On its way to the chain"},
        in_doubt={**_UNITS, "description": "Of that: sent, and no answer yet"},
        owed={**_UNITS, "description": "Delivered, and the payment failed"},
        archived={**_UNITS, "description": "Settled long ago, and in none of the others"},
    ),
    "Figures": _object(
        "window_s total items streams",
        window_s={**_TIME, "description": "How far back the figures reach"},
        total=_ref("RecentlyEarned"),
        items={"type": "array", "items": _ref("RecentlyEarned")},
        streams=_list("StreamStatus"),
    ),
    "RecentlyEarned": _object(
        "deliveries bytes amount dollars payers",
        slug=_TEXT,
        payers=_COUNT,
        deliveries=_COUNT,
        bytes=_COUNT,
        amount=_UNITS,
        dollars=_DOLLARS,
    ),
    "Terms": {
        **_object(
            "",
            price_per_mb=_PRICE,
            pay_to={
                "type": "string",
                "pattern": "^(0x[0-9a-fA-F]{40})?$",
                "description": "Empty: the server's own payee",
            },
            preview_seconds=_COUNT,
            rewatch=_REWATCH,
        ),
        "minProperties": 1,
        "additionalProperties": False,
    },
    "NewStream": {
        **_object(
            "slug",
            slug=_TEXT,
            name=_TEXT,
            price_per_mb=_PRICE,
            pay_to=_TEXT,
            preview_seconds=_COUNT,
            rewatch=_REWATCH,
            playlist={"type": "string", "enum": ["window", "event"]},
            segment_seconds={"type": "integer", "minimum": 1, "maximum": 10},
            window_seconds={"type": "integer", "minimum": 6},
            record=_FLAG,
            source={**_TEXT, "description": "Pull from this URL; no key is made then"},
        ),
        "additionalProperties": False,
    },
    "WantedKey": {
        **_object("", expires_seconds={"type": "integer", "minimum": 1}),
        "additionalProperties": False,
    },
    "NewKey": _object(
        "slug rtmp_url keyframe_interval_s",
        slug=_TEXT,
        stream_key={**_TEXT, "description": "Kept nowhere: it is shown this once"},
        rtmp_url={**_MAYBE_TEXT, "description": "The server, in OBS; null where RTMP is off"},
        keyframe_interval_s=_COUNT,
    ),
    "Keys": _object(
        "slug keys rtmp_url keyframe_interval_s",
        slug=_TEXT,
        keys=_list("Key"),
        rtmp_url=_MAYBE_TEXT,
        keyframe_interval_s=_COUNT,
    ),
    "Key": _object(
        "id hint created_at expires_at used_at",
        id=_COUNT,
        hint={**_TEXT, "description": "How the key ends"},
        created_at=_TIME,
        expires_at=_MAYBE_TIME,
        used_at=_MAYBE_TIME,
    ),
    "Revoked": _object("revoked", revoked=_COUNT),
    "Removed": _object("removed", removed=_TEXT),
    "Item": _object(
        "slug kind name price_per_mb pay_to rewatch",
        slug=_TEXT,
        kind=_TEXT,
        name=_TEXT,
        price_per_mb=_PRICE,
        pay_to=_ADDRESS,
        pays_default={**_FLAG, "description": "Whether that is the server's own payee"},
        since={**_TIME, "description": "When these terms began"},
        rewatch=_REWATCH,
        preview_seconds=_TIME,
        duration_seconds=_TIME,
        recorded_from=_MAYBE_TEXT,
        state=_TEXT,
        playlist=_TEXT,
        recording=_FLAG,
        bytes=_COUNT,
        content_type=_TEXT,
        renditions=_list("Rendition"),
    ),
    "Rendition": _object(
        "name bandwidth average_bandwidth segments bytes amount_per_minute",
        name=_TEXT,
        bandwidth=_COUNT,
        average_bandwidth=_COUNT,
        segments=_COUNT,
        bytes=_COUNT,
        amount_per_minute=_UNITS,
    ),
}

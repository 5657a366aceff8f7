"""Pure: what the API takes and answers, as the schemas of its OpenAPI document."""

from typing import Any

Json = dict[str, Any]


def ref(schema: str) -> Json:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(schema: str) -> Json:
    return {"type": "array", "items": ref(schema)}


_TEXT: Json = {"type": "string"}
_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_MAYBE_COUNT: Json = {"type": ["integer", "null"], "minimum": 0}
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
_ITEM: Json = {
    "slug": _TEXT,
    "name": _TEXT,
    "kind": {"type": "string", "enum": ["title", "stream", "object"]},
    "price_per_mb": _PRICE,
    "price_per_minute": {**_DOLLARS, "type": ["string", "null"]},
    "price_whole": {**_DOLLARS, "type": ["string", "null"]},
    "rewatch": _REWATCH,
    "has_video": _FLAG,
    "viewers_paying": _COUNT,
    "duration_seconds": _TIME,
    "preview_seconds": _TIME,
    "state": _TEXT,
    "started_at": _MAYBE_TIME,
    "bytes": _COUNT,
    "content_type": _TEXT,
    "url": _TEXT,
    "pricing_url": _TEXT,
    "poster_url": _MAYBE_TEXT,
    "status_url": _TEXT,
}
_ITEM_HAS = "slug name kind price_per_mb rewatch url pricing_url"

SCHEMAS: Json = {
    "Problem": _object("error message", error=_TEXT, message=_TEXT),
    "Catalog": _object("items", items=_list("CatalogItem")),
    "CatalogItem": _object(_ITEM_HAS, **_ITEM),
    "Pricing": _object(
        f"{_ITEM_HAS} renditions bytes_per_mb quote_ttl_seconds pay_to asset networks schemes "
        "accepts payment_methods",
        **_ITEM,
        renditions=_list("Rate"),
        bytes_per_mb=_COUNT,
        quote_ttl_seconds=_COUNT,
        pay_to=_ADDRESS,
        asset=_ADDRESS,
        networks={"type": "array", "items": _TEXT},
        schemes={"type": "array", "items": _TEXT},
        accepts={
            "type": "array",
            "description": "`PaymentRequirements` of x402, without the amount of a delivery",
            "items": _object(
                "scheme network asset payTo maxTimeoutSeconds extra",
                scheme=_TEXT,
                network={**_TEXT, "description": "CAIP-2"},
                asset=_ADDRESS,
                payTo=_ADDRESS,
                maxTimeoutSeconds=_COUNT,
                extra={"type": "object"},
            ),
        },
        payment_methods=_list("PaymentMethod"),
    ),
    "Rate": _object(
        "name codecs bandwidth average_bandwidth width height price_per_minute price_whole",
        name=_TEXT,
        codecs=_TEXT,
        bandwidth={**_COUNT, "description": "Bits a second, at most"},
        average_bandwidth={**_COUNT, "description": "Bits a second"},
        width=_MAYBE_COUNT,
        height=_MAYBE_COUNT,
        price_per_minute=_DOLLARS,
        price_whole={**_DOLLARS, "type": ["string", "null"]},
    ),
    "PaymentMethod": _object(
        "scheme network asset symbol decimals amount_per_mb",
        scheme=_TEXT,
        network={**_TEXT, "description": "CAIP-2"},
        asset=_ADDRESS,
        symbol=_TEXT,
        decimals=_COUNT,
        amount_per_mb=_UNITS,
    ),
    "Site": _object(
        "name version bytes_per_mb schemes networks",
        name=_TEXT,
        version=_TEXT,
        bytes_per_mb=_COUNT,
        schemes={"type": "array", "items": _TEXT},
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
        total=ref("Earned"),
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
        other_items=ref("Earned"),
    ),
    "Moment": _object(
        "plays bytes amount dollars", plays=_COUNT, bytes=_COUNT, amount=_UNITS, dollars=_DOLLARS
    ),
    "Moments": _object(
        "slug duration_seconds moments elsewhere",
        slug=_TEXT,
        **{"from": _TIME, "to": _TIME},
        duration_seconds=_TIME,
        merged_seconds={
            **_MAYBE_TIME,
            "description": "How long each place is, where segments were too many to be named",
        },
        moments={
            "type": "array",
            "maxItems": 2000,
            "items": _object(
                "start_seconds duration_seconds plays bytes amount dollars",
                start_seconds=_TIME,
                duration_seconds=_TIME,
                plays=_COUNT,
                bytes=_COUNT,
                amount=_UNITS,
                dollars=_DOLLARS,
            ),
        },
        elsewhere={
            **ref("Moment"),
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
        total=ref("RecentlyEarned"),
        items={"type": "array", "items": ref("RecentlyEarned")},
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

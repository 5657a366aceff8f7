"""Pure: the tables, the same on SQLite and PostgreSQL.

Times are Unix seconds unless the name ends in ``_us`` (microseconds); amounts are atomic units.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements INTEGER keys only

items = Table(
    "items",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("slug", String(64), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("version", BigInteger, nullable=False),  # goes up with every change to the item
    Column("removed_at", Float),  # the row stays, so that no segment URL is ever used again
    Column("next_msn", BigInteger, nullable=False, server_default="0"),
    Column("rewatch", String(8), nullable=False, server_default="paid"),
    Column("duration_us", BigInteger),
    Column("poster", Text),
    Column("size", BigInteger),
    Column("content_type", String(255)),
    Column("sha256", String(64)),
    Column("key", Text),
    Column("recorded_from", String(64)),  # the stream a title is a recording of
    CheckConstraint("kind IN ('title', 'object', 'stream')", name="kind"),
    CheckConstraint("rewatch IN ('paid', 'free')", name="rewatch"),
)

renditions = Table(
    "renditions",
    metadata,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("codecs", String(128), nullable=False),
    Column("bandwidth", BigInteger, nullable=False),
    Column("average_bandwidth", BigInteger, nullable=False),
    Column("target_duration_s", Integer, nullable=False),
    Column("independent_segments", Boolean, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("frame_rate", String(24)),
    Column("discontinuity_sequence", BigInteger, nullable=False, server_default="0"),
)

segments = Table(
    "segments",
    metadata,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("rendition", String(16), primary_key=True),
    Column("msn", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("discontinuity", Boolean, nullable=False, server_default=text("false")),
    Column("program_date_time_us", BigInteger),
    Column("stored_under", String(64)),  # the stream whose bytes a recording has
    Column("offer_id", BigInteger),  # what a live segment was listed at
    Column("retired_at", Float),  # off the playlist since; its bytes go after a grace
    Index(None, "retired_at"),
    Index(None, "stored_under", "msn"),
)

streams = Table(
    "streams",
    metadata,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("playlist", String(8), nullable=False),
    Column("window_us", BigInteger, nullable=False),
    Column("segment_target_us", BigInteger, nullable=False),
    Column("recording", Boolean, nullable=False),
    Column("source", Text),
    Column("broadcast", BigInteger, nullable=False, server_default="0"),
    Column("first_msn", BigInteger, nullable=False, server_default="0"),  # of this broadcast
    Column("duration_us", BigInteger, nullable=False, server_default="0"),  # of it so far
    Column("started_at", Float),
    Column("heartbeat_at", Float),  # when a feed last showed that it lives
    Column("feed", BigInteger),  # the one feed that may add segments
    Column("key_id", BigInteger),  # the key that feed came with
    Column("status", Text, nullable=False),  # JSON, what the feed last said of itself
    CheckConstraint("state IN ('idle', 'on_air', 'waiting', 'ended')", name="state"),
    CheckConstraint("playlist IN ('window', 'event')", name="playlist"),
    Index(None, "state"),
)

stream_keys = Table(
    "stream_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256: the key is not kept
    Column("hint", String(8), nullable=False),  # its last characters, to tell keys apart
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("used_at", Float),
    Index(None, "item_id"),
)

offers = Table(
    "offers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    Column("price_per_mib", BigInteger, nullable=False),
    Column("pay_to", String(42)),
    Column("preview_us", BigInteger, nullable=False, server_default="0"),
    Column("since", Float, nullable=False),
    Index(None, "item_id", "since"),
)

imports = Table(
    "imports",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("slug", String(64), nullable=False, unique=True),  # one import of a slug at a time
    Column("first_msn", BigInteger, nullable=False),
    Column("heartbeat_at", Float, nullable=False),  # older than the lease: died half-way
)

leftovers = Table(  # stored posters and objects that nothing names any more
    "leftovers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("retired_at", Float, nullable=False),
)

charges = Table(
    "charges",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("scheme", String(32), nullable=False),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),  # addresses are lower case throughout
    Column("payer", String(42), nullable=False),
    Column("nonce", String(66), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("slug", String(64), nullable=False),
    Column("resource", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("valid_before", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),  # the payment as signed, to settle it by identity
    Column("requirements", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("delivered", Boolean, nullable=False),  # bytes may have left before it was settled
    Column("in_doubt", Boolean, nullable=False),  # a transaction may be on its way
    Column("tx_hash", String(66)),
    Column("error", String(128)),
    Column("created_at", Float, nullable=False),
    Column("settled_at", Float),
    Column("served_at", Float),  # when its bytes were first handed over
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Float),
    Column("lease_until", Float),
    Column("made_good_by", BigInteger),  # the later charge that paid for bytes it never settled
    UniqueConstraint("network", "asset", "payer", "nonce"),  # money rule 3
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("state IN ('pending', 'queued', 'settled', 'failed')", name="state"),
    Index(None, "state", "next_attempt_at"),
    Index(None, "payer", "state"),
    Index(None, "slug", "created_at"),
    Index(None, "settled_at"),
)

channels = Table(  # x402 batch-settlement payment channels; addresses are lower case
    "channels",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("channel_id", String(66), nullable=False, unique=True),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("payer_authorizer", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("receiver_authorizer", String(42), nullable=False),
    Column("withdraw_delay", Integer, nullable=False),
    Column("salt", String(66), nullable=False),
    Column("opening", BigInteger, nullable=False),  # what was claimed when we first saw it
    Column("charged", BigInteger, nullable=False),  # cumulative, as the payer sees it
    Column("signed", BigInteger, nullable=False),  # the highest voucher's ceiling
    Column("signature", Text, nullable=False),  # of that voucher, 0x hex
    Column("held", BigInteger, nullable=False, server_default="0"),  # charged, not to be claimed
    Column("reserved", BigInteger, nullable=False, server_default="0"),  # a refund is under way
    Column("epoch", Integer, nullable=False, server_default="0"),  # up when charged goes down
    Column("archived", BigInteger, nullable=False, server_default="0"),  # of deliveries rolled up
    Column("balance", BigInteger, nullable=False),  # from here on: as last read from the chain
    Column("claimed", BigInteger, nullable=False),
    Column("withdraw_requested_at", BigInteger, nullable=False, server_default="0"),
    Column("refund_nonce", BigInteger, nullable=False, server_default="0"),
    Column("synced_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("charged_at", Float),
    CheckConstraint("charged >= 0 AND held >= 0 AND reserved >= 0", name="amounts"),
    CheckConstraint("charged <= signed", name="charged"),  # money rule 6
    CheckConstraint("held <= charged", name="held"),
    Index(None, "network", "charged_at"),
    Index(None, "payer"),
    Index(None, "withdraw_requested_at"),
)

deliveries = Table(  # one row a voucher charged
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("channel", ForeignKey("channels.id"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("cumulative", BigInteger, nullable=False),  # what the voucher signed for
    Column("amount", BigInteger, nullable=False),
    Column("slug", String(64), nullable=False),
    Column("resource", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("channel", "epoch", "cumulative"),  # money rule 3
    CheckConstraint("amount > 0", name="amount"),
    Index(None, "created_at"),
)

actions = Table(  # what is to be done on chain for channels: a row first, then a transaction
    "actions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("payer", String(42)),
    Column("channel_id", String(66)),
    Column("identity", String(160), nullable=False, unique=True),
    Column("amount", BigInteger, nullable=False),
    Column("document", Text, nullable=False),  # JSON: the payload a facilitator settles
    Column("requirements", Text, nullable=False),  # JSON
    Column("state", String(8), nullable=False),
    Column("in_doubt", Boolean, nullable=False),  # a transaction may be on its way
    Column("tx_hash", String(66)),
    Column("error", String(128)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Float, nullable=False),
    Column("settled_at", Float),
    Column("next_attempt_at", Float),
    Column("lease_until", Float),
    CheckConstraint("kind IN ('deposit', 'claim', 'settle', 'refund', 'return')", name="kind"),
    CheckConstraint("state IN ('pending', 'settled', 'failed')", name="state"),
    CheckConstraint("amount >= 0", name="amount"),
    Index(None, "state", "next_attempt_at"),
    Index(None, "channel_id"),
)

sessions = Table(  # a budget bought once, drawn by a player that cannot pay
    "sessions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256: the token is not kept
    Column("slug", String(64), nullable=False),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("channel", ForeignKey("channels.id")),  # else bought with exact
    Column("budget", BigInteger, nullable=False),
    Column("drawn", BigInteger, nullable=False),
    Column("returned", BigInteger, nullable=False, server_default="0"),
    Column("archived", BigInteger, nullable=False, server_default="0"),  # of draws rolled up
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("closed_at", Float),
    CheckConstraint("drawn >= 0 AND drawn + returned <= budget", name="budget"),
    Index(None, "closed_at", "expires_at"),
    Index(None, "payer"),
    Index(None, "channel"),
)

purchases = Table(  # one row a payment for a session: its budget is their sum
    "purchases",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("session_id", ForeignKey("sessions.id"), nullable=False),
    Column("origin", String(80), nullable=False, unique=True),  # which payment, or credit
    Column("charge_id", ForeignKey("charges.id"), unique=True),  # when it was paid with exact
    Column("amount", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
    Index(None, "session_id"),
    Index(None, "created_at"),
)

draws = Table(  # one row a delivery out of a session
    "draws",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("session_id", ForeignKey("sessions.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("resource", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "session_id", "resource"),
    Index(None, "created_at"),
)

credits = Table(  # what a payer has left with a payee from sessions bought with exact
    "credits",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("amount", BigInteger, nullable=False),
    UniqueConstraint("network", "asset", "payer", "pay_to"),
    CheckConstraint("amount >= 0", name="amount"),
)

earnings = Table(  # deliveries older than the retention, summed by day
    "earnings",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("day", Integer, nullable=False),  # days since 1970-01-01 UTC
    Column("slug", String(64), nullable=False),
    Column("network", String(64), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("scheme", String(32), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    UniqueConstraint("day", "slug", "network", "asset", "pay_to", "scheme"),
)

sums = Table(  # what was earned in spans of time, as far as rows are summed
    "sums",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("scope", String(64), nullable=False),  # the slug of an item, or * for all of them
    Column("span", Integer, nullable=False),  # seconds
    Column("name", Text, nullable=False),  # of the item, payer or resource; of all: nothing
    Column("at", BigInteger, nullable=False),  # when the span begins
    Column("deliveries", BigInteger, nullable=False),
    Column("plays", BigInteger, nullable=False),  # of them, those of a first byte
    Column("bytes", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("income", BigInteger, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    UniqueConstraint("kind", "scope", "span", "name", "at"),
    CheckConstraint("kind IN ('all', 'item', 'payer', 'resource')", name="kind"),
    Index(None, "kind", "scope", "span", "at"),
)

summed = Table(  # one row: how far rows are summed
    "summed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("until", Float, nullable=False),  # every row before it is in the sums
    Column("detailed", BigInteger, nullable=False),  # before it only days of items are known
)

watermarks = Table(  # how far the watcher has read each chain
    "watermarks",
    metadata,
    Column("network", String(64), primary_key=True),
    Column("block", BigInteger, nullable=False),
)

leases = Table(  # who does what only one process may
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Float, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

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
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

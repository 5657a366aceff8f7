"""The first schema: items and their parts, streams, imports under way, charges, secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", _Id, nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.Float()),
        sa.Column("next_msn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rewatch", sa.String(8), server_default="paid", nullable=False),
        sa.Column("duration_us", sa.BigInteger()),
        sa.Column("poster", sa.Text()),
        sa.Column("size", sa.BigInteger()),
        sa.Column("content_type", sa.String(255)),
        sa.Column("sha256", sa.String(64)),
        sa.Column("key", sa.Text()),
        sa.Column("recorded_from", sa.String(64)),
        sa.CheckConstraint("kind IN ('title', 'object', 'stream')", name=op.f("ck_items_kind")),
        sa.CheckConstraint("rewatch IN ('paid', 'free')", name=op.f("ck_items_rewatch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        sa.UniqueConstraint("slug", name=op.f("uq_items_slug")),
    )
    op.create_table(
        "renditions",
        sa.Column("item_id", _Id, nullable=False),
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("codecs", sa.String(128), nullable=False),
        sa.Column("bandwidth", sa.BigInteger(), nullable=False),
        sa.Column("average_bandwidth", sa.BigInteger(), nullable=False),
        sa.Column("target_duration_s", sa.Integer(), nullable=False),
        sa.Column("independent_segments", sa.Boolean(), nullable=False),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("frame_rate", sa.String(24)),
        sa.Column("discontinuity_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name=op.f("fk_renditions_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", "name", name=op.f("pk_renditions")),
    )
    op.create_table(
        "segments",
        sa.Column("item_id", _Id, nullable=False),
        sa.Column("rendition", sa.String(16), nullable=False),
        sa.Column("msn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("discontinuity", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("program_date_time_us", sa.BigInteger()),
        sa.Column("stored_under", sa.String(64)),
        sa.Column("offer_id", sa.BigInteger()),
        sa.Column("retired_at", sa.Float()),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name=op.f("fk_segments_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", "rendition", "msn", name=op.f("pk_segments")),
    )
    op.create_index(op.f("ix_segments_retired_at"), "segments", ["retired_at"])
    op.create_index(op.f("ix_segments_stored_under_msn"), "segments", ["stored_under", "msn"])
    op.create_table(
        "streams",
        sa.Column("item_id", _Id, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("playlist", sa.String(8), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("segment_target_us", sa.BigInteger(), nullable=False),
        sa.Column("recording", sa.Boolean(), nullable=False),
        sa.Column("source", sa.Text()),
        sa.Column("broadcast", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_msn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duration_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("heartbeat_at", sa.Float()),
        sa.Column("feed", sa.BigInteger()),
        sa.Column("key_id", sa.BigInteger()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "state IN ('idle', 'on_air', 'waiting', 'ended')", name=op.f("ck_streams_state")
        ),
        sa.CheckConstraint("playlist IN ('window', 'event')", name=op.f("ck_streams_playlist")),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name=op.f("fk_streams_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_streams")),
    )
    op.create_index(op.f("ix_streams_state"), "streams", ["state"])
    op.create_table(
        "stream_keys",
        sa.Column("id", _Id, nullable=False),
        sa.Column("item_id", _Id, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(8), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("used_at", sa.Float()),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name=op.f("fk_stream_keys_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stream_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_stream_keys_digest")),
    )
    op.create_index(op.f("ix_stream_keys_item_id"), "stream_keys", ["item_id"])
    op.create_table(
        "offers",
        sa.Column("id", _Id, nullable=False),
        sa.Column("item_id", _Id, nullable=False),
        sa.Column("price_per_mib", sa.BigInteger(), nullable=False),
        sa.Column("pay_to", sa.String(42)),
        sa.Column("preview_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name=op.f("fk_offers_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
    )
    op.create_index(op.f("ix_offers_item_id_since"), "offers", ["item_id", "since"])
    op.create_table(
        "imports",
        sa.Column("id", _Id, nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("first_msn", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint("slug", name=op.f("uq_imports_slug")),
    )
    op.create_table(
        "leftovers",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("retired_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_leftovers")),
    )
    op.create_table(
        "charges",
        sa.Column("id", _Id, nullable=False),
        sa.Column("scheme", sa.String(32), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("payer", sa.String(42), nullable=False),
        sa.Column("nonce", sa.String(66), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("valid_before", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("in_doubt", sa.Boolean(), nullable=False),
        sa.Column("tx_hash", sa.String(66)),
        sa.Column("error", sa.String(128)),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("settled_at", sa.Float()),
        sa.Column("served_at", sa.Float(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.Float()),
        sa.Column("lease_until", sa.Float()),
        sa.Column("made_good_by", sa.BigInteger()),
        sa.CheckConstraint("amount > 0", name=op.f("ck_charges_amount")),
        sa.CheckConstraint(
            "state IN ('pending', 'queued', 'settled', 'failed')", name=op.f("ck_charges_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        sa.UniqueConstraint(
            "network", "asset", "payer", "nonce", name=op.f("uq_charges_network_asset_payer_nonce")
        ),
    )
    op.create_index(
        op.f("ix_charges_state_next_attempt_at"), "charges", ["state", "next_attempt_at"]
    )
    op.create_index(op.f("ix_charges_payer_state"), "charges", ["payer", "state"])
    op.create_index(op.f("ix_charges_slug_created_at"), "charges", ["slug", "created_at"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )

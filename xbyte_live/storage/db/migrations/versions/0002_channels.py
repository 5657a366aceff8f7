"""Payment channels: their state, deliveries, actions on chain, sessions, and what sums them up."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "actions",
        sa.Column("id", _Id, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("payer", sa.String(42)),
        sa.Column("channel_id", sa.String(66)),
        sa.Column("identity", sa.String(160), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("in_doubt", sa.Boolean(), nullable=False),
        sa.Column("tx_hash", sa.String(66)),
        sa.Column("error", sa.String(128)),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("settled_at", sa.Float()),
        sa.Column("next_attempt_at", sa.Float()),
        sa.Column("lease_until", sa.Float()),
        sa.CheckConstraint(
            "kind IN ('deposit', 'claim', 'settle', 'refund', 'return')",
            name=op.f("ck_actions_kind"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'settled', 'failed')", name=op.f("ck_actions_state")
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_actions_amount")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
        sa.UniqueConstraint("identity", name=op.f("uq_actions_identity")),
    )
    op.create_index(op.f("ix_actions_channel_id"), "actions", ["channel_id"])
    op.create_index(
        op.f("ix_actions_state_next_attempt_at"), "actions", ["state", "next_attempt_at"]
    )
    op.create_table(
        "channels",
        sa.Column("id", _Id, nullable=False),
        sa.Column("channel_id", sa.String(66), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("payer", sa.String(42), nullable=False),
        sa.Column("payer_authorizer", sa.String(42), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("receiver_authorizer", sa.String(42), nullable=False),
        sa.Column("withdraw_delay", sa.Integer(), nullable=False),
        sa.Column("salt", sa.String(66), nullable=False),
        sa.Column("opening", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("archived", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("claimed", sa.BigInteger(), nullable=False),
        sa.Column("withdraw_requested_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refund_nonce", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("synced_at", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("charged_at", sa.Float()),
        sa.CheckConstraint("charged <= signed", name=op.f("ck_channels_charged")),
        sa.CheckConstraint(
            "charged >= 0 AND held >= 0 AND reserved >= 0", name=op.f("ck_channels_amounts")
        ),
        sa.CheckConstraint("held <= charged", name=op.f("ck_channels_held")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sa.UniqueConstraint("channel_id", name=op.f("uq_channels_channel_id")),
    )
    op.create_index(op.f("ix_channels_network_charged_at"), "channels", ["network", "charged_at"])
    op.create_index(op.f("ix_channels_payer"), "channels", ["payer"])
    op.create_index(
        op.f("ix_channels_withdraw_requested_at"), "channels", ["withdraw_requested_at"]
    )
    op.create_table(
        "credits",
        sa.Column("id", _Id, nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("payer", sa.String(42), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_credits_amount")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credits")),
        sa.UniqueConstraint(
            "network",
            "asset",
            "payer",
            "pay_to",
            name=op.f("uq_credits_network_asset_payer_pay_to"),
        ),
    )
    op.create_table(
        "earnings",
        sa.Column("id", _Id, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("scheme", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_earnings")),
        sa.UniqueConstraint(
            "day",
            "slug",
            "network",
            "asset",
            "pay_to",
            "scheme",
            name=op.f("uq_earnings_day_slug_network_asset_pay_to_scheme"),
        ),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "watermarks",
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("network", name=op.f("pk_watermarks")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _Id, nullable=False),
        sa.Column("channel", _Id, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("cumulative", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_deliveries_amount")),
        sa.ForeignKeyConstraint(["channel"], ["channels.id"], name=op.f("fk_deliveries_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "channel", "epoch", "cumulative", name=op.f("uq_deliveries_channel_epoch_cumulative")
        ),
    )
    op.create_index(op.f("ix_deliveries_created_at"), "deliveries", ["created_at"])
    op.create_table(
        "sessions",
        sa.Column("id", _Id, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(42), nullable=False),
        sa.Column("payer", sa.String(42), nullable=False),
        sa.Column("pay_to", sa.String(42), nullable=False),
        sa.Column("channel", _Id),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("drawn", sa.BigInteger(), nullable=False),
        sa.Column("returned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("archived", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("closed_at", sa.Float()),
        sa.CheckConstraint(
            "drawn >= 0 AND drawn + returned <= budget", name=op.f("ck_sessions_budget")
        ),
        sa.ForeignKeyConstraint(["channel"], ["channels.id"], name=op.f("fk_sessions_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_sessions_digest")),
    )
    op.create_index(
        op.f("ix_sessions_closed_at_expires_at"), "sessions", ["closed_at", "expires_at"]
    )
    op.create_index(op.f("ix_sessions_payer"), "sessions", ["payer"])
    op.create_index(op.f("ix_sessions_channel"), "sessions", ["channel"])
    op.create_table(
        "purchases",
        sa.Column("id", _Id, nullable=False),
        sa.Column("session_id", _Id, nullable=False),
        sa.Column("origin", sa.String(80), nullable=False),
        sa.Column("charge_id", _Id),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_purchases_amount")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_purchases_session_id")
        ),
        sa.ForeignKeyConstraint(["charge_id"], ["charges.id"], name=op.f("fk_purchases_charge_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purchases")),
        sa.UniqueConstraint("charge_id", name=op.f("uq_purchases_charge_id")),
        sa.UniqueConstraint("origin", name=op.f("uq_purchases_origin")),
    )
    op.create_index(op.f("ix_purchases_session_id"), "purchases", ["session_id"])
    op.create_table(
        "draws",
        sa.Column("id", _Id, nullable=False),
        sa.Column("session_id", _Id, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_draws_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draws")),
    )
    op.create_index(op.f("ix_draws_created_at"), "draws", ["created_at"])
    op.create_index(op.f("ix_draws_session_id_resource"), "draws", ["session_id", "resource"])
    op.create_index(op.f("ix_charges_settled_at"), "charges", ["settled_at"])

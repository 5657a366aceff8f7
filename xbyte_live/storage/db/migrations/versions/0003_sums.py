"""Sums of what was earned, so that reports need not look at every delivery.

Days that were rolled up are taken over; everything else is summed by the running server.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "sums",
        sa.Column("id", _Id, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("scope", sa.String(64), nullable=False),
        sa.Column("span", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("deliveries", sa.BigInteger(), nullable=False),
        sa.Column("plays", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("income", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('all', 'item', 'payer', 'resource')", name=op.f("ck_sums_kind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sums")),
        sa.UniqueConstraint(
            "kind", "scope", "span", "name", "at", name=op.f("uq_sums_kind_scope_span_name_at")
        ),
    )
    op.create_index(op.f("ix_sums_kind_scope_span_at"), "sums", ["kind", "scope", "span", "at"])
    op.create_table(
        "summed",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("detailed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_summed")),
    )
    op.create_index(op.f("ix_purchases_created_at"), "purchases", ["created_at"])
    _take_over_days()


def _take_over_days() -> None:
    names = ("day", "slug", "scheme", "count", "bytes", "amount")
    e = sa.table("earnings", *(sa.column(name, sa.BigInteger()) for name in names)).c
    into = ("kind", "scope", "span", "name", "at", "deliveries", "plays", "bytes", "amount")
    sums = sa.table("sums", *map(sa.column, (*into, "income", "first_at", "last_at")))
    at = sa.cast(e.day, sa.BigInteger()) * sa.literal_column("86400")
    is_sold = sa.case((e.scheme.cast(sa.String()).endswith("/session"), 0), else_=1)
    income = sa.case((e.scheme.cast(sa.String()) == "session", 0), else_=e.amount)
    for kind, name in (("item", e.slug), ("all", sa.literal_column("''"))):
        sold = [sa.func.sum(column * is_sold) for column in (e["count"], e.bytes, e.amount)]
        columns: list[Any] = [
            *(sa.literal_column(text) for text in (f"'{kind}'", "'*'", "86400")),
            *(name, at, sold[0], *sold, sa.func.sum(income), at, at),
        ]
        days = sa.select(*columns).group_by(e.day, *([e.slug] if kind == "item" else []))
        op.execute(sums.insert().from_select(list(sums.c.keys()), days))
    last = sa.func.max(e.day)
    op.execute(
        sa.table("summed", *map(sa.column, ("id", "until", "detailed")))
        .insert()
        .from_select(
            ["id", "until", "detailed"],
            sa.select(
                *(sa.literal_column("1"), sa.literal_column("0")),
                (sa.cast(last, sa.BigInteger()) + 1) * sa.literal_column("86400"),
            ).having(last.is_not(None)),
        )
    )

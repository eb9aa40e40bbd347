"""Published workflows, backends and their catalogues, pools of jobs, learned times, fair shares."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_WAITS = "status = 'queued' AND lease_holder IS NULL"


def upgrade() -> None:
    """Make what is new; jobs that wait keep their order."""
    _make_tables()
    op.add_column("jobs", sa.Column("timeout", sa.Double(), nullable=True))
    op.add_column(
        "jobs", sa.Column("estimate", sa.Double(), nullable=False, server_default=sa.text("1.0"))
    )
    op.create_index(
        "jobs_order",
        "jobs",
        ["rank", "turn", "number", "pool", "model"],
        unique=False,
        sqlite_where=sa.text(_WAITS),
        postgresql_where=sa.text(_WAITS),
    )
    op.drop_index("jobs_held_turn", "jobs")
    _move_shares()


def _make_tables() -> None:
    op.create_table(
        "published",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("sidecar", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "pools",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("needs", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool"),
    )
    op.create_table(
        "backends",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("is_added", sa.Boolean(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    op.create_table(
        "backend_catalogs",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("object_info", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    op.create_table(
        "learned_times",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=False),
        sa.Column("spread", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "backend", "node"),
    )
    op.create_index("learned_times_seen", "learned_times", ["seen_at"], unique=False)
    op.create_table(
        "shares",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Double(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "rank"),
    )
    op.create_index("shares_turn", "shares", ["turn"], unique=False)


def _move_shares() -> None:
    """An owner's place in the fair order was one for all priorities; now each has its own."""
    op.execute(
        "INSERT INTO shares (owner, rank, turn, pool, at)"
        " SELECT owner, 0, last_turn, '', 0.0 FROM owners"
    )
    op.execute(
        "INSERT INTO shares (owner, rank, turn, pool, at)"
        " SELECT owner, rank, max(turn), '', 0.0 FROM jobs"
        " WHERE completed_at IS NULL AND rank <> 0 GROUP BY owner, rank"
    )
    op.drop_index("owners_turn", "owners")
    op.drop_column("owners", "last_turn")

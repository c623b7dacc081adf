"""Nodes half-way up every full tile, kept with it: a proof then needs a few hashes of a tile instead of all of them."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("alter table tile add column inner_nodes bytea")


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

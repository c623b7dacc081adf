"""The ledger: events, tree, checkpoints, tiles, append-only triggers and rights."""

from __future__ import annotations

from alembic import op

from wardmesh_audit.schema import FUNCTIONS, GRANTS, TABLES, guards

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in (*TABLES, *FUNCTIONS, *guards(), *GRANTS):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

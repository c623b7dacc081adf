"""Bodies too large for a leaf are dropped with the month of their event, unless a hold may be about them."""

from __future__ import annotations

from alembic import op

from wardmesh_audit.schema_payloads import PAYLOADS

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in PAYLOADS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

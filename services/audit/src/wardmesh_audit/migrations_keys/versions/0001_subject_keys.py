"""The key database: one wrapped data key per subject."""

from __future__ import annotations

from alembic import op

from wardmesh_audit.schema import KEY_TABLES

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in KEY_TABLES:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("keys are destroyed by shredding, not by a migration")

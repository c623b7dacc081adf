"""Several logs, and what the ledger knows beside events: counters, holds, retention, alerts, reviews, verifications."""

from __future__ import annotations

from alembic import op

from wardmesh_audit.schema_logs import LOG_FUNCTIONS
from wardmesh_audit.schema_office import OFFICE_GRANTS, OFFICE_TABLES
from wardmesh_audit.schema_producers import PRODUCER_TABLES
from wardmesh_audit.schema_retention import RETENTION

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in (*LOG_FUNCTIONS, *PRODUCER_TABLES, *OFFICE_TABLES, *RETENTION, *OFFICE_GRANTS):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

"""How far the background verification is, and the rights of the role that does it."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_STATEMENTS = (
    """
create table verification_progress (
  log_id smallint primary key, started_at timestamptz not null, looked_at timestamptz not null,
  checked bigint not null, size bigint not null, findings bigint not null, running boolean not null
)
""",
    "grant select, insert, update on verification_progress to audit_detect",
    "grant select on verification_progress to audit_reader, audit_report, audit_officer",
    "grant select on tile, retention_run, verification_run to audit_detect",
    "grant insert on verification_run to audit_detect",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

"""The signed lists of logs, one per day, append-only like the checkpoints."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

_STATEMENTS = (
    """
create table log_list (
  day date primary key, note text not null, made_at timestamptz not null default clock_timestamp()
)
""",
    "create trigger no_change before update or delete on log_list for each row execute function audit_refuse()",
    "alter table log_list enable always trigger no_change",
    "create trigger no_truncate before truncate on log_list execute function audit_refuse()",
    "alter table log_list enable always trigger no_truncate",
    "grant select, insert on log_list to audit_signer",
    "grant select on log_list to audit_reader, audit_report, audit_officer, audit_detect",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("a ledger is not taken back")

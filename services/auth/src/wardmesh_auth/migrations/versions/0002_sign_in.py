"""Sign-ins at platforms, client keys, local accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "auth"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _sealed() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )


def _moment(name: str, *, now: bool = False) -> sa.Column[object]:
    default = sa.func.now() if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=default)


def upgrade() -> None:
    op.add_column("platform_grant", sa.Column("previous", sa.Text, nullable=False, server_default=""), schema=SCHEMA)
    _sign_in()
    _accounts()


def _sign_in() -> None:
    op.create_table(
        "consent",
        sa.Column("handle", sa.Text, primary_key=True),
        *(_text(name) for name in ("tenant", "principal_id", "platform", "status")),
        _moment("created_at", now=True),
        _moment("updated_at", now=True),
        _moment("expires_at"),
        sa.UniqueConstraint("tenant", "principal_id", "platform", name="consent_once"),
        schema=SCHEMA,
    )
    op.create_index("consent_by_update", "consent", ["updated_at"], schema=SCHEMA)
    op.create_table(
        "pending_sign_in",
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("ticket", sa.Text, unique=True),
        *(_text(name) for name in ("purpose", "tenant", "principal_id", "platform", "session")),
        *_sealed(),
        _moment("expires_at"),
        schema=SCHEMA,
    )
    op.create_index("pending_sign_in_by_expiry", "pending_sign_in", ["expires_at"], schema=SCHEMA)
    op.create_table(
        "client_keys",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        *_sealed(),
        _moment("updated_at", now=True),
        schema=SCHEMA,
    )


def _accounts() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False, server_default="default"),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        _text("email"),
        sa.Column("roles", ARRAY(sa.Text), nullable=False),
        *(_text(name) for name in ("patient", "practitioner", "password_hash")),
        sa.Column("disabled", sa.Boolean, nullable=False, server_default="false"),
        _moment("created_at", now=True),
        _moment("updated_at", now=True),
        schema=SCHEMA,
    )
    op.create_table(
        "account_refresh",
        sa.Column("digest", sa.Text, primary_key=True),
        _text("account_id"),
        _moment("expires_at"),
        schema=SCHEMA,
    )
    op.create_index("account_refresh_by_account", "account_refresh", ["account_id"], schema=SCHEMA)
    op.create_index("account_refresh_by_expiry", "account_refresh", ["expires_at"], schema=SCHEMA)
    op.create_table(
        "failed_log_in",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        _moment("until"),
        schema=SCHEMA,
    )
    op.create_index("failed_log_in_by_time", "failed_log_in", ["until"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("failed_log_in", "account_refresh", "account", "client_keys", "pending_sign_in", "consent"):
        op.drop_table(table, schema=SCHEMA)
    op.drop_column("platform_grant", "previous", schema=SCHEMA)

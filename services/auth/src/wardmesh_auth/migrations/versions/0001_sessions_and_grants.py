"""Sessions, platform grants and revocations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "auth"


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.func.now() if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def upgrade() -> None:
    op.create_table(
        "session",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("roles", ARRAY(sa.Text), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("practitioner", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("idle_seconds", sa.Integer, nullable=False),
        _moment("created_at", now=True),
        _moment("last_seen", now=True),
        _moment("expires_at"),
        _moment("revoked_at", nullable=True),
        schema=SCHEMA,
    )
    op.create_index("session_by_principal", "session", ["principal_id"], schema=SCHEMA)
    op.create_index("session_by_expiry", "session", ["expires_at"], schema=SCHEMA)
    op.create_table(
        "platform_grant",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        _moment("expires_at"),
        _moment("created_at", now=True),
        _moment("updated_at", now=True),
        sa.UniqueConstraint("tenant", "principal_id", "platform", name="platform_grant_once"),
        schema=SCHEMA,
    )
    op.create_table(
        "revocation",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        _moment("revoked_at", now=True),
        _moment("keep_until"),
        schema=SCHEMA,
    )
    op.create_index("revocation_by_time", "revocation", ["revoked_at"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("revocation", "platform_grant", "session"):
        op.drop_table(table, schema=SCHEMA)

"""Emergency accesses that were opened, counted per person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "auth"


def upgrade() -> None:
    op.create_table(
        "break_glass",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("tenant", "principal_id", "session")),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )
    op.create_index("break_glass_by_principal", "break_glass", ["principal_id", "opened_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("break_glass", schema=SCHEMA)

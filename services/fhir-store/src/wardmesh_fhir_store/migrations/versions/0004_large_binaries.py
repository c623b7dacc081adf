"""Content of Binaries that comes in pieces, and where in a version it begins."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    # Counted from 0; only where the rest of the body is nothing but base64 and the end of the resource.
    "ALTER TABLE fhir_version ADD COLUMN data_at BIGINT",
    """
    CREATE TABLE binary_upload (
        datastore_id INTEGER NOT NULL,
        upload UUID NOT NULL,
        number INTEGER NOT NULL,
        piece BYTEA NOT NULL,
        stored TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (datastore_id, upload, number)
    )
    """,
    # Base64 of what is often compressed already: compressing it costs time and saves little.
    "ALTER TABLE binary_upload ALTER COLUMN piece SET STORAGE EXTERNAL",
    "ALTER TABLE binary_upload ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE binary_upload FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY own_datastore ON binary_upload USING (
    datastore_id = (SELECT NULLIF(current_setting('wardmesh.datastore', true), '')::int))
    """,
)


def upgrade() -> None:
    """Forward only."""
    for statement in STATEMENTS:
        op.execute(statement)

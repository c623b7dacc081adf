"""The control plane: settings and leases of datastores, exact snapshots of exports, errors of imports line by line."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    # `settings`: what was asked for at creation and is given back as it came. A worker that prepares or empties a
    # datastore holds it by its lease.
    """
    ALTER TABLE datastore
        ADD COLUMN settings JSONB DEFAULT '{}' NOT NULL,
        ADD COLUMN request_hash BYTEA,
        ADD COLUMN worker TEXT,
        ADD COLUMN lease_until TIMESTAMP WITH TIME ZONE,
        ALTER COLUMN namespace SET DEFAULT 'us-west-2'
    """,
    "UPDATE datastore SET namespace = 'us-west-2' WHERE namespace = ''",
    """
    CREATE INDEX datastore_open ON datastore (lease_until) WHERE status IN ('CREATING', 'DELETING')
    """,
    # An oldest running transaction alone would leave out what committed beside it: the whole snapshot is kept.
    """
    ALTER TABLE job
        DROP COLUMN snapshot_xmin,
        ADD COLUMN snapshot pg_snapshot,
        DROP CONSTRAINT job_kind,
        ADD CONSTRAINT job_kind CHECK (kind IN ('import', 'export', 'load'))
    """,
    # Where an output file ends: the next one goes on after it.
    "ALTER TABLE job_file ADD COLUMN last_id TEXT",
    # Written in the transaction that skips the line, so that a resumed job reports each line once.
    """
    CREATE TABLE job_error (
        job_id TEXT COLLATE "C" NOT NULL REFERENCES job ON DELETE CASCADE,
        number INTEGER NOT NULL,
        line BIGINT NOT NULL,
        outcome BYTEA NOT NULL,
        PRIMARY KEY (job_id, number, line)
    )
    """,
    # Demo data that an earlier version stored counts as loaded.
    """
    SELECT set_config('wardmesh.datastore', datastore_id::text, true)
    FROM datastore WHERE public_id = '1234567890abcdef1234567890abcdef'
    """,
    """
    INSERT INTO job (job_id, datastore_id, kind, status, client_token, request, request_hash, ended)
    SELECT 'demo', datastore_id, 'load', 'COMPLETED', 'demo', '{}', '', now() FROM fhir_current
    WHERE resource_type = 'Organization' AND resource_id = 'HOSP1'
    """,
)


def upgrade() -> None:
    """Forward only."""
    for statement in STATEMENTS:
        op.execute(statement)

"""Datastores side by side: options, jobs, the outbox, composite index rows and row-level security per datastore."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

GUARDED = (
    "fhir_current",
    "fhir_version",
    "idx_token",
    "idx_string",
    "idx_date",
    "idx_number",
    "idx_quantity",
    "idx_ref",
    "idx_uri",
    "idx_composite",
)

STATEMENTS = (
    # `options`: see options.py. `namespace` separates what callers of different regions see (HL-16).
    """
    ALTER TABLE datastore
        ADD COLUMN options JSONB DEFAULT '{}' NOT NULL,
        ADD COLUMN namespace TEXT COLLATE "C" DEFAULT '' NOT NULL,
        ADD COLUMN status_since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        DROP CONSTRAINT datastore_client_token_key,
        ADD CONSTRAINT datastore_token UNIQUE (namespace, client_token),
        ADD CONSTRAINT datastore_status CHECK (status IN ('CREATING', 'ACTIVE', 'DELETING', 'DELETED'))
    """,
    # $meta-add changes tags without a new version: readers that hold a copy must notice (ST-60)
    """
    ALTER TABLE fhir_version ADD COLUMN meta_revision INTEGER DEFAULT 0 NOT NULL
    """,
    """
    CREATE TABLE idx_composite (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        system TEXT COLLATE "C" NOT NULL,
        code TEXT COLLATE "C" NOT NULL,
        key TEXT COLLATE "C" NOT NULL,
        text_1 TEXT COLLATE "C" NOT NULL,
        text_2 TEXT COLLATE "C" NOT NULL,
        text_3 TEXT COLLATE "C" NOT NULL,
        text_4 TEXT COLLATE "C" NOT NULL,
        low NUMERIC,
        high NUMERIC,
        starts TIMESTAMP WITH TIME ZONE,
        ends TIMESTAMP WITH TIME ZONE,
        low_3 NUMERIC,
        high_3 NUMERIC
    )
    """,
    """
    CREATE INDEX idx_composite_resource ON idx_composite (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_composite_value ON idx_composite (datastore_id, parameter, key, low, resource_key)
    """,
    """
    CREATE TABLE job (
        job_id TEXT COLLATE "C" NOT NULL,
        datastore_id INTEGER NOT NULL REFERENCES datastore,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        name TEXT,
        client_token TEXT,
        request JSONB NOT NULL,
        request_hash BYTEA NOT NULL,
        progress JSONB DEFAULT '{}' NOT NULL,
        message TEXT,
        submitted TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        started TIMESTAMP WITH TIME ZONE,
        ended TIMESTAMP WITH TIME ZONE,
        transaction_time TIMESTAMP WITH TIME ZONE,
        snapshot_xmin xid8,
        worker TEXT,
        lease_until TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (job_id),
        UNIQUE (datastore_id, kind, client_token),
        CONSTRAINT job_kind CHECK (kind IN ('import', 'export')),
        CONSTRAINT job_status CHECK (status IN ('SUBMITTED', 'IN_PROGRESS', 'COMPLETED', 'COMPLETED_WITH_ERRORS',
            'FAILED', 'STOP_REQUESTED', 'STOPPED'))
    )
    """,
    """
    CREATE INDEX job_list ON job (datastore_id, kind, submitted DESC, job_id)
    """,
    """
    CREATE INDEX job_open ON job (lease_until) WHERE status IN ('SUBMITTED', 'IN_PROGRESS', 'STOP_REQUESTED')
    """,
    # One row per input or output file: `position` is where a resumed job goes on.
    """
    CREATE TABLE job_file (
        job_id TEXT COLLATE "C" NOT NULL REFERENCES job ON DELETE CASCADE,
        number INTEGER NOT NULL,
        role TEXT NOT NULL,
        url TEXT NOT NULL,
        resource_type TEXT,
        fingerprint TEXT,
        size BIGINT,
        position BIGINT DEFAULT 0 NOT NULL,
        read_count BIGINT DEFAULT 0 NOT NULL,
        done_count BIGINT DEFAULT 0 NOT NULL,
        failed_count BIGINT DEFAULT 0 NOT NULL,
        finished BOOLEAN DEFAULT false NOT NULL,
        PRIMARY KEY (job_id, number),
        CONSTRAINT job_file_role CHECK (role IN ('input', 'output', 'error', 'deleted'))
    )
    """,
    # What happened, never what was written (ST-73). Rows leave when the broker has taken them.
    """
    CREATE TABLE outbox (
        sequence BIGINT GENERATED ALWAYS AS IDENTITY,
        transaction_id xid8 DEFAULT pg_current_xact_id() NOT NULL,
        datastore_id INTEGER NOT NULL,
        resource_type TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        method TEXT NOT NULL,
        happened TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (sequence)
    )
    """,
)


def upgrade() -> None:
    """Forward only. `wardmesh.datastore` is set on every connection that serves a datastore."""
    for statement in STATEMENTS:
        op.execute(statement)
    for table in GUARDED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"""CREATE POLICY own_datastore ON {table} USING (
            datastore_id = (SELECT NULLIF(current_setting('wardmesh.datastore', true), '')::int))"""
        )

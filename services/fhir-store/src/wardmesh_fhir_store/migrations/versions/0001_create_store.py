"""Create the store: datastores, versions, current rows and their indexes."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE datastore (
        datastore_id INTEGER GENERATED ALWAYS AS IDENTITY,
        public_id TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        fhir_version TEXT DEFAULT 'R4' NOT NULL,
        tags JSONB DEFAULT '{}' NOT NULL,
        client_token TEXT,
        link_key BYTEA NOT NULL,
        created TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (datastore_id),
        UNIQUE (public_id),
        UNIQUE (client_token)
    )
    """,
    """
    CREATE TABLE fhir_current (
        datastore_id INTEGER NOT NULL,
        resource_type TEXT COLLATE "C" NOT NULL,
        resource_id TEXT COLLATE "C" NOT NULL,
        resource_key BIGINT GENERATED ALWAYS AS IDENTITY,
        version INTEGER NOT NULL,
        deleted BOOLEAN NOT NULL,
        last_updated TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (datastore_id, resource_type, resource_id)
    )
    """,
    """
    CREATE UNIQUE INDEX fhir_current_key ON fhir_current (datastore_id, resource_key)
    """,
    """
    CREATE INDEX fhir_current_updated ON fhir_current (datastore_id, resource_type, last_updated, resource_key)
    """,
    """
    CREATE INDEX fhir_current_walk ON fhir_current (datastore_id, resource_type, resource_key) WHERE NOT deleted
    """,
    """
    CREATE TABLE fhir_version (
        datastore_id INTEGER NOT NULL,
        resource_type TEXT COLLATE "C" NOT NULL,
        resource_id TEXT COLLATE "C" NOT NULL,
        version INTEGER NOT NULL,
        last_updated TIMESTAMP WITH TIME ZONE NOT NULL,
        sequence BIGINT GENERATED ALWAYS AS IDENTITY,
        transaction_id xid8 DEFAULT pg_current_xact_id() NOT NULL,
        method TEXT NOT NULL,
        status INTEGER NOT NULL,
        body BYTEA,
        PRIMARY KEY (datastore_id, resource_type, resource_id, version)
    )
    """,
    """
    CREATE INDEX fhir_version_all ON fhir_version (datastore_id, last_updated, sequence)
    """,
    """
    CREATE INDEX fhir_version_type ON fhir_version (datastore_id, resource_type, last_updated, sequence)
    """,
    """
    CREATE TABLE idx_token (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        system TEXT COLLATE "C" NOT NULL,
        code TEXT COLLATE "C" NOT NULL,
        key TEXT COLLATE "C" NOT NULL
    )
    """,
    """
    CREATE INDEX idx_token_resource ON idx_token (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_token_value ON idx_token (datastore_id, parameter, key, resource_key)
    """,
    """
    CREATE TABLE idx_string (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        value TEXT COLLATE "C" NOT NULL,
        folded TEXT COLLATE "C" NOT NULL
    )
    """,
    """
    CREATE INDEX idx_string_resource ON idx_string (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_string_value ON idx_string (datastore_id, parameter, folded, resource_key)
    """,
    """
    CREATE TABLE idx_date (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        low TIMESTAMP WITH TIME ZONE NOT NULL,
        high TIMESTAMP WITH TIME ZONE NOT NULL
    )
    """,
    """
    CREATE INDEX idx_date_resource ON idx_date (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_date_value ON idx_date (datastore_id, parameter, low, high, resource_key)
    """,
    """
    CREATE TABLE idx_number (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        low NUMERIC,
        high NUMERIC
    )
    """,
    """
    CREATE INDEX idx_number_resource ON idx_number (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_number_value ON idx_number (datastore_id, parameter, low, high, resource_key)
    """,
    """
    CREATE TABLE idx_quantity (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        low NUMERIC,
        high NUMERIC,
        system TEXT COLLATE "C" NOT NULL,
        code TEXT COLLATE "C" NOT NULL,
        unit TEXT COLLATE "C" NOT NULL
    )
    """,
    """
    CREATE INDEX idx_quantity_resource ON idx_quantity (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_quantity_value ON idx_quantity (datastore_id, parameter, low, high, resource_key)
    """,
    """
    CREATE TABLE idx_ref (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        target_type TEXT COLLATE "C" NOT NULL,
        target_id TEXT COLLATE "C" NOT NULL,
        target_version TEXT COLLATE "C" NOT NULL,
        url TEXT COLLATE "C" NOT NULL
    )
    """,
    """
    CREATE INDEX idx_ref_resource ON idx_ref (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_ref_value ON idx_ref (datastore_id, target_type, target_id, parameter, resource_key)
    """,
    """
    CREATE TABLE idx_uri (
        datastore_id INTEGER NOT NULL,
        parameter INTEGER NOT NULL,
        resource_key BIGINT NOT NULL,
        value TEXT COLLATE "C" NOT NULL
    )
    """,
    """
    CREATE INDEX idx_uri_resource ON idx_uri (datastore_id, resource_key, parameter)
    """,
    """
    CREATE INDEX idx_uri_value ON idx_uri (datastore_id, parameter, value, resource_key)
    """,
)


def upgrade() -> None:
    """Forward only."""
    for statement in STATEMENTS:
        op.execute(statement)

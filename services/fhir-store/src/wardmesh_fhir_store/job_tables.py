"""Tables beside the resources: jobs, their files, and the outbox of change events."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, ForeignKey, Identity, Index, Integer, Table, Text, text
from sqlalchemy import LargeBinary as Bytes
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from wardmesh_fhir_store.tables import Xid8, metadata


class Snapshot(UserDefinedType[str]):
    """PostgreSQL's pg_snapshot: which transactions had committed at one moment."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "pg_snapshot"


# A worker holds a job while its lease runs; any other may go on with it afterwards.
job = Table(
    "job",
    metadata,
    Column("job_id", Text(collation="C"), primary_key=True),
    Column("datastore_id", Integer, ForeignKey("datastore.datastore_id"), nullable=False),
    Column("kind", Text, nullable=False),  # import, export, load
    Column("status", Text, nullable=False),
    Column("name", Text),
    Column("client_token", Text),
    Column("request", JSONB, nullable=False),
    Column("request_hash", Bytes, nullable=False),  # the same token with another request is refused
    Column("progress", JSONB, nullable=False, server_default="{}"),
    Column("message", Text),
    Column("submitted", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("started", DateTime(timezone=True)),
    Column("ended", DateTime(timezone=True)),
    Column("transaction_time", DateTime(timezone=True)),
    Column("snapshot", Snapshot),  # an export holds what it shows as committed
    Column("worker", Text),
    Column("lease_until", DateTime(timezone=True)),
    Index("job_list", "datastore_id", "kind", text("submitted DESC"), "job_id"),
    Index(
        "job_open",
        "lease_until",
        postgresql_where=text("status IN ('SUBMITTED', 'IN_PROGRESS', 'STOP_REQUESTED')"),
    ),
)

job_file = Table(
    "job_file",
    metadata,
    Column("job_id", Text(collation="C"), ForeignKey("job.job_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("role", Text, nullable=False),  # input, output, error, deleted
    Column("url", Text, nullable=False),
    Column("resource_type", Text),
    Column("fingerprint", Text),
    Column("size", BigInteger),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Column("read_count", BigInteger, nullable=False, server_default="0"),
    Column("done_count", BigInteger, nullable=False, server_default="0"),
    Column("failed_count", BigInteger, nullable=False, server_default="0"),
    Column("finished", Boolean, nullable=False, server_default=text("false")),
    Column("last_id", Text),
)

job_error = Table(
    "job_error",
    metadata,
    Column("job_id", Text(collation="C"), ForeignKey("job.job_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("outcome", Bytes, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("sequence", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction_id", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("datastore_id", Integer, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("happened", DateTime(timezone=True), nullable=False),
)

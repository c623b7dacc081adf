"""The tables of auth: sessions, platform grants, revocations. Secrets are only here as hashes or sealed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY

SCHEMA = "auth"
metadata = MetaData(schema=SCHEMA)


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


session = Table(
    "session",
    metadata,
    Column("id", Text, primary_key=True),  # SHA-256 of the opaque id in the cookie, hex
    Column("tenant", Text, nullable=False),
    Column("principal_id", Text, nullable=False),
    Column("roles", ARRAY(Text), nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("patient", Text, nullable=False),
    Column("practitioner", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("idle_seconds", Integer, nullable=False),
    _moment("created_at", now=True),
    _moment("last_seen", now=True),
    _moment("expires_at"),
    _moment("revoked_at", nullable=True),
    Index("session_by_principal", "principal_id"),
    Index("session_by_expiry", "expires_at"),
)

platform_grant = Table(
    "platform_grant",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("principal_id", Text, nullable=False),  # "" = the deployment's own client credentials
    Column("platform", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # tokens, scopes and launch context, one envelope
    Column("version", Integer, nullable=False, server_default="1"),
    _moment("expires_at"),
    _moment("created_at", now=True),
    _moment("updated_at", now=True),
    UniqueConstraint("tenant", "principal_id", "platform", name="platform_grant_once"),
)

revocation = Table(
    "revocation",
    metadata,
    Column("kind", Text, primary_key=True),  # session | principal | token
    Column("subject", Text, primary_key=True),  # session id hash, principal id or token digest
    _moment("revoked_at", now=True),
    _moment("keep_until"),
    Index("revocation_by_time", "revoked_at"),
)

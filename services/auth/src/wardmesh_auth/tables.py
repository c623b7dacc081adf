"""The tables of auth: sessions, sign-ins, grants, accounts, revocations. Secrets are only here as hashes or sealed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    Column("previous", Text, nullable=False, server_default=""),  # SHA-256 of the access token before this one
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

# One record per sign-in of a principal at a platform (mcp.md §6): what became of it is asked for long afterwards.
consent = Table(
    "consent",
    metadata,
    Column("handle", Text, primary_key=True),  # random; what an auth_handle speaks of
    Column("tenant", Text, nullable=False),
    Column("principal_id", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending | granted | failed | cancelled | revoked
    _moment("created_at", now=True),
    _moment("updated_at", now=True),
    _moment("expires_at"),
    UniqueConstraint("tenant", "principal_id", "platform", name="consent_once"),
    Index("consent_by_update", "updated_at"),
)

# A sign-in under way. The row goes with the first answer that names its state: nothing is finished twice.
pending_sign_in = Table(
    "pending_sign_in",
    metadata,
    Column("state", Text, primary_key=True),  # SHA-256 of the state, hex
    Column("ticket", Text, unique=True),  # SHA-256 of the one-time value of the link; NULL once it was opened
    Column("purpose", Text, nullable=False),  # platform | person
    Column("tenant", Text, nullable=False),
    Column("principal_id", Text, nullable=False),  # who asked
    Column("platform", Text, nullable=False),
    Column("session", Text, nullable=False),  # the browser that carries it out, "" until one has opened the link
    Column("key_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # state, verifier, nonce and where it goes on
    _moment("expires_at"),
    Index("pending_sign_in_by_expiry", "expires_at"),
)

# Our keys for private_key_jwt: one row, one ring for all replicas.
client_keys = Table(
    "client_keys",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _moment("updated_at", now=True),
)

account = Table(
    "account",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False, server_default="default"),
    Column("username", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False),
    Column("roles", ARRAY(Text), nullable=False),
    Column("patient", Text, nullable=False),
    Column("practitioner", Text, nullable=False),
    Column("password_hash", Text, nullable=False),  # argon2id
    Column("disabled", Boolean, nullable=False, server_default="false"),
    _moment("created_at", now=True),
    _moment("updated_at", now=True),
)

account_refresh = Table(
    "account_refresh",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the refresh token, hex
    Column("account_id", Text, nullable=False),
    _moment("expires_at"),
    Index("account_refresh_by_account", "account_id"),
    Index("account_refresh_by_expiry", "expires_at"),
)

# Failed log-ins, by account and by address, counted for all replicas together.
failed_log_in = Table(
    "failed_log_in",
    metadata,
    Column("subject", Text, primary_key=True),  # digest of a user name or an address
    Column("failures", Integer, nullable=False),
    _moment("until"),
    Index("failed_log_in_by_time", "until"),
)

# Emergency accesses of the last day, to count them per person. Whose record was opened is nobody's business here.
break_glass = Table(
    "break_glass",
    metadata,
    Column("id", Text, primary_key=True),  # of the pass, as records name it
    Column("tenant", Text, nullable=False),
    Column("principal_id", Text, nullable=False),
    Column("session", Text, nullable=False),  # in which it was opened
    _moment("opened_at", now=True),
    Index("break_glass_by_principal", "principal_id", "opened_at"),
)

# Agents by the name they give themselves (IB-7).
agent = Table(
    "agent",
    metadata,
    Column("id", Text, primary_key=True),
    Column("did", Text, nullable=False),
    Column("developer_did", Text, nullable=False),
    Column("name", Text, nullable=False),
    _moment("first_seen", now=True),
)

"""Grants in PostgreSQL, each sealed in its own envelope, and the lock that makes a renewal happen once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.database import Database
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.tables import platform_grant, session
from wardmesh_auth.vault import Envelope, Vault
from wardmesh_common.errors import Internal, Unavailable

DEPLOYMENT = ""  # the principal of grants that belong to the deployment itself
_LOCK_SECONDS = 30.0  # FG-15
_HOLD_SECONDS = 20.0  # longer than any exchange with a token endpoint may take
_PAUSE_SECONDS = 0.05
_MOST_HELD = 6  # each holds a database connection while the platform answers
_MOST_PLATFORMS = 1000


class GrantKey(Struct, frozen=True):
    """Whose grant on which platform; a principal's grant is found by nothing less (FG-34)."""

    tenant: str
    principal_id: str
    platform: str

    @property
    def row(self) -> str:
        """Identity of the row, part of what its envelope is bound to."""
        return "\x1f".join(("platform_grant", self.tenant, self.platform, self.principal_id))


def deployment_key(platform: str) -> GrantKey:
    return GrantKey("default", DEPLOYMENT, platform)


class GrantStore:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault
        self._held = asyncio.Semaphore(_MOST_HELD)

    async def load(self, key: GrantKey) -> PlatformToken | None:
        async with self._database.transaction() as connection:
            return await self.read(connection, key)

    @asynccontextmanager
    async def exclusively(self, key: GrantKey, seconds: float = _LOCK_SECONDS) -> AsyncGenerator[AsyncConnection]:
        """One replica at a time per grant; the lock ends with the transaction, also when the replica dies.

        Whoever waits holds no connection: a slow platform must not use up the pool. Raises Unavailable in the end.
        """
        number = int.from_bytes(hashlib.sha256(key.row.encode()).digest()[:8], "big", signed=True)
        limit = time.monotonic() + seconds
        while True:
            async with self._held, self._database.transaction(_HOLD_SECONDS) as connection:
                found = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:n)"), {"n": number})
                if found.scalar_one():
                    yield connection
                    return
            if time.monotonic() > limit:
                raise Unavailable("a grant is being renewed for too long", retry_after=5)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def read(self, connection: AsyncConnection, key: GrantKey) -> PlatformToken | None:
        found = (await connection.execute(select(platform_grant).where(*_of(key)))).one_or_none()
        return self._opened(found, key) if found is not None else None

    async def all_of(self, tenant: str, principal_id: str) -> dict[str, PlatformToken]:
        """Every platform that this principal is signed in at."""
        mine = (platform_grant.c.tenant == tenant, platform_grant.c.principal_id == principal_id)
        query = select(platform_grant).where(*mine).order_by(platform_grant.c.platform).limit(_MOST_PLATFORMS)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        keys = [GrantKey(tenant, principal_id, row.platform) for row in rows]
        return {key.platform: self._opened(row, key) for key, row in zip(keys, rows, strict=True)}

    async def preceded_by(self, connection: AsyncConnection, key: GrantKey, access_token: str) -> bool:
        """True when this very token was the one before the stored one."""
        found = await connection.execute(select(platform_grant.c.previous).where(*_of(key)))
        return found.scalar_one_or_none() == fingerprint(access_token)

    async def write(
        self, connection: AsyncConnection, key: GrantKey, token: PlatformToken, *, replaced: PlatformToken | None = None
    ) -> None:
        envelope = self._vault.seal(msgspec.msgpack.encode(token), key.row)
        sealed = {
            "key_id": envelope.key_id,
            "wrapped_key": envelope.wrapped_key,
            "sealed": envelope.ciphertext,
            "expires_at": func.to_timestamp(token.expires_at),
            "previous": fingerprint(replaced.access_token) if replaced else "",
        }
        row = insert(platform_grant).values(
            tenant=key.tenant, principal_id=key.principal_id, platform=key.platform, **sealed
        )
        row = row.on_conflict_do_update(
            constraint="platform_grant_once",
            set_={**sealed, "version": platform_grant.c.version + 1, "updated_at": func.now()},
        )
        await connection.execute(row)

    async def forget(self, connection: AsyncConnection, key: GrantKey) -> None:
        await connection.execute(platform_grant.delete().where(*_of(key)))

    async def forget_principal(self, connection: AsyncConnection, tenant: str, principal_id: str) -> None:
        mine = (platform_grant.c.tenant == tenant, platform_grant.c.principal_id == principal_id)
        await connection.execute(platform_grant.delete().where(*mine))

    async def sweep(self) -> None:
        """Grants of browser sessions that are over: nobody can come for them any more."""
        owner = func.concat("session:", func.left(session.c.id, 32))
        alive = select(session.c.id).where(owner == platform_grant.c.principal_id).exists()
        orphaned = platform_grant.c.principal_id.like("session:%") & ~alive
        async with self._database.transaction() as connection:
            await connection.execute(platform_grant.delete().where(orphaned))

    def _opened(self, row: Any, key: GrantKey) -> PlatformToken:
        plain = self._vault.open(Envelope(row.key_id, row.wrapped_key, row.sealed), key.row)
        try:
            return msgspec.msgpack.decode(plain, type=PlatformToken)
        except msgspec.DecodeError:
            raise Internal("a stored grant cannot be read") from None


def principal_digest(key: GrantKey) -> str:
    """Names a principal in an event without saying who it is (AR-8)."""
    return hashlib.sha256(f"{key.tenant}\x1f{key.principal_id}".encode()).hexdigest()


def fingerprint(access_token: str) -> str:
    return hashlib.sha256(access_token.encode()).hexdigest()


def _of(key: GrantKey) -> tuple[Any, ...]:
    return (
        platform_grant.c.tenant == key.tenant,
        platform_grant.c.principal_id == key.principal_id,
        platform_grant.c.platform == key.platform,
    )

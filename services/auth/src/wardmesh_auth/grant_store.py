"""Grants in PostgreSQL, each sealed in its own envelope, and the lock that makes a renewal happen once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.database import Database
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.tables import platform_grant
from wardmesh_auth.vault import Envelope, Vault
from wardmesh_common.errors import Internal

DEPLOYMENT = ""  # the principal of grants that belong to the deployment itself
_LOCK_SECONDS = 9  # longer than one exchange with a token endpoint may take


class GrantKey(Struct, frozen=True):
    """Whose grant on which platform; a principal's grant is found by nothing less (FG-34)."""

    tenant: str
    principal_id: str
    platform: str

    @property
    def row(self) -> str:
        """Identity of the row, part of what its envelope is bound to."""
        return "\x1f".join(("platform_grant", self.tenant, self.platform, self.principal_id))


class GrantStore:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    async def load(self, key: GrantKey) -> PlatformToken | None:
        async with self._database.transaction() as connection:
            return await self.read(connection, key)

    @asynccontextmanager
    async def exclusively(self, key: GrantKey) -> AsyncGenerator[AsyncConnection]:
        """One replica at a time per grant; the lock ends with the transaction, also when the replica dies."""
        digest = hashlib.sha256(key.row.encode()).digest()
        async with self._database.transaction(_LOCK_SECONDS * 2) as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            number = int.from_bytes(digest[:8], "big", signed=True)
            await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
            yield connection

    async def read(self, connection: AsyncConnection, key: GrantKey) -> PlatformToken | None:
        row = (
            await connection.execute(
                select(platform_grant.c.key_id, platform_grant.c.wrapped_key, platform_grant.c.sealed).where(
                    platform_grant.c.tenant == key.tenant,
                    platform_grant.c.principal_id == key.principal_id,
                    platform_grant.c.platform == key.platform,
                )
            )
        ).one_or_none()
        if row is None:
            return None
        plain = self._vault.open(Envelope(row.key_id, row.wrapped_key, row.sealed), key.row)
        try:
            return msgspec.msgpack.decode(plain, type=PlatformToken)
        except msgspec.DecodeError:
            raise Internal("a stored grant cannot be read") from None

    async def write(self, connection: AsyncConnection, key: GrantKey, token: PlatformToken) -> None:
        envelope = self._vault.seal(msgspec.msgpack.encode(token), key.row)
        expires = func.to_timestamp(token.expires_at)
        sealed = {
            "key_id": envelope.key_id,
            "wrapped_key": envelope.wrapped_key,
            "sealed": envelope.ciphertext,
            "expires_at": expires,
        }
        row = insert(platform_grant).values(
            tenant=key.tenant, principal_id=key.principal_id, platform=key.platform, **sealed
        )
        row = row.on_conflict_do_update(
            constraint="platform_grant_once",
            set_={**sealed, "version": platform_grant.c.version + 1, "updated_at": func.now()},
        )
        await connection.execute(row)

    async def forget(self, key: GrantKey) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                platform_grant.delete().where(
                    platform_grant.c.tenant == key.tenant,
                    platform_grant.c.principal_id == key.principal_id,
                    platform_grant.c.platform == key.platform,
                )
            )

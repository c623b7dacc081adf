"""Consent records: what became of a principal's sign-in at a platform, for whoever asks afterwards (mcp.md §6)."""

from __future__ import annotations

import secrets
from typing import Any

from msgspec import Struct
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.bounded import Bounded
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.sign_in.pending import LIFE_SECONDS
from wardmesh_auth.tables import consent as row

PENDING, GRANTED, FAILED, CANCELLED = "pending", "granted", "failed", "cancelled"
REVOKED = "revoked"
_CALLED_OFF = (CANCELLED, REVOKED)
_KEPT_HOURS = 25  # longer than an auth_handle lives
_CACHE_SECONDS = 10.0


class Consent(Struct, frozen=True, kw_only=True):
    handle: str
    tenant: str
    principal_id: str
    platform: str
    status: str
    expires_at: float  # of a pending one

    @property
    def key(self) -> GrantKey:
        return GrantKey(self.tenant, self.principal_id, self.platform)


class Consents:
    """One record per principal and platform; its handle stays the same when the principal starts again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owners: Bounded[str, Consent] = Bounded(20_000)

    async def begin(self, connection: AsyncConnection, key: GrantKey) -> Consent:
        until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, LIFE_SECONDS)
        values = {"status": PENDING, "expires_at": until, "updated_at": func.now()}
        begun = insert(row).values(
            handle=secrets.token_hex(16),
            tenant=key.tenant,
            principal_id=key.principal_id,
            platform=key.platform,
            **values,
        )
        begun = begun.on_conflict_do_update(constraint="consent_once", set_=values)
        return _read((await connection.execute(begun.returning(*_columns()))).one())

    async def grant(self, connection: AsyncConnection, key: GrantKey) -> bool:
        """False when the sign-in was called off, or its principal signed out, while the platform was being asked."""
        granted = row.update().where(*_of(key), row.c.status.not_in(_CALLED_OFF))
        return (await connection.execute(granted.values(status=GRANTED, updated_at=func.now()))).rowcount > 0

    async def revoke(self, connection: AsyncConnection, key: GrantKey) -> None:
        await connection.execute(row.update().where(*_of(key)).values(status=REVOKED, updated_at=func.now()))

    async def fail(self, key: GrantKey) -> None:
        """The attempt that is pending came to nothing; what was granted before stays."""
        failed = row.update().where(*_of(key), row.c.status == PENDING).values(status=FAILED, updated_at=func.now())
        async with self._database.transaction() as connection:
            await connection.execute(failed)

    async def cancel(self, connection: AsyncConnection, key: GrantKey) -> bool:
        """False when nothing was pending."""
        mine = row.update().where(*_of(key), row.c.status == PENDING)
        cancelled = await connection.execute(mine.values(status=CANCELLED, updated_at=func.now()))
        return cancelled.rowcount > 0

    async def find(self, key: GrantKey) -> Consent | None:
        """With status `expired` for one that nobody finished in time."""
        async with self._database.transaction() as connection:
            found = (await connection.execute(select(*_columns()).where(*_of(key)))).one_or_none()
        return _read(found) if found is not None else None

    async def by_handle(self, handle: str) -> Consent | None:
        known = self._owners.get(handle)
        if known is None:
            async with self._database.transaction() as connection:
                found = (await connection.execute(select(*_columns()).where(row.c.handle == handle))).one_or_none()
            if found is None:
                return None
            known = _read(found)
            self._owners.put(handle, known, _CACHE_SECONDS)
        return known

    async def forget(self, connection: AsyncConnection, tenant: str, principal_id: str) -> None:
        """Handles of this principal stand for nobody any more."""
        await connection.execute(row.delete().where(row.c.tenant == tenant, row.c.principal_id == principal_id))
        self._owners.drop_where(lambda known: known.principal_id == principal_id)

    def heard(self, principal_id: str) -> None:
        self._owners.drop_where(lambda known: known.principal_id == principal_id)

    async def sweep(self) -> None:
        old = func.now() - func.make_interval(0, 0, 0, 0, _KEPT_HOURS)
        async with self._database.transaction() as connection:
            await connection.execute(row.delete().where(row.c.updated_at < old))


def _of(key: GrantKey) -> tuple[Any, ...]:
    return (row.c.tenant == key.tenant, row.c.principal_id == key.principal_id, row.c.platform == key.platform)


def _columns() -> tuple[Any, ...]:
    over = (row.c.expires_at < func.now()).label("over")
    return (*row.c, func.extract("epoch", row.c.expires_at).label("ends"), over)


def _read(found: Any) -> Consent:
    return Consent(
        handle=found.handle,
        tenant=found.tenant,
        principal_id=found.principal_id,
        platform=found.platform,
        status="expired" if found.over and found.status == PENDING else found.status,
        expires_at=float(found.ends),
    )

"""Sign-ins under way, in PostgreSQL: any replica finishes them, each once, within 900 seconds of its clock."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.database import Database
from wardmesh_auth.tables import pending_sign_in as row
from wardmesh_auth.vault import Envelope, Vault
from wardmesh_common.errors import Internal

LIFE_SECONDS = 900  # FG-13
PLATFORM, PERSON = "platform", "person"


class Secrets(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the way back needs and nobody else may read."""

    state: str
    verifier: str
    nonce: str
    redirect_uri: str
    scopes: tuple[str, ...] = ()
    location: str = ""  # where the person signs in
    next: str = "/"  # where a person's own sign-in leads to afterwards
    flavour: str = ""  # "sm": it ends only in a browser that brings the cookies of SM-2

    def __repr__(self) -> str:
        return "Secrets(...)"


class Pending(Struct, frozen=True, kw_only=True):
    """`session` is the browser that carries it out; "" until one has opened the link."""

    purpose: str
    tenant: str
    principal_id: str
    platform: str
    session: str
    secrets: Secrets


class Owner(Struct, frozen=True):
    tenant: str
    principal_id: str
    platform: str


class PendingSignIns:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    async def begin(self, connection: AsyncConnection, pending: Pending, ticket: str = "") -> None:
        state = digest(pending.secrets.state)
        envelope = self._vault.seal(msgspec.msgpack.encode(pending.secrets), bound_to(state))
        await connection.execute(
            row.insert().values(
                state=state,
                ticket=digest(ticket) if ticket else None,
                purpose=pending.purpose,
                tenant=pending.tenant,
                principal_id=pending.principal_id,
                platform=pending.platform,
                session=pending.session,
                key_id=envelope.key_id,
                wrapped_key=envelope.wrapped_key,
                sealed=envelope.ciphertext,
                expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, LIFE_SECONDS),
            )
        )

    async def owner(self, ticket: str) -> Owner | None:
        """Whose link this is; None when it is unknown, opened or over."""
        query = row.select().where(row.c.ticket == digest(ticket), row.c.expires_at > func.now())
        async with self._database.transaction() as connection:
            found = (await connection.execute(query)).one_or_none()
        return Owner(found.tenant, found.principal_id, found.platform) if found else None

    async def open(self, ticket: str, owner: Owner, session: str) -> Pending | None:
        """Use the link up and bind the sign-in to this browser; None when somebody was faster."""
        opened = (
            row.update()
            .where(
                row.c.ticket == digest(ticket),
                row.c.tenant == owner.tenant,
                row.c.principal_id == owner.principal_id,
                row.c.expires_at > func.now(),
            )
            .values(ticket=None, session=session)
            .returning(row)
        )
        async with self._database.transaction() as connection:
            return self._read((await connection.execute(opened)).one_or_none())

    async def take(self, state: str) -> Pending | None:
        """The sign-in of this state, which is gone from now on; None when it is unknown, used or over."""
        taken = row.delete().where(row.c.state == digest(state)).returning(row, row.c.expires_at > func.now())
        async with self._database.transaction() as connection:
            found = (await connection.execute(taken)).one_or_none()
        return self._read(found) if found is not None and found[-1] else None

    async def forget(self, connection: AsyncConnection, tenant: str, principal_id: str, platform: str = "") -> None:
        """Nothing that this principal began may still be finished."""
        mine = (row.c.tenant == tenant) & (row.c.principal_id == principal_id)
        await connection.execute(row.delete().where(mine & (row.c.platform == platform) if platform else mine))

    async def sweep(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(row.delete().where(row.c.expires_at < func.now()))

    def _read(self, found: Any) -> Pending | None:
        if found is None:
            return None
        plain = self._vault.open(Envelope(found.key_id, found.wrapped_key, found.sealed), bound_to(found.state))
        try:
            secrets = msgspec.msgpack.decode(plain, type=Secrets)
        except msgspec.DecodeError:
            raise Internal("a stored sign-in cannot be read") from None
        return Pending(
            purpose=found.purpose,
            tenant=found.tenant,
            principal_id=found.principal_id,
            platform=found.platform,
            session=found.session,
            secrets=secrets,
        )


def digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def bound_to(state: str) -> str:
    return f"pending_sign_in\x1f{state}"

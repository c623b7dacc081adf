"""Our private_key_jwt keys, one sealed ring for all replicas: made at the first start, rotated by a command."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.database import Database
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_auth.tables import client_keys as row
from wardmesh_auth.vault import Envelope, Vault
from wardmesh_common.errors import Internal

_ONLY = 1

log = logging.getLogger("wardmesh.auth")
BOUND_TO = "client_keys"


class ClientKeyRing:
    """Calling it answers the keys of the moment; `refresh` reads what another replica or the command has changed."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault
        self._keys = ClientKeys()

    def __call__(self) -> ClientKeys:
        return self._keys

    async def refresh(self) -> None:
        """Raises Unavailable. A ring that does not open is reported and not used: other sign-ins go on."""
        try:
            async with self._database.transaction() as connection:
                stored = await self._read(connection)
            self._keys = stored or await self._first()
        except Internal as error:
            log.error("the client keys cannot be used: %s", error.problem.detail)

    async def rotate(self) -> None:
        """Publish a new key per algorithm; the old ones sign until everyone had time to fetch the new ones."""
        async with self._database.transaction() as connection:
            stored = await self._read(connection, locked=True)
            fresh = await asyncio.to_thread((stored or ClientKeys()).rotated)
            await self._write(connection, fresh)
        self._keys = fresh

    async def _first(self) -> ClientKeys:
        """Several replicas may start at once: the first to insert wins, the others read."""
        made = await asyncio.to_thread(ClientKeys.generate)
        async with self._database.transaction() as connection:
            await self._write(connection, made, keep=True)
            stored = await self._read(connection)
        if stored is None:
            raise Internal("the client keys were not stored")
        return stored

    async def _read(self, connection: AsyncConnection, *, locked: bool = False) -> ClientKeys | None:
        query = select(row).where(row.c.id == _ONLY)
        found = (await connection.execute(query.with_for_update() if locked else query)).one_or_none()
        if found is None:
            return None
        plain = self._vault.open(Envelope(found.key_id, found.wrapped_key, found.sealed), BOUND_TO)
        return ClientKeys.parse(plain.decode())

    async def _write(self, connection: AsyncConnection, keys: ClientKeys, *, keep: bool = False) -> None:
        envelope = self._vault.seal(keys.dump().encode(), BOUND_TO)
        sealed = {
            "key_id": envelope.key_id,
            "wrapped_key": envelope.wrapped_key,
            "sealed": envelope.ciphertext,
            "updated_at": func.now(),
        }
        written = insert(row).values(id=_ONLY, **sealed)
        if keep:
            await connection.execute(written.on_conflict_do_nothing())
        else:
            await connection.execute(written.on_conflict_do_update(index_elements=["id"], set_=sealed))

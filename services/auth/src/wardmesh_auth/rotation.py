"""`wardmesh-auth rotate-keys`: every stored secret under the first master key, so that the others may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Table, select

from wardmesh_auth.client_key_ring import BOUND_TO
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.sign_in.pending import bound_to
from wardmesh_auth.tables import client_keys, pending_sign_in, platform_grant
from wardmesh_auth.vault import Envelope, Vault

_BATCH = 500

# What the envelope of a row is bound to, per table.
_IDENTITIES: tuple[tuple[Table, Callable[[Any], str]], ...] = (
    (platform_grant, lambda row: GrantKey(row.tenant, row.principal_id, row.platform).row),
    (pending_sign_in, lambda row: bound_to(row.state)),
    (client_keys, lambda _row: BOUND_TO),
)


async def rotate_keys(database: Database, vault: Vault) -> int:
    """How many rows changed; auth may run meanwhile, a row is locked for its change. Raises Internal, Unavailable."""
    changed = 0
    for table, identity in _IDENTITIES:
        while done := await _batch(database, vault, table, identity):
            changed += done
    return changed


async def _batch(database: Database, vault: Vault, table: Table, identity: Callable[[Any], str]) -> int:
    query = select(table).where(table.c.key_id != vault.current).limit(_BATCH).with_for_update()
    (primary,) = table.primary_key.columns
    async with database.transaction(30.0) as connection:
        rows = (await connection.execute(query)).all()
        for row in rows:
            old = Envelope(row.key_id, row.wrapped_key, row.sealed)
            fresh = vault.rewrapped(old, identity(row))
            again = table.update().where(primary == getattr(row, primary.name))
            await connection.execute(again.values(key_id=fresh.key_id, wrapped_key=fresh.wrapped_key))
    return len(rows)

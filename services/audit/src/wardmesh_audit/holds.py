"""Legal holds: what they cover may be neither dropped nor shredded; two persons release one (audit.md section 16)."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection
from wardmesh_common.errors import BadRequest, Conflict, NotFound

_MOST_REASON = 1000
_pseudonym = re.compile("[0-9a-f]{32}").fullmatch
_HOLD = "id, scope, reason, placed_by, placed_at, release_asked_by, release_asked_at, released_by, released_at"


class Scope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a hold is about; everything that is said must match. `patient` is a pseudonym in hex."""

    tenant: str | None = None
    patient: str | None = None
    actor: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = None


class Hold(Struct, frozen=True, kw_only=True):
    id: uuid.UUID
    scope: Scope
    reason: str
    placed_by: str
    placed_at: datetime
    release_asked_by: str | None = None
    release_asked_at: datetime | None = None
    released_by: str | None = None
    released_at: datetime | None = None

    @property
    def active(self) -> bool:
        return self.released_at is None


async def place(conn: Connection, scope: Scope, reason: str, person: str, hold_id: uuid.UUID) -> Hold:
    """Asking twice under one id is one hold. Raises BadRequest."""
    check(scope, reason)
    await conn.execute(
        "insert into legal_hold (id, scope, reason, placed_by) values ($1, $2, $3, $4) on conflict (id) do nothing",
        hold_id,
        msgspec.json.encode(scope).decode(),
        reason,
        person,
    )
    return await _one(conn, hold_id)


async def release(conn: Connection, hold_id: uuid.UUID, person: str) -> Hold:
    """The first person asks, a second one releases. Raises NotFound, or Conflict when both are the same."""
    async with conn.transaction():
        row = await conn.fetchrow(f"select {_HOLD} from legal_hold where id = $1 for update", hold_id)  # noqa: S608
        if row is None:
            raise NotFound("There is no such hold.")
        if row["released_at"] is not None:
            raise Conflict("This hold is released already.")
        if row["release_asked_by"] is None:
            await conn.execute(
                "update legal_hold set release_asked_by = $2, release_asked_at = clock_timestamp() where id = $1",
                hold_id,
                person,
            )
        elif row["release_asked_by"] == person:
            raise Conflict("A second person has to release this hold.")
        else:
            await conn.execute(
                "update legal_hold set released_by = $2, released_at = clock_timestamp() where id = $1",
                hold_id,
                person,
            )
        return await _one(conn, hold_id)


async def listed(conn: Connection, *, released: bool = False) -> list[Hold]:
    """Holds in force, oldest first; with `released` also those that ended."""
    rows = await conn.fetch(
        f"select {_HOLD} from legal_hold where released_at is null or $1 order by placed_at, id",  # noqa: S608
        released,
    )
    return [_hold(row) for row in rows]


async def blocking(conn: Connection, pseudonym: bytes) -> list[uuid.UUID]:
    """The holds that cover anything recorded about this patient."""
    rows = await conn.fetch(
        "select h.id from legal_hold h where h.released_at is null and (h.scope->>'patient' = encode($1, 'hex')"
        " or exists (select 1 from event e where e.patient_ref = $1"
        " and audit_held(h.scope, e.tenant, e.actor_id, e.patient_ref, e.occurred_at))) order by h.placed_at",
        pseudonym,
    )
    return [row["id"] for row in rows]


def check(scope: Scope, reason: str) -> None:
    """Raises BadRequest."""
    if not 0 < len(reason) <= _MOST_REASON or "\x00" in reason:
        raise BadRequest(f"A hold needs a reason of 1 to {_MOST_REASON} characters.")
    if scope == Scope():
        raise BadRequest("A hold needs a tenant, a patient, an actor or a period.")
    for instant in (scope.since, scope.until):
        if instant is not None and instant.tzinfo is None:
            raise BadRequest("The period of a hold needs times with their zone.")
    if scope.since and scope.until and scope.until <= scope.since:
        raise BadRequest("The period of a hold ends before it begins.")
    if scope.patient is not None and not _pseudonym(scope.patient):
        raise BadRequest("The patient of a hold is a pseudonym: 32 hexadecimal digits.")
    if any(text is not None and ("\x00" in text or not text) for text in (scope.tenant, scope.patient, scope.actor)):
        raise BadRequest("The scope of a hold holds an empty value.")


async def _one(conn: Connection, hold_id: uuid.UUID) -> Hold:
    row = await conn.fetchrow(f"select {_HOLD} from legal_hold where id = $1", hold_id)  # noqa: S608
    if row is None:
        raise NotFound("There is no such hold.")
    return _hold(row)


def _hold(row: asyncpg.Record) -> Hold:
    values: dict[str, Any] = dict(row)
    values["scope"] = msgspec.json.decode(values["scope"], type=Scope)
    return Hold(**values)

"""Referential integrity, where a datastore asks for it: no unknown targets, no dangling references (ST-10)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.records import Change

# FOR SHARE: a target that somebody is deleting is waited for.
_LIVING = text(
    """SELECT resource_type, resource_id FROM fhir_current
    WHERE datastore_id = CAST(:datastore AS int) AND NOT deleted AND (resource_type, resource_id) IN
    (SELECT * FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[]))) FOR SHARE"""
)
_REFERRED = text(
    """SELECT 1 FROM idx_ref r JOIN fhir_current c
    ON c.datastore_id = r.datastore_id AND c.resource_key = r.resource_key
    WHERE r.datastore_id = CAST(:datastore AS int) AND (r.target_type, r.target_id) IN
    (SELECT * FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])))
    AND (c.resource_type, c.resource_id) NOT IN
    (SELECT * FROM unnest(CAST(:changed_types AS text[]), CAST(:changed_ids AS text[]))) LIMIT 1"""
)


async def check(connection: AsyncConnection, datastore: int, changes: Sequence[Change]) -> None:
    """Before the changes are saved, their rows locked. Raises 400 or 409."""
    written = {(c.type, c.id) for c in changes if c.members is not None}
    gone = {(c.type, c.id) for c in changes if c.members is None}
    aims = {(row[1], row[2]) for c in changes if c.rows for row in c.rows.get("ref", ()) if row[1] and row[2]}
    for change in changes:
        for row in (change.rows or {}).get("ref", ()):
            if (row[1], row[2]) in gone:
                raise conflict()
    unknown = aims - written
    if unknown:
        values = {"datastore": datastore, "types": [t for t, _ in unknown], "ids": [i for _, i in unknown]}
        living = {(row[0], row[1]) for row in await connection.execute(_LIVING, values)}
        if living != unknown:
            raise Fault(400, "not-found", "A reference names a resource that this datastore does not hold.")
    if gone:
        values = {
            "datastore": datastore,
            "types": [t for t, _ in gone],
            "ids": [i for _, i in gone],
            "changed_types": [c.type for c in changes],
            "changed_ids": [c.id for c in changes],
        }
        if (await connection.execute(_REFERRED, values)).first() is not None:
            raise conflict()


def conflict() -> Fault:
    return Fault(409, "conflict", "Other resources refer to the resource.")

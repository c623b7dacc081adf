"""Which resources an export holds: whole store, all patients' records, or those of a group's members (ST-70)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import invalid
from wardmesh_fhir_store.jobs.snapshots import Exported
from wardmesh_fhir_store.jsontext import Tree, decode_object
from wardmesh_fhir_store.paths import steps_of, walk
from wardmesh_fhir_store.query import Pair, pairs_of
from wardmesh_fhir_store.references import target_of
from wardmesh_fhir_store.searching import SearchReader
from wardmesh_fhir_store.store import Store

PATIENT = "Patient"


class Members:
    """`patients` None: every patient; `level` system keeps everything; `filters` are `Type?query`."""

    def __init__(self, store: Store, level: str, patients: list[str] | None, filters: list[str]) -> None:
        self._store = store
        self._level = level
        self._patients = None if patients is None else frozenset(patients)
        self._filters: dict[str, list[str]] = {}
        for one in filters:
            kind, _, query = one.partition("?")
            self._filters.setdefault(kind, []).append(query)

    def covers(self, kind: str) -> bool:
        """Types outside the record have no place in an export of records."""
        return self._level == "system" or kind in self._store.definitions.compartments[PATIENT] or kind == PATIENT

    async def kept(self, connection: AsyncConnection, kind: str, page: Sequence[Exported]) -> list[Exported]:
        """Membership is read from the exported version itself; filters use the search index of now."""
        found = list(page)
        if self._level != "system":
            found = [one for one in found if one.body is not None and self._member(kind, one)]
        if kind in self._filters:
            ids = await self._matching(connection, kind, [one.id for one in found])
            found = [one for one in found if one.id in ids]
        return found

    def _member(self, kind: str, one: Exported) -> bool:
        if kind == PATIENT and self._has(one.id):
            return True
        tree = decode_object(one.body or b"")
        return any(self._has(patient) for patient in self._patients_of(kind, tree))

    def _has(self, patient: str) -> bool:
        return self._patients is None or patient in self._patients

    def _patients_of(self, kind: str, tree: Tree) -> set[str]:
        definitions = self._store.definitions
        found: set[str] = set()
        for code in definitions.compartments[PATIENT].get(kind, ()):
            parameter = definitions.parameters[kind].get(code)
            for branch in parameter.branches if parameter else ():
                for value in walk(tree, steps_of(branch.path)):
                    found.update(_patient(value, self._store.bases))
        return found

    async def _matching(self, connection: AsyncConnection, kind: str, ids: list[str]) -> set[str]:
        found: set[str] = set()
        for query in self._filters[kind]:
            pairs = pairs_of(query)
            search = (await self._store.searches_for(connection, pairs)).criteria(kind, pairs)
            rows = select(search.row.c.resource_id).where(or_(search.row.c.resource_id.in_(ids)), *search.conditions)
            found.update((await connection.execute(rows)).scalars())
        return found


async def check_filters(store: Store, filters: list[str]) -> None:
    """Everything must be understood: an ignored filter would export too much. Raises Fault."""
    for one in filters:
        kind, mark, query = one.partition("?")
        if not mark or kind not in store.definitions.resource_types:
            raise invalid("_typeFilter must be of the form Type?query.")
        pairs = pairs_of(query)

        async def look(connection: AsyncConnection, pairs: list[Pair] = pairs) -> SearchReader:
            return await store.searches_for(connection, pairs)

        (await store.database.read(look)).criteria(kind, pairs)


def _patient(value: Any, bases: tuple[str, ...]) -> list[str]:
    written = value.get("reference") if isinstance(value, dict) else None
    target = target_of(written, bases) if isinstance(written, str) else None
    return [target.id] if target and target.type == PATIENT else []

"""What a Bulk Data kick-off asks for, read strictly: an ignored parameter would export too much (ST-70)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import Fault, invalid, not_supported
from wardmesh_fhir_store.jobs.members import check_filters
from wardmesh_fhir_store.jsontext import decode_object
from wardmesh_fhir_store.moments import MOMENT, span_of
from wardmesh_fhir_store.operations import Target, primitive_pairs
from wardmesh_fhir_store.query import Pair, pairs_of
from wardmesh_fhir_store.reading import Reading
from wardmesh_fhir_store.references import target_of
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request

FORMATS = frozenset({"application/fhir+ndjson", "application/fhir ndjson", "application/ndjson", "ndjson"})
KNOWN = frozenset({"_outputFormat", "_since", "_type", "_typeFilter"})
_NEXT_FILTER = re.compile(r",(?=[A-Z][A-Za-z]+\?)")
_ZONED = re.compile(r".*T.*(?:Z|[+-]\d\d:\d\d)")


class Wish(Struct, frozen=True):
    """As the job keeps it; `patients` only for a group, `request` is what the manifest repeats."""

    level: str
    types: list[str]
    filters: list[str]
    since: str
    patients: list[str] | None
    request: str

    @property
    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = {"level": self.level, "request": self.request, "filters": self.filters}
        optional = {"types": self.types, "since": self.since, "patients": self.patients}
        return found | {name: value for name, value in optional.items() if value or value == []}


async def wish_of(store: Store, reading: Reading, request: Request, target: Target) -> Wish:
    """Raises Fault."""
    if "respond-async" not in request.headers.get("prefer", ""):
        raise invalid("An export answers later: send Prefer: respond-async.")
    pairs = [*pairs_of(request.query), *(primitive_pairs(request.body) if request.method == "POST" else ())]
    pairs = [pair for pair in pairs if pair[0] != "_format"]
    if any(name not in KNOWN for name, _ in pairs):
        raise not_supported("$export takes _outputFormat, _since, _type and _typeFilter.")
    if any(value not in FORMATS for value in _all(pairs, "_outputFormat")):
        raise not_supported("$export writes NDJSON only.")
    types = [kind for value in _all(pairs, "_type") for kind in value.split(",") if kind]
    if any(kind not in store.definitions.resource_types for kind in types):
        raise invalid("_type names a resource type that there is not.")
    filters = [one for value in _all(pairs, "_typeFilter") for one in _NEXT_FILTER.split(value)]
    await check_filters(store, filters)
    path = "/".join(filter(None, (target.kind, target.id, "$export")))
    asked = f"{store.url(path)}?{request.query}" if request.query else store.url(path)
    patients = await _group(store, reading, target.id) if target.level == "instance" else None
    level = {"system": "system", "type": "patient", "instance": "group"}[target.level]
    return Wish(level, sorted(set(types)), filters, _since(pairs), patients, asked)


def _all(pairs: list[Pair], wanted: str) -> list[str]:
    return [value for name, value in pairs if name == wanted]


def _since(pairs: list[Pair]) -> str:
    found = _all(pairs, "_since")
    if not found:
        return ""
    span = span_of(found[0]) if MOMENT.fullmatch(found[0]) and _ZONED.fullmatch(found[0]) else None
    if span is None or len(found) > 1:
        raise invalid("_since must be one instant, with time and zone.")
    return span[0].isoformat()


async def _group(store: Store, reading: Reading, identity: str) -> list[str]:
    """The patients that belong to the group now. Raises 404, 410."""

    async def look(connection: AsyncConnection) -> bytes:
        return (await reading.read(connection, Request("GET", ""), "Group", identity)).body

    members: Any = decode_object(await store.database.read(look)).get("member", [])
    found: list[str] = []
    for member in members:
        target = target_of(member.get("entity", {}).get("reference", ""), store.bases)
        if target and target.type == "Group":
            raise Fault(400, "not-supported", "A group of groups cannot be exported.")
        if target and target.type == "Patient" and member.get("inactive") is not True:
            found.append(target.id)
    return found

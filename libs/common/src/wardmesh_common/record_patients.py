"""Whom an audit event is about: the patients of a call, one event each, long lists in several."""

from __future__ import annotations

from collections.abc import Iterable

from wardmesh_common.contracts import Call, Touched
from wardmesh_common.vocabulary import Emergency

OPEN_CHARS = 200
_REFERENCE_BYTES = 28_000  # sealed resource references per event; more of them go into further events


def by_patient(call: Call, touched: tuple[Touched, ...]) -> Iterable[tuple[str, str, int, list[str]]]:
    """(patient, type, count, references) per distinct patient; very long lists take several events."""
    merged: dict[str, list[Touched]] = {}
    for item in touched:
        merged.setdefault(item.patient, []).append(item)
    if not merged:
        yield _asked_patient(call), call.resource.type, 0, []
        return
    for patient, items in merged.items():
        if len(items) == 1 and len(items[0].ids) == 1:  # a read, and nearly every patient of a search
            item = items[0]
            yield patient, item.type, item.count or 1, [f"{item.type}/{item.ids[0]}"[:OPEN_CHARS]]
            continue
        kinds = {item.type for item in items}
        kind = kinds.pop() if len(kinds) == 1 else call.resource.type
        references = [f"{item.type}/{ref}"[:OPEN_CHARS] for item in items for ref in item.ids]
        total = sum(item.count or len(item.ids) for item in items)
        parts = list(_parts(references))
        # The first part counts all that the later ones do not list: the sum over the parts is the total.
        yield patient, kind, total - sum(len(part) for part in parts[1:]), parts[0]
        for part in parts[1:]:
            yield patient, kind, len(part), part


def emergency_patient(platform: str, emergency: Emergency) -> str:
    return f"{platform}/Patient/{emergency.patient}"


def _parts(references: list[str]) -> Iterable[list[str]]:
    part: list[str] = []
    size = 0
    for reference in references:
        if size > _REFERENCE_BYTES:
            yield part
            part, size = [], 0
        part.append(reference)
        size += len(reference.encode()) + 3
    yield part


def _asked_patient(call: Call) -> str:
    """The patient a call named without touching data; only when policy has seen it, so that keys stay few."""
    if call.emergency is not None:
        return emergency_patient(call.platform, call.emergency)
    if call.resource.type == "Patient" and call.resource.id and call.decision is not None:
        return f"{call.platform}/Patient/{call.resource.id}"
    return ""

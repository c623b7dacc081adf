"""`_elements` and `_summary`: whole top-level members are left out, nothing is rewritten (ST-52)."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.faults import invalid
from wardmesh_fhir_store.jsontext import members_of

SUMMARIES = frozenset({"true", "false", "text", "data", "count"})
ALWAYS = frozenset({"resourceType", "id", "meta"})
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


class View(msgspec.Struct, frozen=True):
    """What part of a resource is wanted."""

    elements: frozenset[str] = frozenset()
    summary: str = ""


def view_of(elements: str, summary: str) -> View:
    if summary and summary not in SUMMARIES:
        raise invalid("_summary takes true, false, text, data or count.")
    # `Patient.name` means `name`; the prefix is the R4 form for several types
    names = {name.strip().rpartition(".")[2] for name in elements.split(",") if name.strip()}
    return View(frozenset(names), "" if summary == "false" else summary)


class Slicer:
    """Knows which elements are mandatory and which belong to the summary."""

    def __init__(self, definitions: Definitions) -> None:
        self._types = definitions.types

    def slice(self, kind: str, body: bytes, view: View) -> bytes:
        if not view.elements and view.summary not in ("true", "text", "data"):
            return body
        members = members_of(body)
        kept = {name: value for name, value in members.items() if self._wanted(kind, name.lstrip("_"), view)}
        meta = members_of(members["meta"])
        tags = msgspec.json.decode(meta["tag"], type=list[Raw]) if "tag" in meta else []
        tagged = {**meta, "tag": [*tags, SUBSETTED]}
        return msgspec.json.encode({**kept, "meta": tagged})

    def _wanted(self, kind: str, name: str, view: View) -> bool:
        if name in ALWAYS:
            return True
        if view.summary == "data":
            return name != "text"
        word = self._word(kind, name)
        if word.startswith("1") or name in view.elements or (self._stem(kind, name) in view.elements):
            return True
        if view.summary == "text":
            return name == "text"
        return view.summary == "true" and word.split(" ")[0].endswith("S")

    def _stem(self, kind: str, name: str) -> str:
        """`valueQuantity` belongs to `value`."""
        for element in self._types[kind]:
            if element.endswith("[x]") and name.startswith(element[:-3]):
                return element[:-3]
        return name

    def _word(self, kind: str, name: str) -> str:
        elements = self._types[kind]
        return elements.get(name) or elements.get(self._stem(kind, name) + "[x]", "")

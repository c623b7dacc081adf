"""Reads NDJSON in portions and judges every line: what can be stored, and an outcome for what cannot (ST-69)."""

from __future__ import annotations

import uuid
from typing import BinaryIO

import msgspec
from msgspec import Struct

from wardmesh_fhir_store.composites import Rows
from wardmesh_fhir_store.faults import Fault, Issue, invalid
from wardmesh_fhir_store.jsontext import Members, decode_object, members_of
from wardmesh_fhir_store.store import Store

PORTION_LINES = 500
PORTION_BYTES = 4 * 1024 * 1024
SOURCE_EXTENSION = "urn:wardmesh:fhir:import-source"


class Item(Struct, frozen=True):
    """A resource that can be stored; one without an id gets one."""

    line: int
    kind: str
    id: str
    method: str
    members: Members
    rows: Rows


class Refused(Struct, frozen=True):
    """A line that cannot be stored, and why."""

    line: int
    outcome: bytes


class Portion(Struct, frozen=True):
    """What was read, up to which byte and line, and what is to be stored of it."""

    items: list[Item]
    refused: list[Refused]
    position: int
    line: int


class _Source(Struct, rename="camel"):
    url: str
    value_uri: str


class _Outcome(Struct, rename="camel"):
    resource_type: str
    extension: tuple[_Source, ...]
    issue: tuple[Issue, ...]


def refusal(name: str, line: int, fault: Fault) -> Refused:
    """The OperationOutcome says which line of which file it is about."""
    source = _Source(SOURCE_EXTENSION, f"{name}#{line}")
    return Refused(line, msgspec.json.encode(_Outcome("OperationOutcome", (source,), fault.issues)))


def judged(store: Store, line: int, body: bytes) -> Item:
    """Raises Fault."""
    tree = decode_object(body)
    kind = tree.get("resourceType")
    if not isinstance(kind, str) or kind not in store.definitions.resource_types:
        raise invalid("The line does not hold a resource.")
    rows = store.judge(kind, tree)
    identity = tree.get("id")
    method = "PUT" if identity else "POST"
    return Item(line, kind, str(identity or uuid.uuid4()), method, members_of(body), rows)


class Portions:
    """Begins at a byte and a line; `longest` is what one line may hold. Blocks: for threads."""

    def __init__(self, store: Store, name: str, reader: BinaryIO, position: int, line: int, longest: int) -> None:
        self._store = store
        self._name = name
        self._reader = reader
        self._position = position
        self._line = line
        self._longest = longest

    def next(self) -> Portion | None:
        """None at the end."""
        items: list[Item] = []
        refused: list[Refused] = []
        start, first = self._position, self._line
        while self._line - first < PORTION_LINES and self._position - start < PORTION_BYTES:
            body = self._reader.readline(self._longest + 1)
            if not body:
                break
            self._position += len(body)
            self._line += 1
            try:
                if len(body) > self._longest:
                    self._skip()
                    raise Fault(413, "too-costly", "The line is longer than the store accepts.")
                if body.strip():
                    items.append(judged(self._store, self._line, body.strip()))
            except Fault as fault:
                refused.append(refusal(self._name, self._line, fault))
        if self._line == first:
            return None
        return Portion(items, refused, self._position, self._line)

    def _skip(self) -> None:
        """The rest of a line that is too long."""
        while True:
            rest = self._reader.readline(1 << 20)
            self._position += len(rest)
            if not rest or rest.endswith(b"\n"):
                return

"""A datastore at HAPI is a partition: its id the partition's name, its own name in the partition's description."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.healthlake_hapi_server import DEFAULT, NOT_FOUND, VALIDATION, Errand, Refusal, document

LIST = f"{DEFAULT}/$partition-management-list-partitions"
CREATE = f"{DEFAULT}/$partition-management-create-partition"
DELETE = f"{DEFAULT}/$partition-management-delete-partition"
MAX_DESCRIPTION = 200  # the width of HAPI's column
_ID = re.compile(r"[0-9a-f]{32}")


class Note(Struct, frozen=True, omit_defaults=True):
    """What we write into a partition's description."""

    name: str = ""
    created: int = 0  # seconds since 1970


class Partition(Struct, frozen=True):
    """One partition that is a datastore: its name has the form of a datastore's id."""

    number: int
    datastore: str
    note: Note = Note()

    @property
    def created(self) -> datetime | None:
        return datetime.fromtimestamp(self.note.created, UTC) if self.note.created else None


def identified(token: str) -> tuple[str, int]:
    """(datastore, number) that belong to a client token: who repeats a creation asks for the same partition."""
    digest = hashlib.sha256(b"wardmesh datastore\0" + token.encode()).hexdigest()
    return digest[:32], 1 + int(digest[32:40], 16) % (2**31 - 2)


def described(note: Note) -> str:
    """Raises Refusal for what HAPI has no room for."""
    text = msgspec.json.encode(note).decode()
    if not note.name.isprintable() or len(text) > MAX_DESCRIPTION:
        raise Refusal(VALIDATION, "HAPI cannot keep this datastore name: it is too long or holds control characters.")
    return text


async def partitions(errand: Errand) -> dict[str, Partition]:
    """All datastores, by id. Partitions under other names are not ours to show."""
    answer = await errand.get(LIST)
    if answer.status != 200:
        raise BadUpstream("HAPI did not list its partitions: is partitioning on, with the management operations?")
    found = (_partition(part) for part in document(answer).get("parameter") or ())
    return {each.datastore: each for each in found if each is not None}


async def required(errand: Errand, datastore: str) -> Partition:
    found = (await partitions(errand)).get(datastore)
    if found is None:
        raise Refusal(NOT_FOUND, "The datastore does not exist.")
    return found


def parameters(partition: Partition, description: str) -> list[dict[str, Any]]:
    return [
        {"name": "id", "valueInteger": partition.number},
        {"name": "name", "valueCode": partition.datastore},
        {"name": "description", "valueString": description},
    ]


def _partition(parameter: Any) -> Partition | None:
    parts = parameter.get("part") if isinstance(parameter, dict) else None
    said = {part.get("name"): part for part in parts or () if isinstance(part, dict)}
    number, name = said.get("id", {}).get("valueInteger"), said.get("name", {}).get("valueCode")
    if not isinstance(number, int) or not isinstance(name, str) or not _ID.fullmatch(name):
        return None
    return Partition(number, name, _note(said.get("description", {}).get("valueString")))


def _note(text: Any) -> Note:
    """Somebody else may have written the description."""
    try:
        return msgspec.json.decode(text if isinstance(text, str) else "{}", type=Note)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Note()

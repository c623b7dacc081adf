"""One JSON Schema per event type, made from the fields; what is committed under `schemas/` equals what is made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from wardmesh_audit.event_fields import DATA, DATA_REQUIRED, ENVELOPE, ENVELOPE_REQUIRED, Schema, text

SCHEMAS: Final = Path(__file__).with_name("schemas")
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TYPE_PREFIX: Final = "org.wardmesh.audit."

# class -> what it is about, and what its `data` always has besides DATA_REQUIRED
CLASSES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "access": ("A record was read, or an operation without effect was run", ("request", "resource")),
    "write": ("A record was created, changed or deleted; first the intent, then the outcome", ("request", "resource")),
    "search": ("Records were searched; one event for each distinct patient", ("request", "resource")),
    "export": ("Records were exported in bulk", ("request", "resource")),
    "disclosure": ("Data went to somebody outside; the accounting of disclosures reads these", ("disclosure",)),
    "login": ("Somebody signed in or out, or failed to", ()),
    "consent": ("A consent was given, changed or withdrawn", ()),
    "privilege": ("Rights were given or taken", ()),
    "break_glass": ("Emergency access was opened, used or closed", ()),
    "key": ("A key was made, rotated or destroyed", ()),
    "audit_status": ("The audit itself: start, stop, configuration, transport, guard, conflicts", ()),
    "audit_read": ("Somebody read or exported audit data", ()),
    "policy_change": ("The policy bundle changed", ()),
    "alert": ("A detection rule fired, or an alert was reviewed", ()),
    "retention": ("A partition was dropped by policy, or a hold was placed or released", ()),
}
MALFORMED: Final = "malformed"


def schema_of(event_class: str, version: int = 1) -> Schema:
    """The schema of one event type, complete in itself."""
    if event_class == MALFORMED:
        return _oversize(version)
    about, required = CLASSES[event_class]
    properties = {
        **ENVELOPE,
        "type": {"const": f"{TYPE_PREFIX}{event_class}.v{version}"},
        "dataschema": {"const": f"schemas/{event_class}.v{version}.json"},
        "data": {"type": "object", "properties": DATA, "required": sorted({*DATA_REQUIRED, *required})},
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:wardmesh:audit:{event_class}.v{version}",
        "title": event_class,
        "description": about,
        "type": "object",
        "properties": properties,
        "required": sorted((*ENVELOPE_REQUIRED, "data")),
    }


def _oversize(version: int) -> Schema:
    """Bytes that are no event are a leaf as they came; only what was too long is replaced by this description."""
    return {
        "$schema": DIALECT,
        "$id": f"urn:wardmesh:audit:{MALFORMED}.v{version}",
        "title": MALFORMED,
        "description": "Stands for a line above the size limit; every other malformed leaf is the raw bytes that came",
        "type": "object",
        "properties": {
            "malformed": {"const": "oversize"},
            "length": {"type": "integer", "minimum": 0, "description": "bytes that came"},
            "sha256": text("digest of what came", pattern="^[0-9a-f]{64}$"),
        },
        "required": ["length", "malformed", "sha256"],
    }


def all_schemas() -> dict[str, Schema]:
    """File name -> schema."""
    return {f"{name}.v1.json": schema_of(name) for name in (*CLASSES, MALFORMED)}


def as_file(schema: Schema) -> str:
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path = SCHEMAS) -> None:
    for name, schema in all_schemas().items():
        (folder / name).write_text(as_file(schema), encoding="utf-8")


def undocumented(event: object, schema: Schema, path: str = "") -> list[str]:
    """Fields of an event that its schema does not name: schemas are open to additions, producers are not."""
    found: list[str] = []
    if isinstance(event, dict):
        parts = [schema, *schema.get("oneOf", ())]
        known: Schema = {name: each for part in parts for name, each in part.get("properties", {}).items()}
        if not known:
            return found
        for name, value in event.items():
            here = f"{path}.{name}" if path else str(name)
            found += undocumented(value, known[name], here) if name in known else [here]
    return found

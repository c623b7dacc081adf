"""The consumer contract: every subject and header of the ledger's streams, as data and as an AsyncAPI 3 document."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from wardmesh_audit.event_fields import Schema, text
from wardmesh_audit.event_schemas import CLASSES, MALFORMED, all_schemas, write
from wardmesh_audit.streams import AUDIT, AUDIT_CHECKPOINT, AUDIT_IN, StreamSettings, stream_configs

EVENTS: Final = "audit.v1.{log}.{class}.{action}.{purpose}"
CHECKPOINTS: Final = "audit.checkpoint.{log}"
INTAKE: Final = "audit.in.{log}"
CLOUDEVENTS: Final = "application/cloudevents+json"

_LOG: Final[Schema] = {"description": "number of the log; a deployment starts with log 0", "examples": ["0"]}
PARAMETERS: Final[dict[str, Schema]] = {
    "log": _LOG,
    "class": {"description": "class of the event", "enum": sorted((*CLASSES, MALFORMED))},
    "action": {"description": "C R U D E search export ...; `_` when there is none", "examples": ["R"]},
    "purpose": {"description": "HL7 v3 ActReason; `_` when none was stated", "examples": ["TREAT", "BTG", "_"]},
}
HEADERS: Final[dict[str, dict[str, Schema]]] = {
    EVENTS: {
        "Nats-Msg-Id": text("`<log>.<index>`: deduplicate on it"),
        "Nats-Expected-Last-Sequence": text("index: the server accepts nothing out of order; not in atomic batches"),
        "Audit-Log-Index": text("place in the log, dense from 0; stream sequence = index + 1"),
        "Audit-Leaf-Hash": text("base64 of SHA-256(0x00 || payload)"),
        "Content-Type": text(f"`{CLOUDEVENTS}`; `application/octet-stream` for malformed leaves"),
        "traceparent": text("W3C trace context of the request, when there was one"),
    },
    CHECKPOINTS: {
        "Nats-Msg-Id": text("`checkpoint.<log>.<size>`"),
        "Audit-Cosignatures": text("how many witnesses have cosigned; 0 marks a checkpoint without"),
    },
    INTAKE: {
        "Nats-Msg-Id": text(
            "`<producer>.<epoch>.<first seq>-<last seq>`; a retry sends the same bytes with the same id"
        ),
    },
}
# Headers of JetStream's atomic batches: transport between publisher and server, not part of the contract.
TRANSPORT_HEADERS: Final = ("Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit")
_STREAM: Final = {EVENTS: AUDIT, CHECKPOINTS: AUDIT_CHECKPOINT, INTAKE: AUDIT_IN}
_ABOUT: Final = {
    EVENTS: "Every event of the ledger, in order of its index, after it was committed",
    CHECKPOINTS: "Signed notes (C2SP tlog-checkpoint) with the cosignatures of the witnesses: keep them. "
    "`logs` instead of a number carries the signed list of all logs, one a day",
    INTAKE: "Events on their way into the ledger: several leaves of one producer, joined by newlines",
}


def contract() -> Schema:
    """What may only be added to: subjects, headers, streams, event types."""
    channels = {
        address: {"headers": headers, "stream": _STREAM[address], "parameters": _parameters(address)}
        for address, headers in HEADERS.items()
    }
    return {"channels": channels, "schemas": all_schemas()}


def document() -> Schema:
    """The AsyncAPI 3 document, from the audit service's point of view: it sends events and checkpoints."""
    names = {EVENTS: "events", CHECKPOINTS: "checkpoints", INTAKE: "intake"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wardmesh audit stream",
            "version": version("wardmesh-audit"),
            "description": "Who saw what, when, why and by which rule. How to verify: docs/audit-stream.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CLOUDEVENTS,
        "servers": {
            "mesh": {"host": "nats.example:4222", "pathname": "/", "protocol": "nats", "description": "JetStream"}
        },
        "channels": {names[address]: _channel(address) for address in names},
        "operations": {
            "sendEvents": _operation("send", "events", "One message per event, at least once, ordered by index"),
            "sendCheckpoints": _operation("send", "checkpoints", "About every second while there is something new"),
            "receiveIntake": _operation("receive", "intake", "Acknowledged when it is on disk"),
        },
        "components": {"messages": _messages(), "schemas": {_key(n): s for n, s in all_schemas().items()}},
    }


def _parameters(address: str) -> Schema:
    return {name: each for name, each in PARAMETERS.items() if f"{{{name}}}" in address}


def _channel(address: str) -> Schema:
    config = stream_configs(StreamSettings())[_STREAM[address]]
    days = config["max_age"] // 86_400_000_000_000
    kept = f"{days} days" if days else "for ever"
    messages = {EVENTS: [*CLASSES, MALFORMED], CHECKPOINTS: ["checkpoint"], INTAKE: ["leaves"]}[address]
    return {
        "address": address,
        "description": f"{_ABOUT[address]}. JetStream stream {_STREAM[address]}, kept {kept} by default.",
        "parameters": _parameters(address),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operation(action: str, channel: str, summary: str) -> Schema:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages() -> Schema:
    found: Schema = {}
    for name in (*CLASSES, MALFORMED):
        about, _ = CLASSES.get(name, ("Bytes that are no valid event, kept as they came", ()))
        payload: Schema = {"$ref": f"#/components/schemas/{name}.v1"}
        kind = CLOUDEVENTS
        if name == MALFORMED:
            kind, payload = "application/octet-stream", {"description": "the raw bytes, or the schema malformed.v1"}
        found[name] = _message(about, kind, EVENTS, payload)
    found["checkpoint"] = _message("Signed note", "text/plain", CHECKPOINTS, text("origin, size, root, signatures"))
    found["leaves"] = _message("A batch of leaves", "application/x-ndjson", INTAKE, text("one leaf per line"))
    return found


def _message(summary: str, kind: str, address: str, payload: Schema) -> Schema:
    headers = {"type": "object", "properties": HEADERS[address]}
    return {"summary": summary, "contentType": kind, "headers": headers, "payload": payload}


def _key(file_name: str) -> str:
    return file_name.removesuffix(".json")


def as_file(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def docs(folder: str) -> None:
    """Writes the schemas, `asyncapi.json`, its page and the generated part of `audit-stream.md` again."""
    from wardmesh_audit.contract_page import html, refresh  # noqa: PLC0415 - it describes what is made here

    write()
    target = Path(folder)
    (target / "asyncapi.json").write_text(as_file(document()), encoding="utf-8")
    (target / "asyncapi.html").write_text(html(), encoding="utf-8")
    page = target / "audit-stream.md"
    page.write_text(refresh(page.read_text(encoding="utf-8")), encoding="utf-8")


def release(folder: str) -> None:
    """Keeps the contract of this version: from now on it may only be added to."""
    made = json.dumps(contract(), sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
    (Path(folder) / f"{version('wardmesh-audit')}.json").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    {"docs": docs, "release": release}[sys.argv[1]](sys.argv[2])

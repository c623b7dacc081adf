"""One line of a report: what an event says in plain columns, the exact leaf, and the proof that it is in the log."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection
from wardmesh_audit.proof import Proof
from wardmesh_audit.proofs import Proven, prove_all
from wardmesh_audit.query_args import Cursor


class ReportLine(Struct, frozen=True, kw_only=True):
    """`leaf` is the exact text whose hash is in the tree; `proof` holds the hashes up to the checkpoint's root."""

    cursor: str
    id: str
    time: str
    type: str
    action: str = ""
    outcome: str = ""
    reason: str = ""
    actor: str = ""
    actor_type: str = ""
    role: str = ""
    agent: str = ""
    purpose: str = ""
    patient: str = ""
    resource: str = ""
    count: int = 0
    platform: str = ""
    break_glass: bool = False
    finished: bool = True  # False: it was begun, and nothing says how it ended
    rule: str = ""
    request: str = ""
    leaf: str = ""
    leaf_hash: str = ""
    proof: list[str] | None = None  # None: no checkpoint covers this event yet


# What a CSV and a PDF show; the CSV adds the whole tlog-proof of the line.
COLUMNS = (
    "cursor",
    "id",
    "time",
    "type",
    "action",
    "outcome",
    "reason",
    "actor",
    "actor_type",
    "role",
    "agent",
    "purpose",
    "patient",
    "resource",
    "count",
    "platform",
    "break_glass",
    "finished",
    "rule",
    "request",
)

FIELDS = "log_id, seq, event_id, occurred_at, event_type, phase, patient_ref, leaf, leaf_hash"
_leaves = msgspec.json.Decoder(dict[str, Any])


async def proven_lines(conn: Connection, rows: Sequence[asyncpg.Record]) -> tuple[list[ReportLine], dict[int, str]]:
    """The lines, and the checkpoint of each log that their proofs lead to. Inside the caller's transaction."""
    logs = sorted({row["log_id"] for row in rows})
    proven = {
        log: await prove_all(conn, [row["seq"] for row in rows if row["log_id"] == log], log_id=log) for log in logs
    }
    lines = [line_of(row, proven[row["log_id"]]) for row in rows]
    return lines, {log: found.note for log, found in proven.items() if found.note}


def line_of(row: asyncpg.Record, proven: Proven) -> ReportLine:
    leaf: bytes = row["leaf"]
    data: dict[str, Any] = _leaves.decode(leaf)["data"]
    actor, agent = _who(data.get("actor") or {})
    outcome, resource = data.get("outcome") or {}, data.get("resource") or {}
    hashes = proven.hashes.get(row["seq"])
    return ReportLine(
        cursor=str(Cursor(row["log_id"], row["seq"])),
        id=str(row["event_id"]),
        time=row["occurred_at"].isoformat(),
        type=row["event_type"],
        action=_text(data.get("action")),
        outcome=_text(outcome.get("code")),
        reason=_text(outcome.get("reason")),
        actor=_text(actor.get("id")),
        actor_type=_text(actor.get("type")),
        role=_text(actor.get("role")),
        agent=agent,
        purpose=_text(data.get("purpose_of_use")),
        patient=row["patient_ref"].hex() if row["patient_ref"] else "",
        resource=_text(resource.get("type")),
        count=resource.get("count") or 0,
        platform=_text(resource.get("platform")),
        break_glass=bool((data.get("break_glass") or {}).get("used")),
        finished=row["phase"] != "intent",
        rule=_text((data.get("policy") or {}).get("rule")),
        request=_text((data.get("request") or {}).get("id")),
        leaf=leaf.decode(),
        leaf_hash=base64.b64encode(row["leaf_hash"]).decode(),
        proof=None if hashes is None else [base64.b64encode(part).decode() for part in hashes],
    )


def proof_text(line: ReportLine, checkpoints: dict[int, str]) -> str:
    """The line's tlog-proof file; "" while no checkpoint covers it."""
    log, _, index = line.cursor.partition(":")
    if line.proof is None:
        return ""
    hashes = tuple(base64.b64decode(part) for part in line.proof)
    return Proof(index=int(index), leaf=line.leaf.encode(), hashes=hashes, note=checkpoints[int(log)]).text()


def _who(actor: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The person behind the event, and the agent that acted in between."""
    person = actor.get("on_behalf_of")
    return (person, _text(actor.get("id"))) if isinstance(person, dict) else (actor, "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

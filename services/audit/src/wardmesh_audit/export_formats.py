"""Exports for other people's tools: Parquet, OCSF and BALP, of everything the newest checkpoint covers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from wardmesh_audit.balp import audit_event, bundle
from wardmesh_audit.export import covered, create
from wardmesh_audit.ledger import Connection
from wardmesh_audit.ocsf import api_activity, malformed
from wardmesh_audit.parquet import Manifest, MonthFiles, row_of
from wardmesh_audit.projection import MALFORMED

BUNDLE_EVENTS = 500
_PREFETCH = 1000

_events = msgspec.json.Decoder(dict[str, Any])


async def export_parquet(conn: Connection, target: Path, *, log_id: int = 0) -> int:
    """One file per month and `manifest.json`: what `verify-copy` checks, wherever it was moved."""
    files, digest = MonthFiles(target, log_id), hashlib.sha256()
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, note = await covered(conn, log_id)
        async for row in _rows(conn, size, log_id):
            digest.update(row["leaf"] + b"\n")
            files.add(row_of(row["seq"], row["leaf"], row["occurred_at"]))
    parts = files.close()
    made = Manifest(log=log_id, first=0, last=size - 1, sha256=digest.hexdigest(), checkpoint=note, parts=parts)
    text = json.dumps(msgspec.to_builtins(made), indent=1)
    (target / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return size


async def export_ocsf(conn: Connection, target: Path, *, log_id: int = 0) -> int:
    """`events.ocsf.ndjson`, one OCSF event per line."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, _ = await covered(conn, log_id)
        with create(target / "events.ocsf.ndjson") as out:
            async for row in _rows(conn, size, log_id):
                out.write(msgspec.json.encode(_ocsf(row, log_id)) + b"\n")
    return size


async def export_balp(conn: Connection, target: Path, *, log_id: int = 0) -> int:
    """`bundle-00000.json` and so on: batches that any FHIR R4 server takes."""
    waiting: list[dict[str, Any]] = []
    number = 0

    def flush() -> None:
        nonlocal waiting, number
        if waiting:
            with create(target / f"bundle-{number:05d}.json") as out:
                out.write(msgspec.json.encode(bundle(waiting)) + b"\n")
            waiting, number = [], number + 1

    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, _ = await covered(conn, log_id)
        async for row in _rows(conn, size, log_id):
            if row["event_type"] != MALFORMED:
                waiting.append(audit_event(_events.decode(row["leaf"])))
            if len(waiting) == BUNDLE_EVENTS:
                flush()
    flush()
    return size


Export = Callable[..., Awaitable[int]]
FORMATS: Final[Mapping[str, Export]] = {"parquet": export_parquet, "ocsf": export_ocsf, "balp": export_balp}


def _ocsf(row: asyncpg.Record, log_id: int) -> dict[str, Any]:
    if row["event_type"] == MALFORMED:
        when = round(row["occurred_at"].timestamp() * 1000)
        return malformed(row["seq"], when, log=log_id, size=len(row["leaf"]))
    return api_activity(_events.decode(row["leaf"]), log=log_id, index=row["seq"])


async def _rows(conn: Connection, size: int, log_id: int) -> AsyncIterator[asyncpg.Record]:
    query = "select seq, occurred_at, event_type, leaf from event where log_id = $1 and seq < $2 order by seq"
    async for row in conn.cursor(query, log_id, size, prefetch=_PREFETCH):
        yield row

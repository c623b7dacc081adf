"""Exports in the words of other systems, one JSON object per line; sealed fields only for who may open them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from wardmesh_audit.export import covered, create
from wardmesh_audit.fhir_audit import line_of
from wardmesh_audit.ledger import Connection
from wardmesh_audit.projection import MALFORMED
from wardmesh_audit.smedrec_records import SmedrecRecords

Opens = Callable[[bytes], Awaitable[dict[str, Any] | None]]
_PREFETCH = 1000
_events = msgspec.json.Decoder(dict[str, Any])


async def export_smedrec(conn: Connection, target: Path, *, log_id: int = 0, opens: Opens | None = None) -> int:
    """`smedrec.ndjson`: three records per call of a tool of the SMART server (SM-8)."""
    records = SmedrecRecords()
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, _ = await covered(conn, log_id)
        with create(target / "smedrec.ndjson") as out:
            async for event, sealed in _opened(conn, size, log_id, opens):
                for record in records.of(event, sealed):
                    out.write(msgspec.json.encode(record) + b"\n")
    return size


async def export_fhir_audit(conn: Connection, target: Path, *, log_id: int = 0, opens: Opens | None = None) -> int:
    """`fhir.audit.ndjson`: what the logger `fhir.audit` would have written (FG-19)."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, _ = await covered(conn, log_id)
        with create(target / "fhir.audit.ndjson") as out:
            async for event, sealed in _opened(conn, size, log_id, opens):
                line = line_of(event, sealed)
                if line is not None:
                    out.write(msgspec.json.encode(line) + b"\n")
    return size


WORDED: Final[Mapping[str, Callable[..., Awaitable[int]]]] = {
    "smedrec": export_smedrec,
    "fhir-audit": export_fhir_audit,
}


async def _opened(
    conn: Connection, size: int, log_id: int, opens: Opens | None
) -> AsyncIterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    query = "select leaf from event where log_id = $1 and seq < $2 and event_type <> $3 order by seq"
    async for row in conn.cursor(query, log_id, size, MALFORMED, prefetch=_PREFETCH):
        leaf: bytes = row["leaf"]
        yield _events.decode(leaf), await opens(leaf) if opens is not None else None

"""Retention: months whose time is over are exported, checked, and dropped by the one function that may (section 16)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import asyncpg
from msgspec import Struct

from wardmesh_audit.deeds import Deed, Deeds, NotRecorded
from wardmesh_audit.derived import Requester
from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES, leaf_hash
from wardmesh_audit.tiles import WIDTH
from wardmesh_audit.writer import TRANSIENT

_PREFETCH = 1000
_TURN_SECONDS = 3600.0
_MONTHS = r"""
select relid::regclass::text as name from pg_partition_tree('event')
where isleaf and relid::regclass::text ~ ('^event_' || $1::text || '_[0-9]{6}$') order by 1
"""

# Through the parent: this role may read no partition by itself.
_MONTH_ROWS = """
with month as (select to_date($2, 'YYYYMMDD')::timestamp at time zone 'UTC' as start)
select e.seq, e.leaf from event e where e.log_id = $1 and e.event_id >= (select audit_uuid_at(start) from month)
  and e.event_id < (select audit_uuid_at(start + interval '1 month') from month) order by e.seq
"""

_MONTH_BODIES = _MONTH_ROWS.replace(
    "select e.seq, e.leaf from event e",
    "select p.raw, e.leaf from event e join malformed_payload p using (log_id, event_id)",
)

_log = logging.getLogger("wardmesh.audit")


class Month(Struct, frozen=True):
    """One month partition and what keeps it from being dropped; nothing: it may go."""

    partition: str
    obstacles: tuple[str, ...]


class Dropped(Struct, frozen=True):
    partition: str
    min_index: int
    sha256: str


class ExportFailed(Exception):
    """The copy of a month is not what the tiles say: it is not dropped."""


async def months(conn: Connection, log_id: int = 0) -> list[Month]:
    """Every month of a log, oldest first: what `--dry-run` shows."""
    found: list[Month] = []
    for row in await conn.fetch(_MONTHS, str(log_id)):
        obstacles = await conn.fetch("select * from audit_retention_obstacles($1, $2)", log_id, row["name"])
        found.append(Month(row["name"], tuple(each[0] for each in obstacles)))
    return found


async def min_index(conn: Connection, log_id: int = 0) -> int:
    """The lowest index whose bundle is still served; cursors below it are gone for ever (410)."""
    found: int | None = await conn.fetchval("select max(min_index) from retention_run where log_id = $1", log_id)
    return found or 0


async def run(conn: Connection, deeds: Deeds, exports: Path, person: str, log_id: int = 0) -> list[Dropped]:
    """Exports, checks and drops every month that may go. Raises ExportFailed, NotRecorded or database errors."""
    due = [month.partition for month in await months(conn, log_id) if not month.obstacles]
    return [await _drop(conn, deeds, exports, person, log_id, partition) for partition in due]


async def _drop(conn: Connection, deeds: Deeds, exports: Path, person: str, log_id: int, partition: str) -> Dropped:
    target = exports / partition
    digest = await _export(conn, target, log_id, partition)
    await _export_bodies(conn, target, log_id, partition)
    await _check(conn, target, log_id, digest)
    number = uuid.uuid4().hex
    facts = {"export_sha256": digest, "log": log_id, "partition": partition}
    deed = Deed(event_class="retention", action="D", reason="month_drop", person=person, facts=facts)
    event_id = await deeds.intent(deed, number)
    try:
        lowest = await conn.fetchval("select audit_drop_month($1, $2, $3, $4)", log_id, partition, event_id, digest)
    except asyncpg.PostgresError:
        await deeds.outcome(deed, number, "error", "not_dropped")
        raise
    await deeds.outcome(deed, number, "success", "month_dropped", min_index=lowest)
    return Dropped(partition, lowest or 0, digest)


async def _export(conn: Connection, target: Path, log_id: int, partition: str) -> str:
    """`events.ndjson`, `indices` (one per line) and `manifest.json`; the digest of the events."""
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    first = last = None
    with (target / "events.ndjson").open("wb") as events, (target / "indices").open("w") as indices:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            async for row in conn.cursor(_MONTH_ROWS, log_id, f"{partition[-6:]}01", prefetch=_PREFETCH):
                line = row["leaf"] + b"\n"
                digest.update(line)
                events.write(line)
                indices.write(f"{row['seq']}\n")
                first, last, count = row["seq"] if first is None else first, row["seq"], count + 1
            note = await conn.fetchval(
                "select note || coalesce(cosigs, '') from checkpoint where log_id = $1 order by size desc limit 1",
                log_id,
            )
    manifest = {"log": log_id, "partition": partition, "first": first, "last": last, "events": count,
                "sha256": digest.hexdigest(), "checkpoint": note}  # fmt: skip
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return digest.hexdigest()


async def _export_bodies(conn: Connection, target: Path, log_id: int, partition: str) -> None:
    """What was too large for a leaf, a file each: its name is the digest that the leaf holds. Raises ExportFailed."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        async for row in conn.cursor(_MONTH_BODIES, log_id, f"{partition[-6:]}01", prefetch=1):
            digest = hashlib.sha256(row["raw"]).hexdigest()
            if digest.encode() not in row["leaf"]:
                raise ExportFailed("a body is not what its event says")
            await asyncio.to_thread((target / f"{digest}.body").write_bytes, row["raw"])


async def _check(conn: Connection, target: Path, log_id: int, digest: str) -> None:
    """Reads the copy back: every leaf must be what the stored tile says about its index."""
    seen, tile = hashlib.sha256(), (-1, b"")
    with (target / "events.ndjson").open("rb") as events, (target / "indices").open() as indices:
        for line, index in zip(events, indices, strict=True):
            seen.update(line)
            number, place = divmod(int(index), WIDTH)
            if tile[0] != number:
                data = await conn.fetchval(
                    "select data from tile where log_id = $1 and level = 0 and idx = $2", log_id, number
                )
                tile = (number, data or b"")
            if tile[1][place * HASH_BYTES : (place + 1) * HASH_BYTES] != leaf_hash(line.removesuffix(b"\n")):
                raise ExportFailed("the copy of a month differs from the tiles")
    if seen.hexdigest() != digest:
        raise ExportFailed("the copy of a month cannot be read back")


class Retention:
    """The role: looks every hour whether a month may go."""

    def __init__(
        self,
        nc: Requester,
        connect: Callable[[], Awaitable[Connection]],
        exports: Path,
        logs: Sequence[int] = (0,),
        *,
        every_seconds: float = _TURN_SECONDS,
    ) -> None:
        self._nc = nc
        self._connect = connect
        self._exports = exports
        self._logs = logs
        self._every = every_seconds

    async def run(self) -> None:
        """Until cancelled. What cannot be dropped now is tried again; the reason is in the log."""
        while True:
            try:
                conn = await self._connect()
                try:
                    for log_id in self._logs:
                        for gone in await run(conn, Deeds(self._nc, conn, log_id), self._exports, "audit", log_id):
                            _log.info("audit retention: %s is dropped", gone.partition)
                finally:
                    conn.terminate()
            except (*TRANSIENT, ExportFailed, NotRecorded) as error:
                _log.error("audit retention: %s", type(error).__name__)
            await asyncio.sleep(self._every)

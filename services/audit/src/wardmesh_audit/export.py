"""Exports that verify alone: NDJSON with a manifest, and a tlog directory that Go's tools can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from wardmesh_audit import signing
from wardmesh_audit.ledger import Connection
from wardmesh_audit.nodes import NodeReader
from wardmesh_audit.prove import NotThere
from wardmesh_audit.tiles import WIDTH, bundle, entries_path, tiles_of

_PREFETCH = 1000


async def export_ndjson(conn: Connection, target: Path, *, log_id: int = 0) -> int:
    """`events.ndjson` (leaf bytes, one per line), `checkpoint` and `manifest.json`; returns the number of events."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, note = await covered(conn, log_id)
        digest = hashlib.sha256()
        with create(target / "events.ndjson") as out:
            async for leaf in _leaves(conn, size, log_id):
                line = leaf + b"\n"
                digest.update(line)
                out.write(line)
    (target / "checkpoint").write_text(note, encoding="utf-8")
    manifest = {"log": log_id, "first": 0, "last": size - 1, "sha256": digest.hexdigest(), "checkpoint": note}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return size


async def export_tlog(conn: Connection, target: Path, *, log_id: int = 0) -> int:
    """`checkpoint`, `tile/<L>/<N>` and `tile/entries/<N>` of the newest checkpoint; returns the number of events."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        size, note = await covered(conn, log_id)
        reader = NodeReader(conn, log_id=log_id)
        for tile in tiles_of(size):
            with create(target / tile.path) as out:
                out.write(await reader.tile(tile))
        part: list[bytes] = []
        number = 0
        async for leaf in _leaves(conn, size, log_id):
            part.append(leaf)
            if len(part) == WIDTH:
                _write_bundle(target, number, part)
                part, number = [], number + 1
        if part:
            _write_bundle(target, number, part)
    (target / "checkpoint").write_text(note, encoding="utf-8")
    return size


async def covered(conn: Connection, log_id: int) -> tuple[int, str]:
    """Size and note of the newest checkpoint. Raises NotThere."""
    newest = await signing.newest(conn, log_id)
    if newest is None:
        raise NotThere("there is no checkpoint yet")
    return newest[0].size, newest[1]


async def _leaves(conn: Connection, size: int, log_id: int) -> AsyncIterator[bytes]:
    query = "select leaf from event where log_id = $1 and seq < $2 order by seq"
    async for row in conn.cursor(query, log_id, size, prefetch=_PREFETCH):
        yield row["leaf"]


def _write_bundle(target: Path, number: int, leaves: list[bytes]) -> None:
    with create(target / entries_path(number, len(leaves))) as out:
        out.write(bundle(leaves))


def create(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")

"""The files of a log by their C2SP names: checkpoint, hash tiles and entry bundles, made when they are asked for."""

from __future__ import annotations

import gzip
import re
from datetime import date

from wardmesh_audit import signing
from wardmesh_audit.ledger import Connection
from wardmesh_audit.nodes import MissingLeaves, NodeReader
from wardmesh_audit.tiles import HEIGHT, WIDTH, Tile, bundle
from wardmesh_common.errors import Gone, NotFound

_tile = re.compile(r"tile/(0|[1-9]\d?|entries)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?").fullmatch
_HIGHEST_LEVEL = 7


def tile_of(path: str) -> tuple[Tile, bool]:
    """The tile that a path names, and whether its entries are meant. Raises NotFound for anything else."""
    found = _tile(path)
    if not found:
        raise NotFound("There is no such file in a log.")
    number = int("".join(group.lstrip("x") for group in found[2].split("/")))
    width = int(found[3]) if found[3] else WIDTH
    level = 0 if found[1] == "entries" else int(found[1])
    written = found[2].split("/")
    if level > _HIGHEST_LEVEL or width > WIDTH or (found[3] and width == WIDTH) or (written[0] == "x000"):
        raise NotFound("There is no such file in a log.")
    return Tile(level, number, width), found[1] == "entries"


async def checkpoint(conn: Connection, log: int) -> str:
    """The newest note with its cosignatures."""
    newest = await signing.newest(conn, log)
    if newest is None:
        raise NotFound("There is no checkpoint of this log.")
    return newest[1]


async def log_list(conn: Connection, day: date | None) -> str:
    """The signed list of all logs of a day, without one the newest."""
    query = "select note from log_list where $1::date is null or day = $1 order by day desc limit 1"
    note: str | None = await conn.fetchval(query, day)
    if note is None:
        raise NotFound("There is no list of logs of this day." if day else "There is no list of logs yet.")
    return note


async def hash_tile(conn: Connection, log: int, tile: Tile) -> bytes:
    """Only what a checkpoint covers is given out; a partial tile for every size that one was issued for."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await _covered(conn, log, tile)
        try:
            return await NodeReader(conn, log_id=log).tile(tile)
        except MissingLeaves:
            raise Gone("The events below this tile are not kept any more.") from None


async def entry_bundle(conn: Connection, log: int, tile: Tile) -> bytes:
    """The leaves behind a tile of level 0, each with its length in front, compressed."""
    first = tile.number * WIDTH
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await _covered(conn, log, tile)
        rows = await conn.fetch(
            "select seq, leaf from event where log_id = $1 and seq >= $2 and seq < $3 order by seq",
            log,
            first,
            first + tile.width,
        )
    if [row["seq"] for row in rows] != list(range(first, first + tile.width)):
        raise Gone("The events of this bundle are not all kept any more.")
    return gzip.compress(bundle(row["leaf"] for row in rows), 6, mtime=0)


async def _covered(conn: Connection, log: int, tile: Tile) -> None:
    size = await conn.fetchval("select max(size) from checkpoint where log_id = $1", log) or 0
    held = (size >> (HEIGHT * tile.level)) - tile.number * WIDTH
    if tile.width > held:
        raise NotFound("The log is not that large yet.")

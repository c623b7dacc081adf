"""A large ledger in little time: the database makes rows, columns and leaf hashes; tree and tiles as they would be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from audit_cost import leaves
from audit_world import World
from wardmesh_audit import signing
from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES, CompactRange
from wardmesh_audit.tiles import WIDTH, inner_nodes

_PIECE = 200_000
_STEP = 7919  # the accesses to one record lie far from each other
_SPREAD = timedelta(days=25)

# Every value of a leaf that differs from event to event; the rest is that of one which a station made.
_INSERT = """
insert into event (log_id, seq, event_id, occurred_at, tenant, event_type, phase, action, outcome, actor_id,
  patient_ref, resource_type, purpose, request_id, producer, epoch, producer_seq, stream_seq, leaf, leaf_hash)
select 0, n, id, at, 'default', 'access', 'outcome', 'R', 'success', actor, decode(whom, 'hex'), 'Patient', 'TREAT',
  'call-' || n, 'bench-0001', $6::uuid, n, n, leaf, sha256('\\x00'::bytea || leaf)
from (
  select *, convert_to(replace(replace(replace(replace(replace(replace($5::text, '<id>', id::text), '<whom>', whom),
    '<actor>', actor), '<request>', 'call-' || n), '"<seq>"', n::text),
    '<time>', to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')), 'UTF8') as leaf
  from (
    select *, 'issuer|user' || n % 97 as actor, lpad(to_hex(n * $7 % $4), 32, '0') as whom,
      (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '70008'
        || lpad(to_hex(n), 15, '0'))::uuid as id
    from (select n, $3::timestamptz + n * $8::interval as at from generate_series($1::bigint, $2::bigint) as n) as a
  ) as b
) as c
"""


async def fill_by_sql(w: World, count: int, patients: int) -> None:
    """So many events, signed and with their tiles. A verification of this ledger finds nothing."""
    begun, step = datetime.now(UTC) - _SPREAD, _SPREAD / count
    text, epoch = _template()
    conn = await w.connect()
    try:
        for first in range(0, count, _PIECE):
            last = min(first + _PIECE, count) - 1
            await conn.execute(_INSERT, first, last, begun, patients, text, epoch, _STEP, step, timeout=600)
        await _grow(conn)
    finally:
        await conn.close()
    conn = await w.connect("audit_signer")
    try:
        size, root = await signing.tree(conn)
        await signing.sign(conn, w.signer, size, root)
    finally:
        await conn.close()
    await w.query("analyze event")
    await w.query("analyze tile")


def _template() -> tuple[str, str]:
    leaf = msgspec.json.decode(leaves(1, 1)[0])
    data = leaf["data"]
    epoch = data["producer"]["epoch"]
    data["actor"]["id"], data["patient"]["pseudonym"], data["request"]["id"] = "<actor>", "<whom>", "<request>"
    data["producer"]["seq"], data["facts"] = "<seq>", {}
    data["enc"] = {"alg": "A256GCM", "ct": "c" * 200, "kid": "0" * 32, "n": "A" * 16}
    leaf["id"], leaf["time"] = "<id>", "<time>"
    return msgspec.json.encode(leaf, order="sorted").decode(), epoch


async def _grow(conn: Connection) -> None:
    """The tree over all rows, and the full tiles of every level."""
    tree, levels, numbers = CompactRange(), [bytearray()], [0]
    records: list[tuple[int, int, int, bytes, bytes]] = []

    def add(level: int, hashed: bytes) -> None:
        if level == len(levels):
            levels.append(bytearray())
            numbers.append(0)
        levels[level] += hashed
        if len(levels[level]) == WIDTH * HASH_BYTES:
            data = bytes(levels[level])
            inner = inner_nodes(data)
            records.append((0, level, numbers[level], data, inner))
            levels[level].clear()
            numbers[level] += 1
            add(level + 1, inner[-HASH_BYTES:])

    columns = ("log_id", "level", "idx", "data", "inner_nodes")
    size: int = await conn.fetchval("select count(*) from event") or 0
    for first in range(0, size, _PIECE):
        rows = await conn.fetch(
            "select leaf_hash from event where log_id = 0 and seq >= $1 and seq < $2 order by seq",
            first,
            first + _PIECE,
        )
        hashes = [row["leaf_hash"] for row in rows]
        tree.extend(hashes)
        for hashed in hashes:
            add(0, hashed)
        await conn.copy_records_to_table("tile", records=records, columns=columns)
        records.clear()
    await conn.execute(
        "update tree_state set size = $1, root = $2, frontier = $3", tree.size, tree.root(), tree.frontier()
    )

"""The producers' dense counters: taken from the rows of one transaction and kept beside the tree (AU-112, AU-113)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from wardmesh_audit.envelope import Row

# Events the ledger derives from what it holds (`derived.py`) have no producer that counts.
NO_EPOCH = uuid.UUID(int=0)
_TYPE, _PRODUCER, _EPOCH, _SEQ = 3, 14, 15, 16  # places in projection.PROJECTED
_STOP = b'"reason":"stop"'

# One statement with the tree's own update: `seen` counts rows, duplicates are not among them any more.
ADVANCE = """
with counted as (
  insert into producer_seq as s
    (log_id, producer, epoch, last_seq, seen, closed, first_index, last_index, behind_since)
  select $1, p, e, l, n, c, $5, $2 - 1, case when n - 1 <> l then clock_timestamp() end
  from unnest($6::text[], $7::uuid[], $8::bigint[], $9::bigint[], $10::bool[]) as t (p, e, l, n, c)
  on conflict (log_id, producer, epoch) do update set
    last_seq = greatest(s.last_seq, excluded.last_seq), seen = s.seen + excluded.seen,
    closed = s.closed or excluded.closed, last_index = excluded.last_index, last_at = clock_timestamp(),
    behind_since = case when s.seen + excluded.seen - 1 <> greatest(s.last_seq, excluded.last_seq)
      then coalesce(s.behind_since, clock_timestamp()) end
), moved as (
  update tree_state set size = $2, root = $3, frontier = $4 where log_id = $1 returning 1
) select case when $11 then pg_notify($12, '') end from moved
"""


def counted(rows: Sequence[Row]) -> tuple[list[Any], list[Any], list[int], list[int], list[bool]]:
    """Per epoch: producer, epoch, highest number, how many rows, and whether it said that it ends."""
    epochs: dict[tuple[str, uuid.UUID], list[Any]] = {}
    for row in rows:
        values = row.projected
        epoch = values[_EPOCH]
        if epoch is None or values[_PRODUCER] is None or epoch == NO_EPOCH:
            continue
        entry = epochs.get((values[_PRODUCER], epoch))
        if entry is None:
            entry = epochs[(values[_PRODUCER], epoch)] = [-1, 0, False]
        entry[0] = max(entry[0], values[_SEQ])
        entry[1] += 1
        if values[_TYPE] == "audit_status" and _STOP in row.leaf:
            entry[2] = True
    found = sorted(epochs.items(), key=lambda item: item[0][1])
    return (
        [name for (name, _), _ in found],
        [epoch for (_, epoch), _ in found],
        [entry[0] for _, entry in found],
        [entry[1] for _, entry in found],
        [entry[2] for _, entry in found],
    )

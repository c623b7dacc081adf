"""Inclusion proofs of many events at once, all against one checkpoint: what makes every line of a report checkable."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from wardmesh_audit import signing
from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import inclusion_ranges
from wardmesh_audit.nodes import MissingLeaves, NodeReader


class Proven(Struct, frozen=True):
    """The newest checkpoint and the proofs of those events that it covers, by index."""

    note: str
    size: int
    hashes: dict[int, tuple[bytes, ...]]


async def prove_all(conn: Connection, indices: Iterable[int], *, log_id: int = 0) -> Proven:
    """Inside the caller's transaction. What lies after the checkpoint, or has lost its neighbours, has no proof."""
    newest = await signing.newest(conn, log_id)
    if newest is None:
        return Proven("", 0, {})
    size = newest[0].size
    wanted = {index: inclusion_ranges(index, size) for index in indices if index < size}
    reader = NodeReader(conn, log_id=log_id)
    spans = {span for ranges in wanted.values() for span in ranges}
    await reader.preload(spans)
    # Proofs share most of their upper part: every range is hashed once.
    roots: dict[tuple[int, int], bytes] = {}
    lost: set[tuple[int, int]] = set()
    for span in spans:
        try:
            roots[span] = await reader.range_root(*span)
        except MissingLeaves:
            lost.add(span)
    hashes = {
        index: tuple(roots[span] for span in ranges)
        for index, ranges in wanted.items()
        if not lost.intersection(ranges)
    }
    return Proven(newest[1], size, hashes)

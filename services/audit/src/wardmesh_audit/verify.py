"""Recomputes the whole log from its leaves and compares: hashes, columns, order, tree, checkpoints and pins."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import datetime

import asyncpg
from msgspec import Struct

from wardmesh_audit.findings import Finding, Report
from wardmesh_audit.ledger import Connection
from wardmesh_audit.locate import Locator
from wardmesh_audit.merkle import HASH_BYTES, CompactRange, leaf_hash
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier, open_note, parse_checkpoint
from wardmesh_audit.projection import MALFORMED, PROJECTED, BadLeaf, project
from wardmesh_audit.pruned import Pruned

_PREFETCH = 2000
_UNSIGNED_SECONDS = 60.0
_ROWS = f"select seq, {', '.join(PROJECTED)}, recorded_at, leaf, leaf_hash from event where log_id = $1 order by seq"  # noqa: S608


class Pin(Struct, frozen=True):
    """A checkpoint somebody kept outside, and where."""

    checkpoint: Checkpoint
    place: str


class Verification:
    """One run over one log inside one repeatable-read transaction."""

    def __init__(
        self,
        conn: Connection,
        verifiers: Sequence[Verifier],
        *,
        pins: Sequence[Pin] = (),
        since: datetime | None = None,
        locator: Locator | None = None,
        log_id: int = 0,
    ) -> None:
        self._conn = conn
        self._verifiers = list(verifiers)
        self._pins = list(pins)
        self._since = since
        self._locator = locator or Locator(conn, log_id=log_id)
        self._log_id = log_id
        self._tree = CompactRange()
        self._size = 0  # of the committed tree, as the database says
        self._root = b""
        self._whole = True  # False after a gap: roots cannot be computed any more
        self._pruned = Pruned(conn, log_id)
        self._last_recorded: datetime | None = None
        self._bad_roots: list[tuple[int, int]] = []  # (last good size, first bad size)
        self.report = Report(log=verifiers[0].name if verifiers else "")

    async def run(self) -> Report:
        async with self._conn.transaction(isolation="repeatable_read", readonly=True):
            expected = await self._checkpoints()
            if self.report.obstacle:
                return self.report
            state = await self._conn.fetchrow("select size, root from tree_state where log_id = $1", self._log_id)
            if state is None:
                self._find("root", 0, "the tree state is missing")
                return self.report
            self._size, self._root = state["size"], state["root"]
            await self._pruned.load()
            await self._rows(expected)
            self._end()
            await self._localise()
        return self.report

    # --- checkpoints ---

    async def _checkpoints(self) -> dict[int, list[Pin]]:
        """What must hold at which size: the notes in the database, whose signatures are checked here, and the pins."""
        expected: dict[int, list[Pin]] = {}
        notes = await self._conn.fetch(
            "select size, root, note from checkpoint where log_id = $1 order by size", self._log_id
        )
        for row in notes:
            checkpoint = self._open(row)
            if checkpoint is not None:
                expected.setdefault(checkpoint.size, []).append(Pin(checkpoint, "database"))
        for pin in self._pins:
            expected.setdefault(pin.checkpoint.size, []).append(pin)
        self.report.checkpoints = len(notes)
        if not expected and not self.report.findings and not self.report.obstacle:
            self.report.obstacle = "there is no checkpoint to verify against"
        return expected

    def _open(self, row: asyncpg.Record) -> Checkpoint | None:
        try:
            checkpoint = parse_checkpoint(open_note(row["note"], self._verifiers))
        except UnknownKey:
            self.report.obstacle = "a checkpoint is signed by no key we know"
            return None
        except (BadSignature, BadNote):
            self._find("checkpoint_signature", row["size"], "the note of this checkpoint is not what was signed")
            return None
        if checkpoint.size != row["size"] or checkpoint.root != row["root"] or checkpoint.origin != self.report.log:
            self._find("checkpoint_signature", row["size"], "the columns of this checkpoint differ from its note")
            return None
        return checkpoint

    # --- rows ---

    async def _rows(self, expected: dict[int, list[Pin]]) -> None:
        self._compare_root(expected.pop(0, []))
        async for row in self._conn.cursor(_ROWS, self._log_id, prefetch=_PREFETCH):
            seq: int = row["seq"]
            if seq < self._tree.size:
                self._find("duplicate_index", seq, "a second row has this index", row["event_id"])
                continue
            if seq >= self._size:
                self._find("foreign_insert", seq, "this row lies beyond the end of the tree", row["event_id"])
                continue
            if seq > self._tree.size:
                await self._dropped(seq, expected)
            if seq > self._tree.size:
                await self._gap(seq)
            self._row(row)
            self._compare_root(expected.pop(self._tree.size, []))
        await self._dropped(self._size, expected)
        if self._pruned.rows != self._pruned.expected:
            self._find(
                "missing_index",
                0,
                f"{self._pruned.expected} events were dropped by retention, "
                f"{self._pruned.rows} are missing below the pruning limit",
            )
        # What a gap skipped cannot be compared; what lies beyond the end was covered once and is gone.
        for size in sorted(size for size in expected if size > self._tree.size):
            for pin in expected[size]:
                self._find("rollback", size, f"a checkpoint of the {pin.place} covers more events than there are")

    async def _dropped(self, end: int, expected: dict[int, list[Pin]]) -> None:
        """Goes on over what retention dropped: its hashes are in the level-0 tiles."""
        while self._whole and self._tree.size < end:
            hashed = await self._pruned.hash_of(self._tree.size)
            if hashed is None:
                return
            self._tree.append(hashed)
            self._compare_root(expected.pop(self._tree.size, []))

    async def _gap(self, seq: int) -> None:
        first = self._tree.size
        gone = await self._locator.partition_missing()
        why = ": their month partition is gone" if gone else ""
        self._find("missing_index", first, f"{seq - first} events are missing before index {seq}{why}", incomplete=gone)
        self._whole = False
        self._tree = CompactRange(seq, b"\x00" * HASH_BYTES * seq.bit_count())  # counts on, its root means nothing

    def _row(self, row: asyncpg.Record) -> None:
        self.report.rows += 1
        self._last_recorded = row["recorded_at"]
        if self._since is not None and row["recorded_at"] < self._since:
            self._tree.append(row["leaf_hash"])
            return
        seq, leaf = row["seq"], row["leaf"]
        hashed = leaf_hash(leaf)
        self._tree.append(hashed)
        if hashed != row["leaf_hash"]:
            self._find("leaf_hash", seq, "the leaf is not what its hash says", row["event_id"])
            return
        if row["event_type"] != MALFORMED:
            self._compare_columns(seq, leaf, row)

    def _compare_columns(self, seq: int, leaf: bytes, row: asyncpg.Record) -> None:
        try:
            derived = project(leaf)
        except BadLeaf:
            self._find("projection", seq, "the leaf is no valid event", row["event_id"])
            return
        if derived != tuple(row)[1:18]:
            names = [name for name, value in zip(PROJECTED, derived, strict=True) if row[name] != value]
            self._find("projection", seq, f"column {', '.join(names)} differs from the leaf", row["event_id"])

    def _compare_root(self, pins: list[Pin]) -> None:
        if not pins or not self._whole:
            return
        root, size = self._tree.root(), self._tree.size
        good = True
        for pin in pins:
            if pin.checkpoint.root != root:
                good = False
                if pin.place != "database":
                    self._find("checkpoint_fork", size, f"the {pin.place} holds another root for this size")
        if good:
            self.report.last_good_checkpoint = size
        elif not self._bad_roots:
            self._bad_roots.append((self.report.last_good_checkpoint or 0, size))

    # --- the end ---

    def _end(self) -> None:
        self.report.size, self.report.root = self._tree.size, self._tree.root().hex() if self._whole else ""
        if self._size > self._tree.size:
            missing = self._size - self._tree.size
            self._find("tail_truncated", self._tree.size, f"{missing} events at the end are missing")
        elif self._whole and self._root != self._tree.root() and not self._bad_roots:
            self._bad_roots.append((self.report.last_good_checkpoint or 0, self._tree.size))
        self.report.uncovered = self._tree.size - (self.report.last_good_checkpoint or 0)
        last = self._last_recorded.timestamp() if self._last_recorded else time.time()
        if self.report.uncovered and not self.report.tampered and time.time() - last > _UNSIGNED_SECONDS:
            self._find("unknown_tail", self._tree.size, "events at the end are not signed", incomplete=True)

    async def _localise(self) -> None:
        """A root that differs says only that something before it changed; copies of the leaf hashes say what."""
        known = {finding.index for finding in self.report.findings if finding.kind == "leaf_hash"}
        for low, high in self._bad_roots:
            changed = [found for found in await self._locator.changed(low, high) if found[0] not in known]
            for index, event_id in changed:
                self._find("root", index, "this row is not the one that was signed", event_id)
            if not changed and not any(low <= index < high for index in known):
                self._find("root", low, f"something between index {low} and {high - 1} is not what was signed")

    def _find(
        self, kind: str, index: int, detail: str, event_id: uuid.UUID | None = None, *, incomplete: bool = False
    ) -> None:
        self.report.add(
            Finding(
                kind=kind,
                index=index,
                event_id=str(event_id) if event_id else "",
                detail=detail,
                incomplete=incomplete,
            )
        )

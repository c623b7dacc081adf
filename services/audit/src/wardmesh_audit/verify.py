"""Recomputes the whole log from its leaves and compares: hashes, columns, order, tree, checkpoints and pins."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from wardmesh_audit.copy_out import CopiedRow, CopyOut, Run
from wardmesh_audit.findings import Finding, Report
from wardmesh_audit.ledger import Connection
from wardmesh_audit.locate import Locator
from wardmesh_audit.merkle import HASH_BYTES, CompactRange, leaf_hash
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier
from wardmesh_audit.projection import MALFORMED, BadLeaf
from wardmesh_audit.pruned import Pruned
from wardmesh_audit.row_image import Field, differing, microseconds
from wardmesh_audit.signed_notes import ALL, SignedNotes

PIECE = 16384
_UNSIGNED_SECONDS = 60.0
_EPOCH_SECONDS = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_MALFORMED = MALFORMED.encode()
# The order is that of an index: sorting a piece would write it to disk first.
_SETTINGS = ("enable_sort", "enable_seqscan", "enable_bitmapscan", "jit")


class Pin(Struct, frozen=True):
    """A checkpoint somebody kept outside, and where."""

    checkpoint: Checkpoint
    place: str


class Verification:
    """One run over one log: at once with `run`, or with `slice` until that says it is done."""

    def __init__(
        self,
        conn: Connection,
        verifiers: Sequence[Verifier],
        *,
        pins: Sequence[Pin] = (),
        since: datetime | None = None,
        locator: Locator | None = None,
        log_id: int = 0,
        piece: int = PIECE,
    ) -> None:
        self._conn = conn
        self._pins = list(pins)
        self._since = microseconds(since) if since else -ALL
        self._locator = locator or Locator(conn, log_id=log_id)
        self._log_id = log_id
        self._tree = CompactRange()
        self._size = 0  # of the committed tree, as the database says
        self._root = b""
        self._whole = True  # False after a gap: roots cannot be computed any more
        self._pruned = Pruned(conn, log_id)
        self._month_gone = False
        self._last_recorded = 0
        self._piece = piece
        self._low = 0  # where the next piece begins
        self._forked = False  # a root was not the signed one: those after it cannot be either
        self._expected: dict[int, list[Pin]] = {}  # what must hold at which size, of the piece that is read
        self._bad_roots: list[tuple[int, int]] = []  # (last good size, first bad size)
        self.report = Report(log=verifiers[0].name if verifiers else "")
        self._signed = SignedNotes(conn, verifiers, log_id)

    async def run(self) -> Report:
        """The whole log inside one repeatable-read transaction."""
        await self._read(None)
        return self.report

    async def slice(self, pieces: int = 1) -> bool:
        """Goes on where the last slice ended, in a transaction of its own; whether the end is reached."""
        return await self._read(pieces)

    def moved_to(self, conn: Connection) -> Verification:
        """This run as it stands, to go on with on another connection; what comes of it does not change this one."""
        return copy.deepcopy(self, {id(self._conn): conn})

    async def _read(self, pieces: int | None) -> bool:
        async with self._conn.transaction(isolation="repeatable_read", readonly=True):
            for setting in _SETTINGS:
                await self._conn.execute(f"set local {setting} = off")
            state = await self._conn.fetchrow("select size, root from tree_state where log_id = $1", self._log_id)
            if state is None:
                self._find("root", 0, "the tree state is missing")
                return True
            if not self._pins and not await self._signed.any():
                self.report.obstacle = "there is no checkpoint to verify against"
                return True
            self._size, self._root = state["size"], state["root"]
            self._month_gone = await self._locator.partition_missing()
            await self._pruned.load()
            done = await self._log(pieces)
            if self.report.obstacle:
                return True
            if done:
                self._end()
            await self._localise()
            return done

    async def _log(self, pieces: int | None) -> bool:
        """So many pieces, or all; between them is what a piece will need to know, so that memory stays constant."""
        rows = CopyOut(self._conn, self._log_id, self._run, self._row, since=self._since)
        while pieces is None or pieces > 0:
            low = self._low
            high = min(low + self._piece, self._size)
            last = high >= self._size
            await self._expect(-1 if low == 0 else low, ALL if last else high)
            if self.report.obstacle:
                return True
            await self._pruned.tiles(low, high)
            self._compare_root()
            await rows.rows(-ALL if low == 0 else low, ALL if last else high, self._tree.size, self._size)
            self._dropped(high)
            self._expected = {size: pins for size, pins in self._expected.items() if size > self._tree.size}
            self._low = high
            if last:
                return True
            pieces = None if pieces is None else pieces - 1
        return False

    async def _expect(self, above: int, up_to: int) -> None:
        """What must hold at sizes in (above, up_to]: notes of the database, whose signatures are checked, and pins."""
        async for row in self._signed.between(above, up_to):
            self.report.checkpoints += 1
            try:
                checkpoint = self._signed.opened(row)
            except UnknownKey:
                self.report.obstacle = "a checkpoint is signed by no key we know"
                return
            except (BadSignature, BadNote) as error:
                self._find("checkpoint_signature", row["size"], str(error))
                continue
            self._expected.setdefault(checkpoint.size, []).append(Pin(checkpoint, "database"))
        for pin in self._pins:
            if above < pin.checkpoint.size <= up_to:
                self._expected.setdefault(pin.checkpoint.size, []).append(pin)

    # --- rows ---

    def _run(self, run: Run) -> int:
        """Rows that follow the last one and agree with themselves; stops where a root has to be compared."""
        done, count, first = 0, len(run.hashes), self._tree.size
        for size in sorted(size for size in self._expected if first < size <= first + count):
            self._tree.extend(run.hashes[done : size - first])
            done = size - first
            self._compare_root()
        self._tree.extend(run.hashes[done:] if done else run.hashes)
        self.report.rows += count
        self._last_recorded = run.recorded
        return self._tree.size

    def _row(self, row: CopiedRow) -> int:
        if (row.seq == self._tree.size and row.seq < self._size) or self._placed(row):
            self.report.rows += 1
            self._last_recorded = row.recorded
            hashed = row.leaf_hash
            if row.recorded >= self._since:
                hashed = leaf_hash(row.leaf)
                self._suspect(row, hashed)
            self._tree.append(hashed)
            if self._tree.size in self._expected:
                self._compare_root()
        return self._tree.size

    def _placed(self, row: CopiedRow) -> bool:
        """A row whose index is not the next one: whether it counts nevertheless, behind a gap."""
        if row.seq < self._tree.size:
            self._find("duplicate_index", row.seq, "a second row has this index", _id_of(row))
            return False
        if row.seq >= self._size:
            self._find("foreign_insert", row.seq, "this row lies beyond the end of the tree", _id_of(row))
            return False
        self._dropped(row.seq)
        if row.seq > self._tree.size:
            self._gap(row.seq)
        return True

    def _suspect(self, row: CopiedRow, hashed: bytes) -> None:
        if hashed != row.leaf_hash:
            self._find("leaf_hash", row.seq, "the leaf is not what its hash says", _id_of(row))
        elif row.stored["event_type"] != _MALFORMED:
            self._columns(row, row.stored)

    def _columns(self, row: CopiedRow, stored: Mapping[str, Field]) -> None:
        try:
            names = differing(row.leaf, stored)
        except BadLeaf:
            self._find("projection", row.seq, "the leaf is no valid event", _id_of(row))
            return
        if names:
            self._find("projection", row.seq, f"column {', '.join(names)} differs from the leaf", _id_of(row))

    def _dropped(self, end: int) -> None:
        """Goes on over what retention dropped: its hashes are in the level-0 tiles."""
        while self._whole and self._tree.size < end:
            hashed = self._pruned.hash_of(self._tree.size)
            if hashed is None:
                return
            self._tree.append(hashed)
            self._compare_root()

    def _gap(self, seq: int) -> None:
        first, gone = self._tree.size, self._month_gone
        why = ": their month partition is gone" if gone else ""
        self._find("missing_index", first, f"{seq - first} events are missing before index {seq}{why}", incomplete=gone)
        self._whole = False
        self._tree = CompactRange(seq, b"\x00" * HASH_BYTES * seq.bit_count())  # counts on, its root means nothing

    def _compare_root(self) -> None:
        pins = self._expected.pop(self._tree.size, [])
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
        elif not self._forked:
            self._bad_root(size)

    def _bad_root(self, size: int) -> None:
        self._forked = True
        self._bad_roots.append((self.report.last_good_checkpoint or 0, size))

    # --- the end ---

    def _end(self) -> None:
        # What a gap skipped cannot be compared; what lies beyond the end was covered once and is gone.
        for size in sorted(self._expected):
            for pin in self._expected[size]:
                self._find("rollback", size, f"a checkpoint of the {pin.place} covers more events than there are")
        if self._pruned.rows != self._pruned.expected:
            self._find(
                "missing_index",
                0,
                f"{self._pruned.expected} events were dropped by retention, "
                f"{self._pruned.rows} are missing below the pruning limit",
            )
        self.report.size, self.report.root = self._tree.size, self._tree.root().hex() if self._whole else ""
        if self._size > self._tree.size:
            missing = self._size - self._tree.size
            self._find("tail_truncated", self._tree.size, f"{missing} events at the end are missing")
        elif self._whole and self._root != self._tree.root() and not self._forked:
            self._bad_root(self._tree.size)
        self.report.uncovered = self._tree.size - (self.report.last_good_checkpoint or 0)
        last = self._last_recorded / 1e6 + _EPOCH_SECONDS if self.report.rows else time.time()
        if self.report.uncovered and not self.report.tampered and time.time() - last > _UNSIGNED_SECONDS:
            self._find("unknown_tail", self._tree.size, "events at the end are not signed", incomplete=True)

    async def _localise(self) -> None:
        """A root that differs says only that something before it changed; copies of the leaf hashes say what."""
        known = {finding.index for finding in self.report.findings if finding.kind == "leaf_hash"}
        for low, high in self._bad_roots:
            changed = False
            async for index, event_id in self._locator.changed(low, high):
                if index not in known:
                    changed = True
                    self._find("root", index, "this row is not the one that was signed", str(event_id))
            if not changed and not any(low <= index < high for index in known):
                self._find("root", low, f"something between index {low} and {high - 1} is not what was signed")
        self._bad_roots.clear()

    def _find(self, kind: str, index: int, detail: str, event_id: str = "", *, incomplete: bool = False) -> None:
        self.report.add(Finding(kind=kind, index=index, event_id=event_id, detail=detail, incomplete=incomplete))


def _id_of(row: CopiedRow) -> str:
    return (row.stored["event_id"] or b"").decode()

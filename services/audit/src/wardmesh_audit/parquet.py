"""Parquet copies of a log, and the check that a copy alone, moved anywhere, is still what was signed."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from wardmesh_audit.merkle import CompactRange, leaf_hash
from wardmesh_audit.note import Verifier, open_note, parse_checkpoint
from wardmesh_audit.projection import MALFORMED, PROJECTED, BadLeaf, project

GROUP_ROWS = 50_000
_UTC = pa.timestamp("us", tz="UTC")
_KINDS: dict[str, pa.DataType] = {
    "event_id": pa.string(),
    "occurred_at": _UTC,
    "patient_ref": pa.string(),
    "break_glass": pa.bool_(),
    "epoch": pa.string(),
    "producer_seq": pa.int64(),
}
SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        *(pa.field(name, _KINDS.get(name, pa.string())) for name in PROJECTED),
        pa.field("leaf", pa.binary(), nullable=False),
        pa.field("leaf_hash", pa.binary(32), nullable=False),
    ]
)


class BadCopy(Exception):
    """The copy is not what was signed; says what and where."""


class Part(Struct, frozen=True, kw_only=True):
    """One file: the rows of one month."""

    file: str
    rows: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """`first` and `last` index, and the checkpoint that covers them all."""

    log: int
    first: int
    last: int
    sha256: str  # over the leaves, each followed by a newline
    checkpoint: str
    parts: tuple[Part, ...] = ()


def row_of(index: int, leaf: bytes, occurred_at: Any) -> dict[str, Any]:
    """Columns are derived from the leaf again; a malformed one has only its time."""
    try:
        values = dict(zip(PROJECTED, project(leaf), strict=True))
    except BadLeaf:
        values = dict.fromkeys(PROJECTED) | {"occurred_at": occurred_at, "event_type": MALFORMED, "break_glass": False}
    found = {name: _plain(value) for name, value in values.items()}
    return {"index": index, **found, "leaf": leaf, "leaf_hash": leaf_hash(leaf)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if hasattr(value, "hex") and hasattr(value, "int") else value


class MonthFiles:
    """Writes rows into one file per month, in the order in which they come; zstd, sorted by index."""

    def __init__(self, folder: Path, log: int) -> None:
        self._folder = folder
        self._log = log
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._rows: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        name = f"log{self._log}-{row['occurred_at']:%Y-%m}.parquet"
        rows = self._waiting.setdefault(name, [])
        rows.append(row)
        if len(rows) >= GROUP_ROWS:
            self._flush(name)

    def close(self) -> tuple[Part, ...]:
        for name in list(self._waiting):
            self._flush(name)
        for writer in self._writers.values():
            writer.close()
        return tuple(
            Part(file=name, rows=self._rows[name], sha256=_digest(self._folder / name)) for name in sorted(self._rows)
        )

    def _flush(self, name: str) -> None:
        rows = self._waiting.pop(name, [])
        if not rows:
            return
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self._folder / name, SCHEMA, compression="zstd")
        self._writers[name].write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
        self._rows[name] = self._rows.get(name, 0) + len(rows)


def read_manifest(folder: Path) -> Manifest:
    """Raises BadCopy."""
    try:
        return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        raise BadCopy("there is no readable manifest.json") from None


def leaves_of(folder: Path, manifest: Manifest) -> Iterator[bytes]:
    """The leaves of a Parquet or NDJSON copy in order of their index. Raises BadCopy."""
    if not manifest.parts:
        yield from _lines(folder / "events.ndjson")
        return
    files = [_rows(_checked(folder, part)) for part in manifest.parts]
    for expected, row in enumerate(heapq.merge(*files, key=itemgetter("index")), manifest.first):
        if row["index"] != expected:
            raise BadCopy(f"index {expected} is missing")
        if leaf_hash(row["leaf"]) != row["leaf_hash"]:
            raise BadCopy(f"the leaf at index {expected} is not what its hash says")
        yield row["leaf"]


def verify_copy(folder: Path, verifiers: Iterable[Verifier]) -> Manifest:
    """Recomputes everything from the files alone. Raises BadCopy, UnknownKey, BadSignature or BadNote."""
    manifest = read_manifest(folder)
    checkpoint = parse_checkpoint(open_note(manifest.checkpoint, verifiers))
    tree, digest = CompactRange(), hashlib.sha256()
    for leaf in leaves_of(folder, manifest):
        tree.append(leaf_hash(leaf))
        digest.update(leaf + b"\n")
    if (manifest.first, manifest.last + 1) != (0, tree.size) or tree.size != checkpoint.size:
        raise BadCopy(f"the copy holds {tree.size} events, its checkpoint covers {checkpoint.size}")
    if tree.root() != checkpoint.root:
        raise BadCopy("the events are not what was signed")
    if digest.hexdigest() != manifest.sha256:
        raise BadCopy("the digest of the manifest is another one")
    return manifest


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Row by row, in order of the index: a file is never in memory as a whole."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2048, columns=["index", "leaf", "leaf_hash"]):
            yield from batch.to_pylist()


def _checked(folder: Path, part: Part) -> Path:
    path = folder / part.file
    if Path(part.file).name != part.file or not path.is_file():
        raise BadCopy("a file of the copy is missing")
    if _digest(path) != part.sha256:
        raise BadCopy(f"the file {part.file} has another digest")
    return path


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            for line in lines:
                yield line.removesuffix(b"\n")
    except OSError:
        raise BadCopy("a file of the copy is missing") from None


def _digest(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()

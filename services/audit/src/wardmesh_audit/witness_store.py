"""The witness' own memory: one SQLite file, synced at every commit, read and advanced in one transaction."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

_TABLES = """
create table if not exists latest (
  origin text primary key, size integer not null, root blob not null, note text not null, cosigned_at integer not null
) strict;
create table if not exists evidence (
  id integer primary key, kind text not null, origin text not null, recorded_size integer not null,
  submission text not null unique, seen_at integer not null
) strict;
"""
UNSIGNED_KEPT = 1000  # refusals that anybody can cause; signed ones are kept for ever


class Latest(Struct, frozen=True):
    """The newest checkpoint cosigned for one log."""

    size: int
    root: bytes
    note: str = ""  # with our cosignature
    cosigned_at: int = 0


class Evidence(Struct, frozen=True):
    """A submission that was refused, as it came."""

    kind: str
    origin: str
    recorded_size: int
    submission: str
    seen_at: int


class WitnessStore:
    """Any number of threads and processes may use one file; `turn` lets them in one after the other."""

    def __init__(self, path: Path) -> None:
        self._conn = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        self._conn.execute("pragma journal_mode = wal")
        self._conn.execute("pragma synchronous = full")  # a commit is on disk before it is answered
        self._conn.executescript(_TABLES)

    @contextmanager
    def turn(self) -> Generator[None]:
        """One atomic check-and-persist: nobody else reads or writes until the block has ended and is on disk."""
        with self._lock:
            self._conn.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._conn.execute("rollback")
                raise
            self._conn.execute("commit")

    def latest(self, origin: str) -> Latest | None:
        query = "select size, root, note, cosigned_at from latest where origin = ?"
        row = self._conn.execute(query, (origin,)).fetchone()
        return Latest(*row) if row else None

    def advance(self, origin: str, latest: Latest) -> None:
        """Inside `turn` only."""
        self._conn.execute(
            "insert into latest values (?, ?, ?, ?, ?) on conflict (origin) do update"
            " set size = excluded.size, root = excluded.root, note = excluded.note, cosigned_at = excluded.cosigned_at",
            (origin, latest.size, latest.root, latest.note, latest.cosigned_at),
        )

    def keep(self, evidence: Evidence, *, signed: bool) -> None:
        """Stores a refusal once. Inside `turn` only."""
        self._conn.execute(
            "insert or ignore into evidence (kind, origin, recorded_size, submission, seen_at) values (?, ?, ?, ?, ?)",
            (evidence.kind, evidence.origin, evidence.recorded_size, evidence.submission, evidence.seen_at),
        )
        if not signed:
            self._conn.execute(
                "delete from evidence where kind = ?1 and id <="
                " (select id from evidence where kind = ?1 order by id desc limit 1 offset ?2)",
                (evidence.kind, UNSIGNED_KEPT),
            )

    def evidence(self) -> list[Evidence]:
        query = "select kind, origin, recorded_size, submission, seen_at from evidence order by id"
        with self._lock:
            return [Evidence(*row) for row in self._conn.execute(query)]

    def close(self) -> None:
        self._conn.close()

"""Checks the daily lists of logs: signatures, chain, copies kept elsewhere, and that every listed log is there."""

from __future__ import annotations

from collections.abc import Sequence

from wardmesh_audit.findings import Finding, Report
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_list import LogList, following, log_number, open_list
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier


class ListCheck:
    """One look; findings name the log as their index."""

    def __init__(self, conn: Connection, verifiers: Sequence[Verifier]) -> None:
        self._conn = conn
        self._verifiers = verifiers
        self.report = Report(log=verifiers[0].name if verifiers else "")
        self.newest: LogList | None = None
        self.newest_note = ""

    async def run(self, kept: Sequence[str] = ()) -> Report:
        """`kept` are lists that somebody has outside the database: a file of an auditor, the copy in the stream."""
        async with self._conn.transaction(isolation="repeatable_read", readonly=True):
            rows = await self._conn.fetch("select day, note from log_list order by day")
            lists: list[LogList] = []
            for row in rows:
                made = self._opened(row["note"], "database")
                if made is not None and made.day != row["day"]:
                    self._find("list_signature", 0, f"the list of {row['day']} is that of another day")
                if made is not None:
                    lists.append(made)
                    self.newest, self.newest_note = made, row["note"]
            self._chain(lists)
            outside = [made for note in kept if (made := self._opened(note, "kept copy")) is not None]
            stored = {made.day: made for made in lists}
            for made in outside:
                self._compare(made, stored.get(made.day))
            await self._there([*lists[-1:], *outside])
        if not lists and not outside and not self.report.findings:
            self.report.obstacle = self.report.obstacle or "there is no list of logs yet"
        self.report.checkpoints = len(lists)
        return self.report

    def _opened(self, note: str, where: str) -> LogList | None:
        try:
            return open_list(note, self._verifiers)
        except UnknownKey:
            self.report.obstacle = f"a list of the {where} is signed by no key we know"
        except (BadNote, BadSignature) as error:
            self._find("list_signature", 0, f"a list of the {where}: {error}")
        return None

    def _chain(self, lists: Sequence[LogList]) -> None:
        before: LogList | None = None
        for made in lists:
            if made.previous != following(before):
                self._find("list_missing", 0, f"the list before that of {made.day} is missing or another one")
            if before is not None:
                self._continues(before, made)
            before = made

    def _continues(self, before: LogList, made: LogList) -> None:
        sizes = {log.origin: log.size for log in made.logs}
        for log in before.logs:
            if sizes.get(log.origin, -1) < log.size:
                number = log_number(made.origin, log)
                self._find("log_missing", number, f"{log.origin} is gone or smaller in the list of {made.day}")

    def _compare(self, made: LogList, stored: LogList | None) -> None:
        if stored is None:
            self._find("list_missing", 0, f"the list of {made.day} is kept elsewhere and missing in the database")
        elif stored.text() != made.text():
            self._find("list_fork", 0, f"the list of {made.day} that is kept elsewhere is another one")

    async def _there(self, lists: Sequence[LogList]) -> None:
        """Every listed log is in the database, at least as large, with the listed checkpoint in its history."""
        seen: set[Checkpoint] = set()
        for made in lists:
            for log in made.logs:
                if log not in seen:
                    seen.add(log)
                    await self._log(log_number(made.origin, log), log)

    async def _log(self, number: int, log: Checkpoint) -> None:
        size: int | None = await self._conn.fetchval("select size from tree_state where log_id = $1", number)
        if size is None or size < log.size:
            what = "is not in the database" if size is None else f"has {size} of {log.size} events"
            self._find("log_missing", number, f"{log.origin} {what}")
            return
        if log.size:
            query = "select root from checkpoint where log_id = $1 and size = $2"
            if await self._conn.fetchval(query, number, log.size) != log.root:
                self._find("checkpoint_fork", number, f"{log.origin} has no such checkpoint of size {log.size}")

    def _find(self, kind: str, index: int, detail: str) -> None:
        self.report.add(Finding(kind=kind, index=index, detail=detail))

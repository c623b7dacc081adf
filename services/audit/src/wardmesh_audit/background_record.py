"""What the background verification leaves behind: its events, an alert for every finding, its progress and its runs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_audit.derived import Derived, Requester, derive, publish, status
from wardmesh_audit.findings import Finding, Report
from wardmesh_audit.ledger import Connection
from wardmesh_audit.verification_record import INSERT, event_of

RULE = "ledger_verification"
_TITLE = "The ledger is not what was signed"
_NO_ALERT = ("unknown_tail",)  # that checkpoints are late is told by who watches them
_KNOWN = "select 1 from alert where rule = $1 and log_id = $2 and seq = $3 and facts->>'kind' = $4"
_ALERT = """
insert into alert (id, rule, log_id, seq, severity, score, facts) values ($1, $2, $3, $4, 'critical', 1, $5::jsonb)
on conflict do nothing
"""
_REVIEW = "insert into review (id, alert_id, kind) values ($1, $2, 'alert') on conflict do nothing"
_PROGRESS = """
insert into verification_progress (log_id, started_at, looked_at, checked, size, findings, running)
select $1, $2, clock_timestamp(), $3, size, $4, $5 from tree_state where log_id = $1
on conflict (log_id) do update set started_at = excluded.started_at, looked_at = excluded.looked_at,
  checked = excluded.checked, size = excluded.size, findings = excluded.findings, running = excluded.running
"""


class Record(Struct):
    """Of one run of one log."""

    nc: Requester
    conn: Connection
    log_id: int
    run: uuid.UUID
    started_at: datetime
    ending: Derived | None = None  # made once: a lost connection may have it told twice

    async def started(self) -> None:
        facts = {"run": str(self.run), "log": self.log_id, "against": "background"}
        await self._publish(
            status(f"verification_started\x1f{self.run}", self.started_at, "verification_started", facts)
        )

    async def progress(self, report: Report, *, running: bool) -> None:
        values = (self.log_id, self.started_at, report.rows, report.total_findings, running)
        await self.conn.execute(_PROGRESS, *values)

    async def found(self, findings: Sequence[Finding], total: int) -> None:
        """One event for what a slice found; an alert for each finding that has none yet, however often it is found."""
        kinds = sorted({finding.kind for finding in findings})
        first = min(finding.index for finding in findings)
        facts = {"run": str(self.run), "log": self.log_id, "kinds": kinds, "first_index": first, "findings": total}
        key = f"verification_finding\x1f{self.run}\x1f{first}\x1f{total}"
        await self._publish(status(key, datetime.now(UTC), "verification_finding", facts))
        for finding in findings:
            if finding.kind in _NO_ALERT:
                continue
            if not await self.conn.fetchval(_KNOWN, RULE, self.log_id, finding.index, finding.kind):
                await self._alert(finding)

    async def ended(self, report: Report) -> None:
        self.ending = self.ending or event_of(self.run, self.log_id, report, "background")
        await self._publish(self.ending)
        findings = msgspec.json.encode(report.findings).decode()
        await self.conn.execute(INSERT, self.run, self.log_id, self.started_at, report.size, report.exit_code, findings)

    async def _alert(self, finding: Finding) -> None:
        facts = {"kind": finding.kind, "run": str(self.run), "title": _TITLE}
        said = facts | {
            "about_index": f"{self.log_id}:{finding.index}",
            "rule": RULE,
            "severity": "critical",
            "score": 1,
        }
        data: dict[str, Any] = {
            "action": "alert",
            "actor": {"id": "audit", "type": "service"},
            "facts": said,
            "outcome": {"code": "success", "reason": "rule_fired"},
            "phase": "outcome",
        }
        key = f"alert\x1f{RULE}\x1f{self.run}\x1f{finding.kind}\x1f{finding.index}"
        event = derive("alert", key, datetime.now(UTC), data)
        await self._publish(event)
        async with self.conn.transaction():
            text = msgspec.json.encode(facts).decode()
            await self.conn.execute(_ALERT, event.event_id, RULE, self.log_id, finding.index, text)
            await self.conn.execute(_REVIEW, uuid.uuid5(event.event_id, "review"), event.event_id)

    async def _publish(self, event: Derived) -> None:
        await publish(self.nc, self.log_id, event)

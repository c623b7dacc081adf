"""Keeps what a verification found: a row for the status of the ledger, and one event per run in the log itself."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from nats.errors import Error as NatsError

from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.derived import Derived, derive, publish
from wardmesh_audit.findings import VERIFIED, Report
from wardmesh_audit.settings import AuditSettings

INSERT = """
insert into verification_run (id, log_id, started_at, ended_at, size, exit_code, findings)
values ($1, $2, $3, clock_timestamp(), $4, $5, $6) on conflict do nothing
"""


async def keep(settings: AuditSettings, log_id: int, report: Report, started: datetime, against: str) -> str:
    """Why the run could not be kept, or nothing. What was found stays true either way, so nothing is raised."""
    if not settings.audit_signer_url:
        return "WARDMESH_AUDIT_SIGNER_URL is not set"
    run = uuid.uuid4()
    try:
        async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
            await publish(nc, log_id, event_of(run, log_id, report, against))
        async with database(settings.audit_signer_url) as conn:
            findings = msgspec.json.encode(report.findings).decode()
            await conn.execute(INSERT, run, log_id, started, report.size, report.exit_code, findings)
    except (NatsError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return type(error).__name__
    return ""


def event_of(run: uuid.UUID, log_id: int, report: Report, against: str) -> Derived:
    """Numbers and codes only; what exactly was found is in the row of the run."""
    data: dict[str, Any] = {
        "action": "audit_status",
        "actor": {"id": "audit", "type": "service"},
        "facts": {
            "run": str(run),
            "log": log_id,
            "size": report.size,
            "exit_code": report.exit_code,
            "findings": report.total_findings,
            "kinds": sorted({finding.kind for finding in report.findings}),
            "against": against,
        },
        "outcome": {"code": "success" if report.exit_code == VERIFIED else "error", "reason": "verification"},
        "phase": "outcome",
    }
    return derive("audit_status", f"verification\x1f{run}", datetime.now(UTC), data)

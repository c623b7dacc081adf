"""`wardmesh-audit report`: the reports of the API on the command line, each reading recorded before it is shown."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg

from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.deeds import Deed, Deeds
from wardmesh_audit.derived import NotStored
from wardmesh_audit.disclosure_files import written as disclosures_written
from wardmesh_audit.findings import CANNOT_VERIFY, USAGE
from wardmesh_audit.ledger import Connection
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.query_args import ReportArgs
from wardmesh_audit.report_access import access_report, activity_report
from wardmesh_audit.report_disclosures import accounting
from wardmesh_audit.report_files import check_format, written
from wardmesh_audit.settings import AuditSettings, need, secret
from wardmesh_common.errors import WardmeshError


async def report(args: argparse.Namespace, settings: AuditSettings) -> int:
    try:
        async with sessions(settings) as (conn, pseudonyms):
            body, facts, pseudonym = await _made(args, conn, pseudonyms)
            await _record(args, settings, conn, facts, pseudonym)
    except WardmeshError as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return USAGE if error.problem.status == 400 else CANNOT_VERIFY
    except NotStored:
        sys.stderr.write("wardmesh-audit: the reading could not be recorded, so nothing is shown\n")
        return CANNOT_VERIFY
    if args.output is not None:
        args.output.write_bytes(body)
    else:
        sys.stdout.buffer.write(body + (b"" if body.endswith(b"\n") else b"\n"))
    return 0


async def _made(
    args: argparse.Namespace, conn: Connection, pseudonyms: Pseudonyms
) -> tuple[bytes, dict[str, Any], bytes | None]:
    name = "json" if args.json else args.format
    limit = check_format(name, 0)
    asked = ReportArgs(format=name, cursor=args.cursor, limit=limit, since=args.since, until=args.until)
    if args.kind == "user":
        asked.actor = args.subject
        report = await activity_report(conn, asked, args.tenant)
        return written(report, name), {"lines": len(report.lines)}, None
    asked.patient = args.subject
    pseudonym = await pseudonyms.find(args.tenant, args.subject)
    if args.kind == "patient":
        report = await access_report(conn, asked, args.tenant, pseudonym)
        return written(report, name), {"lines": len(report.lines)}, pseudonym
    opener = pseudonyms.open if args.open else None
    account = await accounting(conn, asked, args.tenant, pseudonym, opener, own=False)
    facts = {"lines": len(account.disclosures), "opened": bool(args.open)}
    return disclosures_written(account, name), facts, pseudonym


async def _record(
    args: argparse.Namespace, settings: AuditSettings, conn: Connection, facts: dict[str, Any], pseudonym: bytes | None
) -> None:
    """Raises NotStored, or what the bus raises: without a record nothing is shown (AR-3)."""
    deed = Deed(
        event_class="audit_read",
        action="R",
        reason=f"report_{args.kind}",
        person=args.by,
        facts={"process": os.getpid(), **facts},
        pseudonym=pseudonym.hex() if pseudonym else "",
    )
    async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
        await Deeds(nc, conn).outcome(deed, uuid.uuid4().hex, "success", "report")


@contextlib.asynccontextmanager
async def sessions(settings: AuditSettings) -> AsyncGenerator[tuple[Connection, Pseudonyms]]:
    keys_url = need("WARDMESH_AUDIT_KEYS_URL", settings.audit_keys_url)
    kek = secret("WARDMESH_AUDIT_KEK", settings.audit_kek)
    handle_key = secret("WARDMESH_AUDIT_HANDLE_KEY", settings.audit_handle_key)
    report_url = need("WARDMESH_AUDIT_REPORT_URL", settings.audit_report_url)
    async with database(report_url) as conn, asyncpg.create_pool(keys_url, min_size=1, max_size=1) as pool:
        yield conn, Pseudonyms(pool, kek, handle_key)

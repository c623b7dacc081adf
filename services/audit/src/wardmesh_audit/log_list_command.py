"""`wardmesh-audit logs`: shows the newest list of logs and checks all lists against the database and against copies."""

from __future__ import annotations

import argparse
import sys
from base64 import b64encode

import msgspec

from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.findings import CANNOT_VERIFY
from wardmesh_audit.jetstream import last_message
from wardmesh_audit.log_list import LogList
from wardmesh_audit.log_list_check import ListCheck
from wardmesh_audit.log_list_daily import SUBJECT
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.streams import AUDIT_CHECKPOINT


async def logs(args: argparse.Namespace, settings: AuditSettings) -> int:
    if not settings.list_verifiers():
        sys.stderr.write("wardmesh-audit: no public key: set WARDMESH_AUDIT_PUBLIC_KEY\n")
        return CANNOT_VERIFY
    try:
        kept = [file.read_text(encoding="utf-8") for file in args.list]
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"wardmesh-audit: the kept list cannot be read: {type(error).__name__}\n")
        return CANNOT_VERIFY
    if args.against == "stream":
        async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
            message = await last_message(nc, AUDIT_CHECKPOINT, SUBJECT)
        kept += [message.data.decode(errors="replace")] if message is not None else []
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        check = ListCheck(conn, settings.list_verifiers())
        report = await check.run(kept)
    if args.output is not None and check.newest is not None:
        args.output.write_text(check.newest_note, encoding="utf-8")
    if args.json:
        facts = msgspec.json.decode(report.as_json()) | {"list": _facts(check.newest)}
        sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
    else:
        sys.stdout.write(report.as_text().splitlines()[0] + "\n")
        for line in _lines(check.newest) + report.as_text().splitlines()[1:-1]:
            sys.stdout.write(line + "\n")
    return report.exit_code


def _lines(newest: LogList | None) -> list[str]:
    if newest is None:
        return []
    return [f"  list of {newest.day}"] + [f"  {log.origin}: at least {log.size} events" for log in newest.logs]


def _facts(newest: LogList | None) -> dict[str, object] | None:
    if newest is None:
        return None
    logs = [{"origin": log.origin, "size": log.size, "root": b64encode(log.root).decode()} for log in newest.logs]
    return {"day": newest.day.isoformat(), "previous": newest.previous, "logs": logs}

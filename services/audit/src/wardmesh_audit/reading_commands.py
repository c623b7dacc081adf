"""The commands of those who read the ledger beside verifying it: report and fsck."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from wardmesh_audit.connect import database
from wardmesh_audit.findings import worst
from wardmesh_audit.fsck import Fsck
from wardmesh_audit.settings import AuditSettings, need

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]

_SUBJECTS = (
    ("patient", "PLATFORM/Patient/ID", "who accessed a record"),
    ("user", "ACTOR", "what one user did"),
    ("disclosures", "PLATFORM/Patient/ID", "to whom data was disclosed"),
)


def add_parsers(commands: Any) -> None:
    fsck = commands.add_parser("fsck", help="does the database agree with itself: tiles, uniqueness, indexes, strays")
    fsck.add_argument("--json", action="store_true")
    logs = commands.add_parser("logs", help="the daily list of logs: is every log still there")
    logs.add_argument("--json", action="store_true")
    logs.add_argument("--list", type=Path, action="append", default=[], metavar="FILE", help="a list kept elsewhere")
    logs.add_argument("--against", default="db", choices=("db", "stream"), help="stream: also the published list")
    logs.add_argument("-o", "--output", type=Path, help="write the newest list, to keep it")
    kinds = commands.add_parser("report", help="who saw what").add_subparsers(dest="kind", required=True)
    for kind, subject, about in _SUBJECTS:
        parser = kinds.add_parser(kind, help=about)
        parser.add_argument("subject", metavar=subject)
        parser.add_argument("--by", required=True, metavar="PERSON", help="who reads; it is recorded")
        parser.add_argument("--tenant", default="default")
        parser.add_argument("--from", dest="since", default="")
        parser.add_argument("--to", dest="until", default="")
        parser.add_argument("--format", choices=("json", "csv", "pdf"), default="json")
        parser.add_argument("--json", action="store_true", help="the same as --format json")
        parser.add_argument("--cursor", default="", help="what `next` of the page before said")
        parser.add_argument("-o", "--output", type=Path)
        if kind == "disclosures":
            parser.add_argument("--open", action="store_true", help="with recipients, which are sealed")


async def cmd_fsck(args: argparse.Namespace, settings: AuditSettings) -> int:
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        reports = [await Fsck(conn, settings.origin_of(log_id), log_id).run() for log_id in settings.logs]
    for report in reports:
        sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
    return worst(report.exit_code for report in reports)


async def cmd_report(args: argparse.Namespace, settings: AuditSettings) -> int:
    from wardmesh_audit.report_command import report  # noqa: PLC0415 - fpdf is nothing the other commands need

    return await report(args, settings)


async def cmd_logs(args: argparse.Namespace, settings: AuditSettings) -> int:
    from wardmesh_audit.log_list_command import logs  # noqa: PLC0415 - most commands need no list

    return await logs(args, settings)


COMMANDS: Mapping[str, Command] = {"fsck": cmd_fsck, "logs": cmd_logs, "report": cmd_report}

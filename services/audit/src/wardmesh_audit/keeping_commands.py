"""The commands of those who keep the ledger: gaps, hold, shred, retention, recover."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from wardmesh_audit import gaps, holds, retention
from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.deeds import Deed, Deeds, NotRecorded
from wardmesh_audit.findings import CANNOT_VERIFY, INCOMPLETE, TAMPERED, USAGE, VERIFIED
from wardmesh_audit.guard import GuardTripped, read_outside
from wardmesh_audit.ledger import Connection
from wardmesh_audit.recovery import CannotRecover, recover
from wardmesh_audit.settings import AuditSettings, need, secret
from wardmesh_audit.shred import Shredder
from wardmesh_audit.subject_keys import handle_of
from wardmesh_common.errors import WardmeshError

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]


def add_parsers(commands: Any) -> None:
    listing = commands.add_parser("gaps", help="producers whose counters have holes or no end")
    listing.add_argument("--json", action="store_true")
    listing.add_argument("--since", type=_instant, help="only epochs heard of since then")
    hold = commands.add_parser("hold", help="legal holds").add_subparsers(dest="action", required=True)
    add = hold.add_parser("add", help="nothing it covers is dropped or shredded")
    for name in ("tenant", "patient", "actor"):
        add.add_argument(f"--{name}", help="a pseudonym in hex" if name == "patient" else None)
    add.add_argument("--from", dest="since", type=_instant)
    add.add_argument("--until", type=_instant)
    add.add_argument("--reason", required=True)
    release = hold.add_parser("release", help="the first person asks, a second one releases")
    release.add_argument("id", type=uuid.UUID)
    for parser in (add, release):
        parser.add_argument("--by", required=True, metavar="PERSON")
    hold.add_parser("list", help="holds in force").add_argument("--all", action="store_true")
    shred = commands.add_parser("shred", help="destroy the key of one patient")
    shred.add_argument("subject", help="PLATFORM/Patient/ID")
    shred.add_argument("--tenant", default="default")
    shred.add_argument("--by", required=True, metavar="PERSON")
    shred.add_argument("--basis", default="", help="code of the legal ground that lifts the duty to retain")
    shred.add_argument("--dry-run", action="store_true")
    shred.add_argument("--no-wait", action="store_true", help="do not wait until no station can hold a copy of the key")
    keep = commands.add_parser("retention", help="export and drop months whose time is over")
    keep.add_argument("--by", default="audit", metavar="PERSON")
    keep.add_argument("--dry-run", action="store_true")
    commands.add_parser("recover", help="after a restored backup: bring back what was published")


async def cmd_gaps(args: argparse.Namespace, settings: AuditSettings) -> int:
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        found = await gaps.find(conn, since=args.since, silent_seconds=settings.audit_silent_seconds)
    if args.json:
        _say(msgspec.json.encode(found).decode())
    else:
        for gap in found:
            numbers = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in gap.ranges)
            _say(f"{gap.kind} {gap.producer} epoch {gap.epoch} last {gap.last_seq} {numbers}".rstrip())
        if not found:
            _say("no gaps")
    return INCOMPLETE if found else VERIFIED


async def cmd_hold(args: argparse.Namespace, settings: AuditSettings) -> int:
    async with database(need("WARDMESH_AUDIT_OFFICER_URL", settings.audit_officer_url)) as conn:
        try:
            if args.action == "list":
                found = await holds.listed(conn, released=args.all)
            else:
                async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
                    found = [await _hold(args, conn, Deeds(nc, conn))]
        except (WardmeshError, NotRecorded) as error:
            return _refused(error)
    for hold in found:
        _say(msgspec.json.encode(hold).decode())
    return 0


async def _hold(args: argparse.Namespace, conn: Connection, deeds: Deeds) -> holds.Hold:
    """As over HTTP: the intent is in the ledger before anything happens, how it ended afterwards."""
    hold_id: uuid.UUID = args.id if args.action == "release" else uuid.uuid4()
    scope = holds.Scope()
    if args.action == "add":
        scope = holds.Scope(
            tenant=args.tenant, patient=args.patient, actor=args.actor, since=args.since, until=args.until
        )
        holds.check(scope, args.reason)
    deed = Deed(
        event_class="retention",
        action="C" if args.action == "add" else "U",
        reason="place_hold" if args.action == "add" else "release_hold",
        person=args.by,
        facts={"hold": str(hold_id)},
        pseudonym=scope.patient or "",
    )
    number = uuid.uuid4().hex
    await deeds.intent(deed, number)
    try:
        if args.action == "add":
            hold = await holds.place(conn, scope, args.reason, args.by, hold_id)
        else:
            hold = await holds.release(conn, hold_id, args.by)
    except WardmeshError as error:
        await deeds.outcome(deed, number, "error", error.problem.code)
        raise
    reason = "hold.placed" if args.action == "add" else "hold.release_asked" if hold.active else "hold.released"
    await deeds.outcome(deed, number, "success", reason)
    return hold


async def cmd_shred(args: argparse.Namespace, settings: AuditSettings) -> int:
    handle = handle_of(secret("WARDMESH_AUDIT_HANDLE_KEY", settings.audit_handle_key), args.tenant, args.subject)
    keys_url = need("WARDMESH_AUDIT_SHREDDER_URL", settings.audit_shredder_url)
    officer_url = need("WARDMESH_AUDIT_OFFICER_URL", settings.audit_officer_url)
    async with (
        database(keys_url) as keys,
        database(officer_url) as conn,
        nats_as("audit", settings.nats_url, settings.nats_seed) as nc,
    ):
        shredder = Shredder(keys, conn, Deeds(nc, conn))
        try:
            if args.dry_run:
                plan = await shredder.plan(handle)
                _say(msgspec.json.encode(plan).decode())
                return 0 if not plan.obstacle or (args.basis and not plan.holds) else CANNOT_VERIFY
            done = await shredder.shred(handle, args.by, basis=args.basis, wait=not args.no_wait)
        except (WardmeshError, NotRecorded) as error:
            return _refused(error)
    _say(msgspec.json.encode(done).decode())
    return 0


async def cmd_retention(args: argparse.Namespace, settings: AuditSettings) -> int:
    async with (
        database(need("WARDMESH_AUDIT_RETENTION_URL", settings.audit_retention_url)) as conn,
        nats_as("audit", settings.nats_url, settings.nats_seed) as nc,
    ):
        for log_id in settings.logs:
            if args.dry_run:
                for month in await retention.months(conn, log_id):
                    _say(f"{month.partition}: {', '.join(month.obstacles) or 'would be dropped'}")
                continue
            exports = Path(need("WARDMESH_AUDIT_EXPORT_DIR", settings.audit_export_dir))
            try:
                gone = await retention.run(conn, Deeds(nc, conn, log_id), exports, args.by, log_id)
            except (NotRecorded, retention.ExportFailed) as error:
                return _refused(error)
            for month in gone:
                _say(f"{month.partition}: dropped, minimum index {month.min_index}")
    return 0


async def cmd_recover(_args: argparse.Namespace, settings: AuditSettings) -> int:
    writer = need("WARDMESH_AUDIT_WRITER_URL", settings.audit_writer_url)
    async with (
        database(writer) as conn,
        nats_as("audit", settings.nats_url, settings.nats_seed) as nc,
        nats_as("operations", settings.nats_url, settings.operations_seed or settings.nats_seed) as operations,
    ):
        for log_id in settings.logs:
            verifiers = settings.verifiers(log_id)
            try:
                done = await recover(conn, nc, operations, await read_outside(nc, verifiers, log_id), log_id)
            except asyncpg.LockNotAvailableError:
                return _refused(CannotRecover("a writer is at work: stop the audit service first"))
            except (CannotRecover, GuardTripped) as error:
                sys.stderr.write(f"wardmesh-audit: not recovered: {error}\n")
                return TAMPERED
            _say(f"log {log_id}: {done.rows} events restored, size {done.size} root {done.root.hex()}")
    return 0


COMMANDS: Mapping[str, Command] = {
    "gaps": cmd_gaps,
    "hold": cmd_hold,
    "shred": cmd_shred,
    "retention": cmd_retention,
    "recover": cmd_recover,
}


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _refused(error: Exception) -> int:
    sys.stderr.write(f"wardmesh-audit: {error}\n")
    return USAGE if isinstance(error, WardmeshError) and error.status == 400 else CANNOT_VERIFY

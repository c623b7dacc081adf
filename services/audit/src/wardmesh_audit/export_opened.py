"""`wardmesh-audit export --open`: with what is sealed, after the reading itself has been recorded (AU-605)."""

from __future__ import annotations

import argparse
import os
import sys
import uuid

import msgspec

from wardmesh_audit.connect import nats_as
from wardmesh_audit.deeds import Deed, Deeds
from wardmesh_audit.derived import NotStored
from wardmesh_audit.export_words import WORDED
from wardmesh_audit.findings import CANNOT_VERIFY, USAGE
from wardmesh_audit.prove import NotThere
from wardmesh_audit.report_command import sessions
from wardmesh_audit.settings import AuditSettings


async def opened_export(args: argparse.Namespace, settings: AuditSettings, log_id: int) -> int:
    export = WORDED.get(args.format)
    if export is None or not (args.open and args.by):
        sys.stderr.write("wardmesh-audit: --open and --by go together, and with smedrec or fhir-audit only\n")
        return USAGE
    deed = Deed(
        event_class="audit_read",
        action="R",
        reason=f"export_{args.format}",
        person=args.by,
        facts={"process": os.getpid(), "log": log_id, "opened": True},
    )
    try:
        async with sessions(settings) as (conn, pseudonyms):
            async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
                await Deeds(nc, conn).outcome(deed, uuid.uuid4().hex, "success", "export")
            size = await export(conn, args.directory, log_id=log_id, opens=pseudonyms.open)
    except NotThere as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return CANNOT_VERIFY
    except NotStored:
        sys.stderr.write("wardmesh-audit: the reading could not be recorded, so nothing is written\n")
        return CANNOT_VERIFY
    told = {"log": log_id, "format": args.format, "events": size, "directory": str(args.directory)}
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n" if args.json else f"{size} events\n")
    return 0

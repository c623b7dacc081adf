"""`wardmesh-audit reviews`: the queue and what came of it, as over HTTP; reading and closing are in the ledger."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.deeds import Deed, Deeds, NotRecorded
from wardmesh_audit.derived import NotStored
from wardmesh_audit.findings import CANNOT_VERIFY, USAGE
from wardmesh_audit.ledger import Connection
from wardmesh_audit.query_args import MOST_EVENTS
from wardmesh_audit.reviews import OUTCOMES, CloseArgs, ReviewsArgs, close_review, list_reviews, written
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_common.errors import WardmeshError

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]


def add_parsers(commands: Any) -> None:
    reviews = commands.add_parser("reviews", help="the review queue").add_subparsers(dest="action", required=True)
    listing = reviews.add_parser("list", help="with outcome, reviewer, time and evidence")
    listing.add_argument("--status", choices=("open", "closed", "all"), default="open")
    listing.add_argument("--format", choices=("json", "csv"), default="json")
    close = reviews.add_parser("close", help="once, never by whom it is about")
    close.add_argument("id")
    close.add_argument("--outcome", choices=OUTCOMES, required=True)
    close.add_argument("--evidence", required=True, help="what was looked at and found")
    for parser in (listing, close):
        parser.add_argument("--by", required=True, metavar="PERSON")
        parser.add_argument("--tenant", default="default")


async def cmd_reviews(args: argparse.Namespace, settings: AuditSettings) -> int:
    officer_url = need("WARDMESH_AUDIT_OFFICER_URL", settings.audit_officer_url)
    try:
        async with (
            database(officer_url) as conn,
            nats_as("audit", settings.nats_url, settings.nats_seed) as nc,
        ):
            made = await (_list if args.action == "list" else _close)(args, conn, Deeds(nc, conn))
    except (WardmeshError, NotRecorded, NotStored) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return USAGE if isinstance(error, WardmeshError) and error.problem.status == 400 else CANNOT_VERIFY
    sys.stdout.buffer.write(made + (b"" if made.endswith(b"\n") else b"\n"))
    return 0


async def _list(args: argparse.Namespace, conn: Connection, deeds: Deeds) -> bytes:
    found = await list_reviews(conn, ReviewsArgs(status=args.status, limit=MOST_EVENTS), args.tenant)
    facts = {"process": os.getpid(), "lines": len(found.reviews)}
    deed = Deed(event_class="audit_read", action="R", reason="list_reviews", person=args.by, facts=facts)
    await deeds.outcome(deed, uuid.uuid4().hex, "success", "report")
    return written(found, args.format)


async def _close(args: argparse.Namespace, conn: Connection, deeds: Deeds) -> bytes:
    asked, number = CloseArgs(id=args.id, outcome=args.outcome, evidence=args.evidence), uuid.uuid4().hex
    facts = {"review": args.id, "review_outcome": args.outcome}
    deed = Deed(event_class="alert", action="U", reason="close_review", person=args.by, facts=facts)
    asked.check()
    await deeds.intent(deed, number)
    try:
        review = await close_review(conn, asked, args.tenant, args.by)
    except WardmeshError as error:
        await deeds.outcome(deed, number, "error", error.problem.code)
        raise
    await deeds.outcome(deed, number, "success", "review.closed", evidence_sha256=review.evidence_digest)
    return written(review, "json")


COMMANDS: Mapping[str, Command] = {"reviews": cmd_reviews}

"""`wardmesh-audit detect care-teams`: writes the feed file of who treats whom."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from wardmesh_audit.care_feed import CareFeed, read_actors
from wardmesh_audit.care_shapes import BadCareData

FAILED = 1


def add_parser(actions: Any) -> None:
    care = actions.add_parser("care-teams", help="make the feed of who treats whom from FHIR data")
    care.add_argument(
        "data", type=Path, nargs="+", metavar="FILE", help="*.ndjson, or *.json with a Bundle or resource"
    )
    care.add_argument("--platform", required=True, metavar="ID", help="whose patients these are")
    care.add_argument("--actors", required=True, type=Path, metavar="CSV", help="columns practitioner and actor")
    care.add_argument("--days", type=_days, default=30, help="before and after a treatment that still count")
    care.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="a *.json of the directory")


def care_teams(args: argparse.Namespace) -> int:
    feed = CareFeed(datetime.now(UTC).date(), args.days)
    try:
        actors = read_actors(args.actors)
        for path in args.data:
            feed.read(path)
        teams = list(feed.teams(args.platform, actors))
        if not teams:
            raise BadCareData("there is no patient in the data: nothing was written")
        _put(args.output, msgspec.json.encode(teams))
    except BadCareData as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return FAILED
    except OSError as error:
        sys.stderr.write(f"wardmesh-audit: the feed cannot be written: {type(error).__name__}\n")
        return FAILED
    treated = sum(1 for team in teams if team.care_team)
    sys.stdout.write(f"{len(teams)} patients, {treated} with a team, of {feed.resources} resources\n")
    if feed.strangers:
        sys.stderr.write(f"wardmesh-audit: {len(feed.strangers)} practitioners are not in the list of actors\n")
    return 0


def _put(path: Path, content: bytes) -> None:
    """All at once, so that detection never reads half a feed; readable for its owner only."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".draft")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _days(text: str) -> int:
    days = int(text)
    if not 0 <= days <= 3660:
        raise argparse.ArgumentTypeError("0 to 3660 days")
    return days

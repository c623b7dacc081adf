"""The directory of the demo hospital that detection compares with: who works here, and one patient who is listed."""

from __future__ import annotations

import json
from pathlib import Path

from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.identity import people
from wardmesh_cli.layout import STORE_PLATFORM, Layout
from wardmesh_common.tokens import principal_id

LISTED_PATIENT = "04c704c4-5d2d-4308-9c33-1690a6e47a6b"  # of the demo data
TREATED_BY = "demo_doctor"
FEED = "people"


def actor(layout: Layout, name: str) -> str:
    """As the ledger calls a demo person."""
    return principal_id(layout.issuer, name)


def write_feed(layout: Layout) -> Path:
    """The folder, with its file in place. Ids of people hang on the port of the issuer, which may be another today."""
    folder = layout.state.private(FEED)
    staff = [person.name for person in people(PEOPLE) if "patient" not in person.roles]
    listed = {
        "patients": [f"{STORE_PLATFORM}/Patient/{LISTED_PATIENT}"],
        "lists": ["vip"],
        "care_team": [actor(layout, TREATED_BY)],
    }
    entries = [*({"actor": actor(layout, name), "employer": "Secure Hospital"} for name in staff), listed]
    draft = folder / "demo.new"
    draft.write_text(json.dumps(entries, indent=1))
    draft.rename(folder / "demo.json")
    return folder

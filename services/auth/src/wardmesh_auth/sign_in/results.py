"""What procedures answer; the gateway renders pages and sets the cookie, and never passes `session` to a tool."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Outcome

_encode = msgspec.json.Encoder().encode


class Cookie(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A new browser session: the secret for the cookie and how long it holds."""

    session: str = ""
    max_age: int = 0

    def __repr__(self) -> str:
        return "Cookie(...)"


class Page(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the pages of FG-12, or where to go instead; `flavour` "sm" asks for the JSON of SM-3."""

    status: int
    page: str = ""
    platform_id: str = ""
    platform_name: str = ""
    location: str = ""
    session: str = ""
    max_age: int = 0
    flavour: str = ""
    error: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Page({self.page!r}, {self.status})"


def answer(body: dict[str, Any] | Struct, event: str = "") -> Outcome:
    return Outcome(status=200, body=_encode(body), media_type="application/json", event=event)


def shown(page: Page, event: str) -> Outcome:
    """The outcome has the page's status, so that a failed sign-in is recorded as failed."""
    return Outcome(status=page.status, body=_encode(page), media_type="application/json", event=event)

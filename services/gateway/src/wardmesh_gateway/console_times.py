"""How the console writes a moment: one format everywhere, in UTC, and it says so."""

from __future__ import annotations

from datetime import UTC, datetime

from wardmesh_gateway.console_markup import Markup, tag


def moment(text: str | None, nothing: str = "never") -> Markup:
    """`2026-11-21 13:33:31 UTC`, with the whole text for programs."""
    if not text:
        return tag("span", nothing)
    return tag("time", _written(text, "%Y-%m-%d %H:%M:%S UTC"), datetime=text)


def clock(text: str) -> Markup:
    """Below a heading that has the day."""
    return tag("time", _written(text, "%H:%M:%S UTC"), datetime=text)


def day(text: str) -> str:
    return _written(text, "%Y-%m-%d")


def _written(text: str, form: str) -> str:
    """What is no moment is shown as the record has it: a page for auditors hides nothing."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).strftime(form)

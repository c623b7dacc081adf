"""Literal references: relative, absolute to our own base, foreign, versioned."""

from __future__ import annotations

import re

from msgspec import Struct

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/([A-Za-z0-9\-.]{1,64}))?")


class Target(Struct, frozen=True):
    """Where a reference points: type and id here, or a URL elsewhere."""

    type: str = ""
    id: str = ""
    version: str = ""
    url: str = ""


def target_of(reference: str, bases: tuple[str, ...]) -> Target | None:
    """None for a reference to a contained resource or to nothing."""
    if not reference or reference.startswith("#"):
        return None
    local = reference
    if "://" in reference:
        local = next((reference[len(base) + 1 :] for base in bases if reference.startswith(base + "/")), reference)
    match = _RELATIVE.fullmatch(local)
    if match:
        return Target(match[1], match[2], match[3] or "")
    if "://" in reference:
        tail = reference.rsplit("/", 4)
        kind = next((part for part in reversed(tail[:-1]) if part[:1].isupper()), "")
        return Target(type=kind, url=reference)
    return Target(url=reference)

"""Our own ETag for masked copies: the upstream version plus a fingerprint of the masks (PX-7)."""

from __future__ import annotations

import re

_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_MASKED = re.compile(r"(.*)\+m([0-9a-f]{16})")


def masked(etag: str, fingerprint: str) -> str:
    """`W/"3"` and a fingerprint -> `W/"3+m…"`."""
    match = _TAG.fullmatch(etag.strip())
    return f'W/"{match[1]}+m{fingerprint}"' if match and fingerprint else ""


def split(etag: str) -> tuple[str, str]:
    """(`W/"3"`, fingerprint); the fingerprint is "" for an ETag that is the platform's own."""
    match = _TAG.fullmatch(etag.strip())
    hidden = _MASKED.fullmatch(match[1]) if match else None
    return (f'W/"{hidden[1]}"', hidden[2]) if hidden else (etag.strip(), "")


def listed(header: str) -> list[str]:
    """The single ETags of an If-Match or If-None-Match header."""
    return [match.group(0) for match in _TAG.finditer(header)] or ([header.strip()] if header.strip() else [])


def names_masked_copy(header: str) -> bool:
    return any(split(tag)[1] for tag in listed(header))


def forwardable(header: str, fingerprint: str) -> str:
    """The If-None-Match that may go upstream: only tags of copies shaped by exactly the current masks."""
    tags = [split(tag) for tag in listed(header)]
    return ", ".join(version for version, mark in tags if mark == fingerprint and version != "*")


def matches(header: str, etag: str) -> bool:
    """Weak comparison of one ETag with an If-None-Match header."""
    bare = etag.removeprefix("W/")
    return bool(etag) and any(tag.removeprefix("W/") == bare for tag in listed(header))

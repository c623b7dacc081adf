"""Replaces temporary addresses in a resource's bytes, so that everything around them stays as it was (ST-25)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"(\s*:)?')
_LINK = re.compile(r"""((?:href|src)\s*=\s*(["']))(.*?)(\2)""", re.DOTALL)
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(.+)", re.DOTALL)
ALSO = frozenset({"reference", "url", "source"})  # `url` and `source` are text in other places, never with a fullUrl


def _text(raw: bytes) -> str:
    return str(json.loads(b'"' + raw + b'"')) if b"\\" in raw else raw.decode()


def _edit(body: bytes, change: Callable[[str, str], str | None]) -> bytes:
    """Offer every string value with its member name; what `change` returns takes its place."""
    out: list[bytes] = []
    last, member = 0, ""
    for match in _STRING.finditer(body):
        if match[2] is not None:
            member = _text(match[1])
            continue
        replacement = change(member, _text(match[1]))
        if replacement is not None:
            out += [body[last : match.start(1)], json.dumps(replacement, ensure_ascii=False)[1:-1].encode()]
            last = match.end(1)
    return b"".join((*out, body[last:])) if out else body


def rewrite(body: bytes, addresses: Mapping[str, str], uri_names: frozenset[str]) -> bytes:
    """`addresses`: full URL or conditional reference → `Type/id`. Text elements keep what they say."""
    allowed = uri_names | ALSO

    def change(member: str, value: str) -> str | None:
        if member in allowed:
            return addresses.get(value)
        if member == "div":
            found = _LINK.sub(lambda m: m[1] + addresses.get(m[3], m[3]) + m[4], value)
            return found if found != value else None
        return None

    return _edit(body, change)


def conditional_references(body: bytes) -> dict[str, tuple[str, str]]:
    """Reference as written → (type, criteria)."""
    found: dict[str, tuple[str, str]] = {}

    def look(member: str, value: str) -> None:
        match = _CONDITIONAL.fullmatch(value) if member == "reference" else None
        if match:
            found[value] = (match[1], match[2])

    if b"?" in body:
        _edit(body, look)
    return found

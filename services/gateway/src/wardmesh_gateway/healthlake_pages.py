"""Pages as the tools of HL-15 name them: `next_token` goes in and comes back, an opaque word and never an address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

CURSOR = "_cursor"
PAGE = 100


class _Link(Struct):
    relation: str = ""
    url: str = ""


class _Bundle(Struct):
    link: list[_Link] = []


_bundles = msgspec.json.Decoder(_Bundle)


def next_page(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Size and beginning of the page that is asked for; any size goes with any token (X-42)."""
    size = ("_count", str(arguments.get("count", PAGE)))
    return [size, (CURSOR, arguments["next_token"])] if "next_token" in arguments else [size]


def paged(body: bytes) -> bytes:
    """The Bundle, byte for byte, with `pagination` as its last member."""
    token = _token(body)
    told = msgspec.json.encode({"has_next": token is not None, "next_token": token})
    return body.rstrip()[:-1] + b',"pagination":' + told + b"}"


def _token(body: bytes) -> str | None:
    for link in _bundles.decode(body).link:
        if link.relation == "next":
            return dict(parse_qsl(urlsplit(link.url).query)).get(CURSOR)
    return None

"""Bundles that leave the store: bodies are copied in as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class Link(Struct, frozen=True):
    relation: str
    url: str


class EntrySearch(Struct, frozen=True):
    mode: str


class EntryRequest(Struct, frozen=True):
    method: str
    url: str


class EntryResponse(Struct, frozen=True, omit_defaults=True, rename="camel"):
    status: str
    location: str = ""
    etag: str = ""
    last_modified: str = ""
    outcome: Raw | UnsetType = UNSET


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    full_url: str = ""
    resource: Raw | UnsetType = UNSET
    search: EntrySearch | UnsetType = UNSET
    request: EntryRequest | UnsetType = UNSET
    response: EntryResponse | UnsetType = UNSET


class OutBundle(Struct, frozen=True, kw_only=True, rename="camel"):
    resource_type: str
    type: str
    total: int | UnsetType = UNSET
    link: list[Link] | UnsetType = UNSET
    entry: list[Entry] | UnsetType = UNSET


def bundle(kind: str, entries: Sequence[Entry], *, links: Sequence[Link] = (), total: int | None = None) -> bytes:
    """FHIR knows no empty arrays: what is empty is left out."""
    return msgspec.json.encode(
        OutBundle(
            resource_type="Bundle",
            type=kind,
            total=UNSET if total is None else total,
            link=list(links) or UNSET,
            entry=list(entries) or UNSET,
        )
    )

"""Reads Binaries that were sent as raw content slice by slice: as their content or as FHIR JSON (ST-62)."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from datetime import datetime

import msgspec
from msgspec import Struct

from wardmesh_fhir_store.binaries import Held, content_headers
from wardmesh_fhir_store.reading import headers_of, unchanged
from wardmesh_fhir_store.records import Saved
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.uploads import DATA, Upload
from wardmesh_fhir_store.wire import Request, Response

SLICE = 1024 * 1024  # of base64, four digits for three bytes
_WHICH = """SELECT v.version, v.last_updated, v.meta_revision, octet_length(v.body) AS size, v.data_at,
    substring(v.body FROM 1 FOR v.data_at::int) AS head,
    substring(v.body FROM octet_length(v.body) - 3 FOR 2) AS tail
    FROM fhir_version v WHERE v.datastore_id = $1 AND v.resource_type = 'Binary' AND v.resource_id = $2
    AND v.data_at IS NOT NULL AND v.version = coalesce($3, (SELECT c.version FROM fhir_current c
        WHERE c.datastore_id = $1 AND c.resource_type = 'Binary' AND c.resource_id = $2))"""
_PART = """SELECT substring(body FROM $5 FOR $6) AS part FROM fhir_version
    WHERE datastore_id = $1 AND resource_type = 'Binary' AND resource_id = $2 AND version = $3 AND meta_revision = $4"""


class Large(Struct, frozen=True):
    """A version in the database; the digits of its content stand from `data_at` to two characters before the end."""

    id: str
    version: int
    updated: datetime
    revision: int
    size: int
    data_at: int
    head: bytes
    tail: bytes


class LargeBinaries:
    """One per datastore."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def answer(self, request: Request, parts: list[str], *, raw: bool) -> Response | None:
        """None for every Binary that is stored otherwise: those are read whole."""
        if "_elements" in request.query or "_summary" in request.query:
            return None
        large = await self._find(parts[1], parts[3] if len(parts) == 4 else "")
        if large is None:
            return None
        headers = headers_of(large.version, large.updated, large.revision)
        if unchanged(request.headers, large.version, large.updated, large.revision):
            return Response(status=304, headers=headers)
        if not raw:
            return Response(parts=self._slices(large, 0, large.size), size=large.size, headers=headers)
        held = msgspec.json.decode(large.head + b'"}', type=Held)
        digits = large.size - large.data_at - 2
        return Response(
            parts=self._content(large, digits),
            size=digits // 4 * 3 - large.tail.count(b"="),
            headers=[*headers, *content_headers(held)],
            media_type=held.content_type,
        )

    def written(self, saved: Saved, upload: Upload) -> Response:
        """The version that an upload became, as FHIR JSON; read once its transaction is over."""
        size = len(saved.body or b"") - 1 + len(DATA) + upload.digits + 2
        large = Large(saved.id, saved.version, saved.updated, 0, size, 0, b"", b"")
        return Response(parts=self._slices(large, 0, size), size=size)

    async def _find(self, identity: str, version: str) -> Large | None:
        if version and not (version.isascii() and version.isdigit() and len(version) < 10):
            return None
        wanted = int(version) if version else None
        row = await self._store.database.fetch_row(_WHICH, self._store.datastore, identity, wanted)
        return Large(identity, *row) if row else None

    async def _content(self, large: Large, digits: int) -> AsyncGenerator[bytes]:
        async for part in self._slices(large, large.data_at, digits):
            yield base64.b64decode(part)

    async def _slices(self, large: Large, start: int, length: int) -> AsyncGenerator[bytes]:
        """Each with a connection of its own: a slow reader holds none."""
        named = (self._store.datastore, large.id, large.version, large.revision)
        for place in range(start, start + length, SLICE):
            size = min(SLICE, start + length - place)
            row = await self._store.database.fetch_row(_PART, *named, place + 1, size)
            if row is None or len(row["part"]) != size:  # its meta changed, or the datastore goes
                raise ConnectionAbortedError("the version that is being read changed")
            yield row["part"]

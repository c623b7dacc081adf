"""Create, update, patch and delete, plain and conditional (ST-3 to ST-19)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from msgspec import Struct, structs
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import preconditions, tables
from wardmesh_fhir_store.binaries import wrapped
from wardmesh_fhir_store.composites import Rows
from wardmesh_fhir_store.faults import Fault, Issue, invalid, not_found, not_supported, outcome_body
from wardmesh_fhir_store.jsonpatch import patched
from wardmesh_fhir_store.jsontext import Members, decode, decode_object, encode, members_of
from wardmesh_fhir_store.large_binaries import LargeBinaries
from wardmesh_fhir_store.reading import headers_of
from wardmesh_fhir_store.records import Change, Current, Identity, Saved, lock
from wardmesh_fhir_store.references import ID
from wardmesh_fhir_store.selecting import Found
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.uploads import Upload, Uploads
from wardmesh_fhir_store.wire import Request, Response

JSON_TYPES = frozenset({"application/fhir+json", "application/json", "application/json+fhir", "text/json", "json"})
FHIR_JSON = "application/fhir+json"
JSON_PATCH = "application/json-patch+json"
MOST_HELD = 1024 * 1024  # of raw content
LARGE_BODY = 256 * 1024  # beyond it the work leaves the event loop, so that others are served meanwhile

Work = Callable[[AsyncConnection], Awaitable[Response]]


class Prepared(Struct, frozen=True):
    """A resource that was judged and can be stored."""

    members: Members
    rows: Rows
    id: str
    upload: Upload | None = None  # content that waits in the database


def media_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "application/fhir+json").partition(";")[0].strip().lower()


def prepare(store: Store, kind: str, body: bytes) -> Prepared:
    """Decode once; the same tree serves validation and index."""
    tree = decode_object(body)
    rows = store.judge(kind, tree)
    return Prepared(members_of(body), rows, str(tree.get("id", "")))


def apply_patch(store: Store, kind: str, identity: str, body: bytes, operations: object) -> Prepared:
    """The patched resource, judged again; type and id cannot change (ST-21)."""
    tree = decode_object(body)
    if isinstance(operations, dict):
        result: object = store.fhirpath_patch.patched(tree, operations)
    else:
        result = patched(tree, operations)
    if not isinstance(result, dict) or result.get("resourceType") != kind or result.get("id") != identity:
        raise Fault(422, "processing", "A patch cannot change resourceType or id.")
    rows = store.judge(kind, result)
    return Prepared(members_of(encode(result)), rows, identity)


class Writing:
    """Interactions that store one version."""

    def __init__(self, store: Store, large: LargeBinaries) -> None:
        self._store = store
        self._large = large
        self._uploads = Uploads(store.database, store.datastore)

    async def create(self, request: Request, kind: str) -> Response:
        prepared = await self._prepare(request, kind)
        criteria = request.headers.get("if-none-exist")

        async def work(connection: AsyncConnection) -> Response:
            if criteria is not None:
                found = await self._store.match_one(connection, kind, criteria.partition("?")[2] or criteria)
                if found:
                    return self._unchanged(request, found)
            change = Change(
                type=kind, id=str(uuid.uuid4()), method="POST", members=prepared.members, rows=prepared.rows
            )
            return await self._stored(connection, request, change, prepared.upload)

        database = self._store.database
        return await self._kept(prepared, database.write(work) if criteria is None else database.serialize(work))

    async def update(self, request: Request, kind: str, identity: str) -> Response:
        prepared = await self._prepare(request, kind, identity)
        if prepared.id != identity:
            raise invalid("The id of the resource is missing or differs from the URL.", f"{kind}.id")

        async def work(connection: AsyncConnection) -> Response:
            return await self._update(connection, request, kind, identity, prepared)

        return await self._kept(prepared, self._store.database.write(work))

    async def _update(
        self, connection: AsyncConnection, request: Request, kind: str, identity: str, prepared: Prepared
    ) -> Response:
        current = await self._lock(connection, (kind, identity))
        headers = request.headers
        preconditions.check(headers.get("if-match"), headers.get("if-none-match"), current)
        if self._store.options.versioned_update:
            preconditions.demand(headers.get("if-match"), current)
        change = Change(
            type=kind, id=identity, method="PUT", members=prepared.members, rows=prepared.rows, current=current
        )
        return await self._stored(connection, request, change, prepared.upload)

    async def conditional_update(self, request: Request, kind: str) -> Response:
        """ST-14."""
        prepared = await self._prepare(request, kind)
        if prepared.id and not ID.fullmatch(prepared.id):
            raise invalid("The id of the resource is not a FHIR id.", f"{kind}.id")

        async def work(connection: AsyncConnection) -> Response:
            found = await self._store.match_one(connection, kind, request.query)
            if found and prepared.id not in ("", found.id):
                raise invalid("The criteria match a resource with another id.", f"{kind}.id")
            identity = found.id if found else prepared.id or str(uuid.uuid4())
            return await self._update(connection, request, kind, identity, prepared)

        return await self._kept(prepared, self._store.database.serialize(work))

    async def delete(self, request: Request, kind: str, identity: str) -> Response:
        async def work(connection: AsyncConnection) -> Response:
            return await self._delete(connection, request, kind, identity)

        return await self._store.database.write(work)

    async def conditional_delete(self, request: Request, kind: str) -> Response:
        async def work(connection: AsyncConnection) -> Response:
            found = await self._store.match_one(connection, kind, request.query)
            if found is None:
                return Response(status=204)
            return await self._delete(connection, request, kind, found.id)

        return await self._store.database.serialize(work)

    async def _delete(self, connection: AsyncConnection, request: Request, kind: str, identity: str) -> Response:
        current = await self._lock(connection, (kind, identity))
        preconditions.check(request.headers.get("if-match"), None, current)
        if current is None or current.deleted:
            return Response(status=204)
        saved = await self._save(connection, Change(type=kind, id=identity, method="DELETE", current=current))
        return Response(status=204, headers=headers_of(saved.version, saved.updated)[:1])

    async def patch(self, request: Request, kind: str, identity: str = "") -> Response:
        """Without an id it is conditional (ST-15)."""
        operations = patch_operations(request)

        async def work(connection: AsyncConnection) -> Response:
            target = identity
            if not target:
                found = await self._store.match_one(connection, kind, request.query)
                if found is None:
                    raise not_found("No resource matches the criteria.")
                target = found.id
            return await self._patch(connection, request, kind, target, operations)

        database = self._store.database
        return await (database.write(work) if identity else database.serialize(work))

    async def _patch(
        self, connection: AsyncConnection, request: Request, kind: str, identity: str, operations: object
    ) -> Response:
        current = await self._lock(connection, (kind, identity))
        preconditions.check(request.headers.get("if-match"), None, current)
        if self._store.options.versioned_update:
            preconditions.demand(request.headers.get("if-match"), current)
        if current is None:
            raise not_found()
        if current.deleted:
            raise Fault(410, "deleted", "The resource was deleted.")
        body = await body_of(connection, self._store.datastore, (kind, identity), current.version)
        prepared = apply_patch(self._store, kind, identity, body, operations)
        change = Change(
            type=kind, id=identity, method="PATCH", members=prepared.members, rows=prepared.rows, current=current
        )
        return await self._stored(connection, request, change)

    async def _prepare(self, request: Request, kind: str, identity: str = "") -> Prepared:
        if kind == "Binary" and media_type(request.headers) not in JSON_TYPES:
            return await self._prepare_raw(request, identity)
        if media_type(request.headers) not in JSON_TYPES:
            raise not_supported("The store takes FHIR JSON.", 415)
        if len(request.body) > LARGE_BODY:
            return await asyncio.to_thread(prepare, self._store, kind, request.body)
        return prepare(self._store, kind, request.body)

    async def _prepare_raw(self, request: Request, identity: str) -> Prepared:
        """Little is held; of more the content goes to the database while it comes (ST-62)."""
        first, stream = bytearray(request.body), request.stream
        request = structs.replace(request, stream=None)
        if stream is not None:
            async for part in stream:
                first += part
                if len(first) > MOST_HELD:
                    prepared = prepare(self._store, "Binary", wrapped(structs.replace(request, body=b""), identity))
                    return structs.replace(prepared, upload=await self._uploads.stage(bytes(first), stream))
        return prepare(self._store, "Binary", wrapped(structs.replace(request, body=bytes(first)), identity))

    async def _kept(self, prepared: Prepared, work: Awaitable[Response]) -> Response:
        """Content is dropped whose version was not written."""
        try:
            return await work
        finally:
            if prepared.upload:
                await self._uploads.drop(prepared.upload.id)

    async def _lock(self, connection: AsyncConnection, identity: Identity) -> Current | None:
        return (await lock(connection, self._store.datastore, [identity])).get(identity)

    async def _save(self, connection: AsyncConnection, change: Change) -> Saved:
        return (await self._store.save(connection, [change]))[0]

    async def _stored(
        self, connection: AsyncConnection, request: Request, change: Change, upload: Upload | None = None
    ) -> Response:
        saved = await self._save(connection, change)
        location = self._store.url(saved.type, saved.id, "_history", str(saved.version))
        headers = [*headers_of(saved.version, saved.updated), ("Location", location)]
        status = 201 if saved.created else 200
        body = preferred(request, saved.body or b"")
        if upload is None:
            return Response(status=status, body=body, headers=headers)
        await self._uploads.attach(connection, saved, upload)
        if body != saved.body:
            return Response(status=status, body=body, headers=headers)
        return structs.replace(self._large.written(saved, upload), status=status, headers=headers)

    def _unchanged(self, request: Request, found: Found) -> Response:
        location = self._store.url(found.type, found.id, "_history", str(found.version))
        headers = [*headers_of(found.version, found.updated), ("Location", location)]
        return Response(status=200, body=preferred(request, found.body), headers=headers)


async def body_of(connection: AsyncConnection, datastore: int, identity: Identity, version: int) -> bytes:
    columns = tables.version.c
    query = select(columns.body).where(
        columns.datastore_id == datastore,
        columns.resource_type == identity[0],
        columns.resource_id == identity[1],
        columns.version == version,
    )
    return (await connection.execute(query)).scalar_one()


def patch_operations(request: Request) -> object:
    media = media_type(request.headers)
    operations = decode(request.body)
    if media == JSON_PATCH and isinstance(operations, list):
        return operations
    if media in JSON_TYPES and isinstance(operations, dict):
        return operations
    if media in (JSON_PATCH, *JSON_TYPES):
        raise invalid("A JSON Patch is an array of operations, a FHIRPath Patch a Parameters resource.")
    accepted = (("Accept-Patch", f"{JSON_PATCH}, {FHIR_JSON}"),)
    raise Fault(415, "not-supported", "The store takes JSON Patch and FHIRPath Patch.", headers=accepted)


def preferred(request: Request, body: bytes) -> bytes:
    """`Prefer: return=…` (ST-61)."""
    prefer = request.headers.get("prefer", "")
    if "return=minimal" in prefer:
        return b""
    if "return=OperationOutcome" in prefer:
        return outcome_body([Issue(severity="information", code="informational", diagnostics="Stored.")])
    return body

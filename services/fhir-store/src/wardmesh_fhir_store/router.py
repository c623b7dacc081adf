"""From method and path to an interaction; every answer of the FHIR face passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.binaries import unwrapped, wants_raw
from wardmesh_fhir_store.capability import Capability
from wardmesh_fhir_store.coverage.hooks import ROOT as HOOKS
from wardmesh_fhir_store.coverage.hooks import Hooks
from wardmesh_fhir_store.entries import WITH_RESOURCE, EntryCall, InEntry, call_of, read_bundle
from wardmesh_fhir_store.everything import Everything
from wardmesh_fhir_store.faults import Fault, invalid, not_found, not_supported
from wardmesh_fhir_store.history import History
from wardmesh_fhir_store.jobs.bulk import PATH as BULK
from wardmesh_fhir_store.jobs.bulk import Bulk, BulkPlace
from wardmesh_fhir_store.large_binaries import LargeBinaries
from wardmesh_fhir_store.operations import Operations
from wardmesh_fhir_store.query import pairs_of
from wardmesh_fhir_store.reading import FORM, Reading
from wardmesh_fhir_store.references import ID
from wardmesh_fhir_store.searchset import Entry, bundle
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.transactions import Transactions, entry_of
from wardmesh_fhir_store.wire import Request, Response, fault_response
from wardmesh_fhir_store.writing import JSON_TYPES, LARGE_BODY, Writing, media_type

BESIDE_IDS = frozenset({"_history", "_search"})
SAFE = frozenset({"GET", "HEAD"})
Beside = Callable[[Request, list[str]], Awaitable[Response]]  # what is not FHIR REST, under a name of its own
ACCEPTED = JSON_TYPES | {"*/*", "application/*", "text/*", ""}


def check_accept(request: Request) -> None:
    """`_format` wins over Accept; XML is not spoken here (ST-9, PX-4)."""
    if "_format" in request.query:
        named = [value for name, value in pairs_of(request.query) if name == "_format"]
        if any(value.partition(";")[0].strip().replace(" ", "+").lower() not in JSON_TYPES for value in named):
            raise not_supported("The store answers in FHIR JSON only.", 406)
        return
    accept = request.headers.get("accept", "*/*")
    if all(part.partition(";")[0].strip().lower() not in ACCEPTED for part in accept.split(",")):
        raise not_supported("The store answers in FHIR JSON only.", 406)


def not_allowed(*allowed: str) -> Fault:
    headers = (("Allow", ", ".join(allowed)),)
    return Fault(405, "not-supported", "The method is not offered here.", headers=headers)


class Router:
    """One datastore's FHIR face; without a place for its files there is no $export."""

    def __init__(self, store: Store, bulk: BulkPlace | None = None) -> None:
        self._store = store
        self._reading = Reading(store)
        self._large = LargeBinaries(store)
        self._history = History(store)
        self._everything = Everything(store, self._reading)
        self._writing = Writing(store, self._large)
        self._transactions = Transactions(store, self._read)
        self._bulk = Bulk(store, self._reading, bulk) if bulk else None
        self._operations = Operations(store, self._everything, self._bulk.operations if self._bulk else ())
        self._beside: dict[str, Beside] = {HOOKS: Hooks(store).handle}
        if self._bulk:
            self._beside[BULK] = self._bulk.handle
        self._capability = Capability(store, self._operations)

    async def handle(self, request: Request) -> Response:
        """Raises Fault."""
        parts = [part for part in request.path.split("/") if part]
        if parts and parts[0] in self._beside:
            return await self._beside[parts[0]](request, parts[1:])
        raw = parts[:1] == ["Binary"] and wants_raw(request)
        if not raw:
            check_accept(request)
        if parts[-1:] and parts[-1].startswith("$"):
            return await self._operations.handle(request, parts)
        if request.method in SAFE or parts[-1:] == ["_search"]:
            return await self._look(request, parts, raw=raw)
        if not parts:
            if request.method != "POST":
                raise not_allowed("GET", "HEAD", "POST")
            return await self._bundle(request)
        return await self._write(request, parts)

    async def _look(self, request: Request, parts: list[str], *, raw: bool) -> Response:
        """What changes nothing; one version of one resource takes the shortest way there is."""
        if parts == ["metadata"]:
            return self._capability.answer(request)
        one = len(parts) == 2 and parts[1] not in BESIDE_IDS
        content = parts[:1] == ["Binary"] and (one or (len(parts) == 4 and parts[2] == "_history"))
        if content and (large := await self._large.answer(request, parts, raw=raw)):
            return large
        if one and ID.fullmatch(parts[1]):
            answer = await self._reading.read_current(request, self._store.check_type(parts[0]), parts[1])
        else:
            answer = await self._store.database.read(lambda connection: self._read(connection, request))
        return unwrapped(answer) if raw and content else answer

    async def _read(self, connection: AsyncConnection, request: Request) -> Response:
        parts = [part for part in request.path.split("/") if part]
        if parts[-1:] == ["_search"]:
            if request.method != "POST" and request.method not in SAFE:
                raise not_allowed("POST")
            parts = parts[:-1]
            if len(parts) > 1:
                raise not_found()
        elif request.method not in SAFE:
            raise not_allowed("GET", "HEAD")
        if parts[-1:] == ["_history"] and len(parts) <= 3:
            kind = self._store.check_type(parts[0]) if len(parts) > 1 else ""
            return await self._history.history(connection, request, kind, parts[1] if len(parts) == 3 else "")
        if not parts:
            return await self._reading.search(connection, request, "")
        kind = self._store.check_type(parts[0])
        if len(parts) == 1:
            return await self._reading.search(connection, request, kind)
        return await self._instance(connection, request, kind, parts[1], parts[2:])

    async def _instance(
        self, connection: AsyncConnection, request: Request, kind: str, identity: str, rest: list[str]
    ) -> Response:
        if not ID.fullmatch(identity):
            raise not_found()
        if not rest:
            return await self._reading.read(connection, request, kind, identity)
        if len(rest) == 2 and rest[0] == "_history":
            return await self._reading.read(connection, request, kind, identity, rest[1])
        if len(rest) == 1 and kind in self._store.definitions.compartments:
            if rest[0] != "*":
                self._store.check_type(rest[0])
            return await self._everything.compartment(connection, request, kind, identity, rest[0])
        raise not_found("There is no such operation or compartment.")

    async def _write(self, request: Request, parts: list[str]) -> Response:
        kind = self._store.check_type(parts[0])
        self._store.check_writable()
        if len(parts) == 1:
            return await self._write_type(request, kind)
        identity = parts[1]
        if len(parts) > 2:
            raise not_allowed("GET", "HEAD")
        if not ID.fullmatch(identity):
            raise invalid("The id in the URL is not a FHIR id.")
        if request.method == "PUT":
            return await self._writing.update(request, kind, identity)
        if request.method == "PATCH":
            return await self._writing.patch(request, kind, identity)
        if request.method == "DELETE":
            return await self._writing.delete(request, kind, identity)
        raise not_allowed("GET", "HEAD", "PUT", "PATCH", "DELETE")

    async def _write_type(self, request: Request, kind: str) -> Response:
        if request.method == "POST":
            if media_type(request.headers) == FORM:
                raise not_supported("A search by POST goes to _search.", 415)
            return await self._writing.create(request, kind)
        if request.method == "PUT":
            return await self._writing.conditional_update(request, kind)
        if request.method == "PATCH":
            return await self._writing.patch(request, kind)
        if request.method == "DELETE":
            return await self._writing.conditional_delete(request, kind)
        raise not_allowed("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

    async def _bundle(self, request: Request) -> Response:
        """Batch or transaction."""
        if media_type(request.headers) not in JSON_TYPES:
            raise not_supported("The store takes FHIR JSON.", 415)
        if len(request.body) > LARGE_BODY:
            incoming = await asyncio.to_thread(read_bundle, request.body)
        else:
            incoming = read_bundle(request.body)
        prefer = request.headers.get("prefer", "")
        if incoming.type == "batch":
            entries = [await self._batch_entry(index, entry, prefer) for index, entry in enumerate(incoming.entry)]
            return Response(body=bundle("batch-response", entries))
        if incoming.type != "transaction":
            raise invalid("The FHIR base takes a batch or a transaction.", "Bundle.type")
        calls = [call_of(index, entry, self._store.base) for index, entry in enumerate(incoming.entry)]
        return await self._transaction(calls, representation="return=representation" in prefer)

    async def _transaction(self, calls: Sequence[EntryCall], *, representation: bool) -> Response:
        entries = await self._transactions.run(calls, representation=representation)
        return Response(body=bundle("transaction-response", entries))

    async def _batch_entry(self, index: int, entry: InEntry, prefer: str) -> Entry:
        try:
            call = call_of(index, entry, self._store.base)
            if not call.path:
                raise invalid("A Bundle inside a batch is not carried out.", call.place)
            answer = await self.handle(call.request())
        except Fault as fault:
            return entry_of(fault_response(fault))
        if call.method in WITH_RESOURCE and "return=representation" not in prefer:
            answer.body = b""
        return entry_of(answer)

"""Transactions: every entry in one serializable database transaction, all or nothing (ST-23 to ST-28)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import cast

import msgspec
from msgspec import Raw, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import preconditions
from wardmesh_fhir_store.entries import EntryCall, check_write
from wardmesh_fhir_store.faults import Fault, invalid, not_found, not_supported, precondition_failed
from wardmesh_fhir_store.jsontext import Peek, decode
from wardmesh_fhir_store.moments import instant
from wardmesh_fhir_store.reading import etag
from wardmesh_fhir_store.records import Change, Current, Identity, Saved, lock
from wardmesh_fhir_store.searchset import Entry, EntryResponse
from wardmesh_fhir_store.selecting import Found
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.urns import conditional_references, rewrite
from wardmesh_fhir_store.wire import Request, Response
from wardmesh_fhir_store.writing import JSON_PATCH, LARGE_BODY, Prepared, apply_patch, body_of, prepare

ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}
REASONS = {200: "200 OK", 201: "201 Created", 204: "204 No Content", 304: "304 Not Modified"}
Read = Callable[[AsyncConnection, Request], Awaitable[Response]]
Beside = Callable[[AsyncConnection], Awaitable[None]]


class Step(Struct, frozen=True):
    """A write whose identity is settled; `found` is the match of its criteria."""

    call: EntryCall
    kind: str
    id: str
    found: Found | None = None
    unchanged: bool = False  # conditional create that met its match, or a delete without one
    fresh: bool = False  # id made by us: nothing to lock


async def no_reads(*_: object) -> Response:
    """For Bundles that are loaded from files."""
    raise invalid("A loaded Bundle only writes.")


@contextmanager
def located(call: EntryCall) -> Generator[None]:
    """A refusal inside names the entry."""
    try:
        yield
    except Fault as fault:
        raise fault.inside(call.place) from None


class Transactions:
    """`read` answers GET entries on the transaction's own connection."""

    def __init__(self, store: Store, read: Read) -> None:
        self._store = store
        self._read = read

    async def run(
        self, calls: Sequence[EntryCall], *, representation: bool, beside: Beside | None = None
    ) -> list[Entry]:
        """The response entries in the order of the request; `beside` is done in the same transaction."""
        writes = [call for call in calls if call.method in ORDER]
        for call in writes:
            check_write(call)
            with located(call):
                self._store.check_writable()
                self._store.check_type(call.kind)

        async def work(connection: AsyncConnection) -> list[Entry]:
            if beside is not None:
                await beside(connection)
            steps = await self._settle(connection, writes)
            saved = await self._write(connection, steps)
            answers = {s.call.index: _answer(self._store, s, saved.get((s.kind, s.id)), representation) for s in steps}
            for call in calls:
                if call.method not in ORDER:
                    with located(call):
                        answers[call.index] = entry_of(await self._read(connection, call.request()))
            return [answers[call.index] for call in calls]

        return await self._store.database.serialize(work)

    async def _settle(self, connection: AsyncConnection, writes: list[EntryCall]) -> list[Step]:
        """Identities of all writes in order of effect; matches that this transaction deletes do not count."""
        steps: list[Step] = []
        gone: set[Identity] = set()
        for call in sorted(writes, key=lambda call: ORDER[call.method]):
            with located(call):
                step = await self._step(connection, call, gone)
            if call.method == "DELETE":
                gone.add((step.kind, step.id))
            steps.append(step)
        seen: set[Identity] = set()
        for step in steps:
            if step.unchanged:
                continue
            if (step.kind, step.id) in seen:
                raise invalid("The transaction touches the same resource twice.", step.call.place)
            seen.add((step.kind, step.id))
        return steps

    async def _step(self, connection: AsyncConnection, call: EntryCall, gone: set[Identity]) -> Step:
        kind = call.kind
        if call.method == "POST":
            criteria = call.headers.get("if-none-exist")
            found = await self._match(connection, kind, criteria, gone) if criteria is not None else None
            if found:
                return Step(call, kind, found.id, found, unchanged=True)
            return Step(call, kind, str(uuid.uuid4()), fresh=True)
        if call.id:
            return Step(call, kind, call.id)
        found = await self._match(connection, kind, call.criteria, gone)
        if call.method == "DELETE":
            return Step(call, kind, found.id if found else "", found, unchanged=found is None)
        if call.method == "PATCH":
            if found is None:
                raise not_found("No resource matches the criteria.")
            return Step(call, kind, found.id, found)
        own = _peek(call.body).id
        if found and own not in ("", found.id):
            raise invalid("The criteria match a resource with another id.")
        return Step(call, kind, found.id if found else own or str(uuid.uuid4()), found)

    async def _match(self, connection: AsyncConnection, kind: str, criteria: str, gone: set[Identity]) -> Found | None:
        found = await self._store.match(connection, kind, criteria.partition("?")[2] or criteria)
        left = [one for one in found if (one.type, one.id) not in gone]
        if len(left) > 1:
            raise Fault(412, "multiple-matches", "The criteria match more than one resource.")
        return left[0] if left else None

    async def _write(self, connection: AsyncConnection, steps: list[Step]) -> dict[Identity, Saved]:
        active = [step for step in steps if not step.unchanged]
        addresses = {s.call.full_url: f"{s.kind}/{s.id}" for s in steps if s.call.full_url and s.call.method == "POST"}
        addresses |= {
            s.call.full_url: f"{s.kind}/{s.id}"
            for s in steps
            if s.call.full_url.startswith("urn:") and s.call.method == "PUT"
        }
        addresses |= await self._conditional_targets(connection, active)
        locked = await lock(connection, self._store.datastore, [(s.kind, s.id) for s in active if not s.fresh])
        prepared = await self._prepare(active, addresses)
        changes: list[Change] = []
        for step in active:
            with located(step.call):
                change = await self._change(
                    connection, step, locked.get((step.kind, step.id)), prepared.get(step.call.index)
                )
            if change:
                changes.append(change)
        saved = await self._store.save(connection, changes)
        return {(one.type, one.id): one for one in saved}

    async def _conditional_targets(self, connection: AsyncConnection, steps: list[Step]) -> dict[str, str]:
        """ST-26: each conditional reference needs exactly one match."""
        targets: dict[str, str] = {}
        for step in steps:
            for written, (kind, criteria) in conditional_references(step.call.body).items():
                if written in targets:
                    continue
                with located(step.call):
                    self._store.check_type(kind)
                    found = await self._store.match_one(connection, kind, criteria)
                    if found is None:
                        raise precondition_failed("A conditional reference matches no resource.")
                    targets[written] = f"{kind}/{found.id}"
        return targets

    async def _prepare(self, steps: list[Step], addresses: dict[str, str]) -> dict[int, Prepared]:
        """Rewrite, judge and index every body; large transactions leave the event loop for it."""

        def work() -> dict[int, Prepared]:
            done: dict[int, Prepared] = {}
            for step in steps:
                if step.call.method in ("POST", "PUT"):
                    with located(step.call):
                        body = rewrite(step.call.body, addresses, self._store.definitions.uri_names)
                        done[step.call.index] = prepare(self._store, step.kind, body)
            return done

        size = sum(len(step.call.body) for step in steps)
        return await asyncio.to_thread(work) if size > LARGE_BODY else work()

    async def _change(
        self, connection: AsyncConnection, step: Step, current: Current | None, prepared: Prepared | None
    ) -> Change | None:
        call, headers = step.call, step.call.headers
        preconditions.check(headers.get("if-match"), headers.get("if-none-match"), current)
        if call.method in ("PUT", "PATCH") and self._store.options.versioned_update:
            preconditions.demand(headers.get("if-match"), current)
        if call.method == "DELETE":
            if current is None or current.deleted:
                return None
            return Change(type=step.kind, id=step.id, method="DELETE", current=current)
        if call.method == "PATCH":
            if current is None or current.deleted:
                raise not_found()
            body = await body_of(connection, self._store.datastore, (step.kind, step.id), current.version)
            prepared = apply_patch(self._store, step.kind, step.id, body, _operations(call.body))
        assert prepared is not None
        if call.method == "PUT" and call.id and prepared.id != call.id:
            raise invalid("The id of the resource is missing or differs from the URL.")
        return Change(
            type=step.kind,
            id=step.id,
            method=call.method,
            members=prepared.members,
            rows=prepared.rows,
            current=current,
        )


def _peek(body: bytes) -> Peek:
    try:
        return msgspec.json.decode(body, type=Peek)
    except msgspec.MsgspecError:
        raise invalid("The resource of an entry is not a resource.") from None


def _operations(body: bytes) -> object:
    """A JSON Patch travels in a Bundle as a Binary, a FHIRPath Patch as itself."""
    tree = decode(body)
    if isinstance(tree, dict) and tree.get("resourceType") == "Parameters":
        return cast("dict[str, object]", tree)
    if not isinstance(tree, dict) or tree.get("resourceType") != "Binary":
        raise not_supported("A Bundle carries a JSON Patch as a Binary or a FHIRPath Patch as Parameters.")
    if tree.get("contentType") != JSON_PATCH or not isinstance(tree.get("data"), str):
        raise invalid("The Binary does not hold a JSON Patch.")
    try:
        return decode(base64.b64decode(tree["data"], validate=True))
    except (binascii.Error, ValueError):
        raise invalid("The Binary does not hold a JSON Patch.") from None


def _answer(store: Store, step: Step, saved: Saved | None, representation: bool) -> Entry:
    if saved is None and step.found is None:
        return Entry(response=EntryResponse(status=REASONS[204]))
    if saved is None:
        assert step.found is not None
        version, updated, body, status = step.found.version, step.found.updated, step.found.body, 200
    else:
        version, updated, body = saved.version, saved.updated, saved.body
        status = 204 if body is None else 201 if saved.created else 200
    response = EntryResponse(
        status=REASONS[status],
        location=store.url(step.kind, step.id, "_history", str(version)) if body is not None else "",
        etag=etag(version),
        last_modified=instant(updated),
    )
    if representation and body is not None:
        return Entry(full_url=store.url(step.kind, step.id), resource=Raw(body), response=response)
    return Entry(response=response)


def entry_of(answer: Response) -> Entry:
    """What a request inside a Bundle was answered."""
    headers = {name.lower(): value for name, value in answer.headers}
    response = EntryResponse(
        status=str(answer.status) if answer.status not in REASONS else REASONS[answer.status],
        location=headers.get("location", ""),
        etag=headers.get("etag", ""),
    )
    if not answer.body:
        return Entry(response=response)
    if answer.status >= 400:
        return Entry(response=msgspec.structs.replace(response, outcome=Raw(answer.body)))
    return Entry(resource=Raw(answer.body), response=response)

"""Read, vread and search, on any connection: also inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import asyncpg
from msgspec import Raw
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import Fault, Issue, invalid, not_found, outcome_body
from wardmesh_fhir_store.moments import http_date
from wardmesh_fhir_store.paging import Cursor
from wardmesh_fhir_store.query import Pair, pairs_of, query_of
from wardmesh_fhir_store.searching import Search
from wardmesh_fhir_store.searchset import Entry, EntrySearch, Link, bundle
from wardmesh_fhir_store.selecting import Found, Page, Place
from wardmesh_fhir_store.slicing import view_of
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

FORM = "application/x-www-form-urlencoded"
MATCH, INCLUDE, OUTCOME = EntrySearch("match"), EntrySearch("include"), EntrySearch("outcome")


# Built once: composing a statement costs more than running these two.
READ = """SELECT v.version, v.last_updated, v.body, v.meta_revision FROM fhir_current c JOIN fhir_version v
    USING (datastore_id, resource_type, resource_id, version)
    WHERE c.datastore_id = $1 AND c.resource_type = $2 AND c.resource_id = $3"""
_READ = text(READ.replace("$1", ":datastore").replace("$2", ":type").replace("$3", ":id"))
_VREAD = text(
    """SELECT version, last_updated, body, meta_revision FROM fhir_version
    WHERE datastore_id = :datastore AND resource_type = :type AND resource_id = :id AND version = :version"""
)


def etag(version: int, revision: int = 0) -> str:
    """$meta-add and the like change a version in its place: the revision tells readers (ST-60)."""
    return f'W/"{version}.{revision}"' if revision else f'W/"{version}"'


def headers_of(version: int, updated: datetime, revision: int = 0) -> list[tuple[str, str]]:
    return [("ETag", etag(version, revision)), ("Last-Modified", http_date(updated))]


def unchanged(headers: dict[str, str], version: int, updated: datetime, revision: int = 0) -> bool:
    """If-None-Match decides; If-Modified-Since only without it, and not when the date tells too little (ST-12)."""
    wanted = headers.get("if-none-match")
    if wanted is not None:
        tags = {part.strip().removeprefix("W/") for part in wanted.split(",")}
        return "*" in tags or etag(version, revision).removeprefix("W/") in tags
    since = headers.get("if-modified-since")
    if since is None or revision:
        return False
    try:
        moment = parsedate_to_datetime(since)
    except ValueError:
        return False  # RFC 9110: an unreadable date is ignored
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return updated.replace(microsecond=0) <= moment


def place_of(cursor: Cursor | None) -> Place | None:
    return Place(cursor.after, cursor.back) if cursor else None


class Reading:
    """Interactions that change nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(
        self, connection: AsyncConnection, request: Request, kind: str, identity: str, version: str = ""
    ) -> Response:
        """The current version, or the one that is named; 404 never seen, 410 deleted (ST-5, ST-6)."""
        values: dict[str, object] = {"datastore": self._store.datastore, "type": kind, "id": identity}
        if version:
            values["version"] = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1
        row = (await connection.execute(_VREAD if version else _READ, values)).first()
        return self._answered(request, kind, row)

    async def read_current(self, request: Request, kind: str, identity: str) -> Response:
        """The same outside of any transaction."""
        row = await self._store.database.fetch_row(READ, self._store.datastore, kind, identity)
        return self._answered(request, kind, row)

    def _answered(self, request: Request, kind: str, row: Sequence[Any] | asyncpg.Record | None) -> Response:
        if row is None:
            raise not_found()
        number, updated, body, revision = row
        headers = headers_of(number, updated, revision)
        if body is None:
            raise Fault(410, "deleted", "The resource was deleted.", headers=tuple(headers[:1]))
        if unchanged(request.headers, number, updated, revision):
            return Response(status=304, headers=headers)
        return Response(body=self._sliced(kind, body, request.query), headers=headers)

    def _sliced(self, kind: str, body: bytes, query: str) -> bytes:
        if "_elements" not in query and "_summary" not in query:
            return body
        given = dict(pairs_of(query))
        view = view_of(given.get("_elements", ""), given.get("_summary", ""))
        return self._store.slicer.slice(kind, body, view)

    async def search(self, connection: AsyncConnection, request: Request, kind: str) -> Response:
        """`kind` empty is a search over all types."""
        pairs = self._pairs(request)
        token = next((value for name, value in pairs if name == "_cursor"), "")
        cursor = self._store.sealer.open(token, kind) if token else None
        strict = "handling=strict" in request.headers.get("prefer", "")
        search = await self._read(connection, kind, pairs_of(cursor.query) if cursor else pairs, strict=strict)
        return await self.answer(connection, kind, search, cursor, token)

    async def answer(
        self, connection: AsyncConnection, path: str, search: Search, cursor: Cursor | None, token: str
    ) -> Response:
        """One page of a search that was read; a cursor brings its place and the total along."""
        page = await self._store.selector.page(connection, search, place_of(cursor))
        total = cursor.total if cursor else None
        if search.total and cursor is None:
            counted = search.count == 0 or page.more
            total = await self._store.selector.total(connection, search) if counted else len(page.matches)
        return self._bundle(path, search, page, total, (token, cursor))

    def _pairs(self, request: Request) -> list[Pair]:
        pairs = pairs_of(request.query)
        if request.method == "POST":
            media = request.headers.get("content-type", FORM).partition(";")[0].strip().lower()
            if media != FORM:
                raise Fault(415, "not-supported", "A search by POST is a form.")
            try:
                pairs += pairs_of(request.body.decode("ascii"))
            except UnicodeDecodeError:
                raise invalid("The form is not URL-encoded.") from None
        return pairs

    async def _read(self, connection: AsyncConnection, kind: str, pairs: list[Pair], *, strict: bool) -> Search:
        kinds = (kind,) if kind else ()
        if not kind:
            named = [part for name, value in pairs if name == "_type" for part in value.split(",")]
            if any(name not in self._store.definitions.resource_types for name in named):
                raise invalid("_type names an unknown type.")
            kinds = tuple(dict.fromkeys(named))
        searches = await self._store.searches_for(connection, pairs)
        return searches.read(kinds, pairs, strict=strict, system=not kind)

    def _bundle(
        self, path: str, search: Search, page: Page, total: int | None, asked: tuple[str, Cursor | None]
    ) -> Response:
        url = self._store.url(path) if path else self._store.base
        query = query_of(search.applied)
        first = f"{url}?{query}" if query else url
        links = [Link("self", f"{url}?_cursor={asked[0]}" if asked[0] else first)]
        following = self.neighbours(path, query, page, total, asked[1])
        links += [Link("first", first), *following] if following else []
        entries = [self.entry(found, search, MATCH) for found in page.matches]
        entries += [self.entry(found, search, INCLUDE) for found in page.included]
        if search.unknown:
            note = "Search parameters that are not known here were ignored; the self link shows what was applied."
            issue = Issue(severity="warning", code="not-supported", diagnostics=note)
            entries.append(Entry(resource=Raw(outcome_body([issue])), search=OUTCOME))
        return Response(body=bundle("searchset", entries, links=links, total=total))

    def neighbours(self, path: str, query: str, page: Page, total: int | None, cursor: Cursor | None) -> list[Link]:
        """`next` and `previous` where there is something (ST-51)."""
        back = cursor is not None and cursor.back
        links: list[Link] = []
        for relation, there in (
            ("next", page.more or back),
            ("previous", page.more if back else cursor is not None),
        ):
            if there and page.matches:
                edge = page.matches[0 if relation == "previous" else -1].after
                token = self._store.sealer.issue(path, query, list(edge), total, back=relation == "previous")
                links.append(Link(relation, f"{self._store.url(path) if path else self._store.base}?_cursor={token}"))
        return links

    def entry(self, found: Found, search: Search, mode: EntrySearch) -> Entry:
        body = self._store.slicer.slice(found.type, found.body, search.view)
        return Entry(full_url=self._store.url(found.type, found.id), resource=Raw(body), search=mode)

"""The performer `audit`: one procedure per kind of question to the ledger, recorded before anything leaves (AU-605)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import msgspec

from wardmesh_audit import gaps
from wardmesh_audit.api_holds import Holds
from wardmesh_audit.api_office import Office
from wardmesh_audit.api_reports import Reports
from wardmesh_audit.following import Following
from wardmesh_audit.growth import Growth
from wardmesh_audit.log_files import checkpoint, entry_bundle, hash_tile, log_list, tile_of
from wardmesh_audit.overview import Check, overview
from wardmesh_audit.prove import NotThere, prove
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.query import Page, line_of, page_of
from wardmesh_audit.query_args import (
    EventArgs,
    EventsArgs,
    Filters,
    FollowArgs,
    ListArgs,
    LogArgs,
    Nothing,
    arguments,
)
from wardmesh_common.assertion import assert_pair
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.errors import BadRequest, NotFound, Unavailable
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import Principal

JSON = "application/json"
_OWN_RECORDS = 10

Procedure = Callable[[Principal, bytes], Awaitable[Outcome]]


class Api:
    """Handler of `call.perform.audit`."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        growth: Growth,
        pseudonyms: Pseudonyms,
        office: Office,
        holds: Holds,
        checks: Mapping[str, Check],
    ) -> None:
        self._pool = pool
        self._following = Following(pool, growth)
        self._pseudonyms = pseudonyms
        self._checks = checks
        reports = Reports(pool, pseudonyms)
        self._procedures: dict[str, Procedure] = {
            "read_events": self.read_events,
            "follow_events": self.follow_events,
            "read_event": self.read_event,
            "open_event": self.open_event,
            "prove_event": self.prove_event,
            "own_records": self.own_records,
            "read_checkpoint": self.read_checkpoint,
            "read_log_list": self.read_log_list,
            "read_tile": self.read_tile,
            "read_entries": self.read_entries,
            "read_status": self.read_status,
            "read_gaps": self.read_gaps,
            **reports.procedures(),
        }
        self._office = {**office.procedures(), **holds.procedures()}

    async def perform(self, call: Call, hop: Hop) -> Outcome:
        principal, _ = assert_pair(call)
        body = await hop.body() if (call.body or call.parked) else b""
        try:
            if call.tool in self._office:
                return await self._office[call.tool](principal, body, call)
            if call.tool in self._procedures:
                return await self._procedures[call.tool](principal, body)
        except (TimeoutError, asyncpg.QueryCanceledError):
            raise Unavailable("The ledger takes too long for this; narrow the period.") from None
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            raise Unavailable("The ledger cannot be reached.", retry_after=1) from None
        raise BadRequest("There is no such audit query.")

    # --- events ---

    async def read_events(self, principal: Principal, body: bytes) -> Outcome:
        args = arguments(body, EventsArgs)
        patient, known = await self._patient(principal, args)
        async with self._pool.acquire() as conn:
            page = await page_of(conn, args, principal.tenant, patient) if known else Page(events=[], next="")
        return _answer({"events": page.events, "next": page.next}, _read(args.patient, len(page.events)))

    async def follow_events(self, principal: Principal, body: bytes) -> Outcome:
        """Events after the cursor; when there are none yet, those that come while the caller waits."""
        args = arguments(body, FollowArgs)
        patient, known = await self._patient(principal, args)
        followed = await self._following.follow(args, principal.tenant, patient, known=known)
        return _answer(followed, _read(args.patient, len(followed.events)))

    async def read_event(self, principal: Principal, body: bytes) -> Outcome:
        return _answer(line_of(await self._event(principal, body)), _read("", 1))

    async def open_event(self, principal: Principal, body: bytes) -> Outcome:
        """The event with what is sealed in it; policy gives this right to nobody but compliance."""
        row = await self._event(principal, body)
        opened = await self._pseudonyms.open(row["leaf"])
        touched = Touched(patient=str((opened or {}).get("patient", "")), type="AuditEvent", count=1)
        return _answer({"line": line_of(row), "sealed": opened}, (touched,))

    async def prove_event(self, principal: Principal, body: bytes) -> Outcome:
        row = await self._event(principal, body)
        async with self._pool.acquire() as conn:
            try:
                proof = await prove(conn, row["event_id"], log_id=row["log_id"])
            except NotThere as error:
                raise NotFound(f"{str(error).capitalize()}.") from None
        return Outcome(
            status=200, body=proof.text().encode(), media_type="text/plain; charset=utf-8", touched=_read("", 1)
        )

    async def own_records(self, principal: Principal, body: bytes) -> Outcome:
        """The caller's ten newest (SH-11)."""
        arguments(body, Nothing)
        async with self._pool.acquire() as conn:
            rows = await conn.fetch(
                "select event_id, action, resource_type, occurred_at, actor_id, leaf from event"
                " where actor_id = $1 and event_type <> 'malformed' order by occurred_at desc limit $2",
                principal.id,
                _OWN_RECORDS,
            )
        return _answer({"items": [_own(row) for row in rows]}, _read("", len(rows)))

    # --- files of the log, status ---

    async def read_checkpoint(self, _principal: Principal, body: bytes) -> Outcome:
        args = arguments(body, LogArgs)
        async with self._pool.acquire() as conn:
            note = await checkpoint(conn, args.log)
        return Outcome(status=200, body=note.encode(), media_type="text/plain; charset=utf-8")

    async def read_log_list(self, _principal: Principal, body: bytes) -> Outcome:
        args = arguments(body, ListArgs)
        async with self._pool.acquire() as conn:
            note = await log_list(conn, args.day)
        return Outcome(status=200, body=note.encode(), media_type="text/plain; charset=utf-8")

    async def read_tile(self, _principal: Principal, body: bytes) -> Outcome:
        args = arguments(body, LogArgs)
        tile, entries = tile_of(args.path)
        if entries:
            raise NotFound("There is no such file in a log.")
        async with self._pool.acquire() as conn:
            data = await hash_tile(conn, args.log, tile)
        return Outcome(status=200, body=data, media_type="application/octet-stream")

    async def read_entries(self, principal: Principal, body: bytes) -> Outcome:
        """Whole leaves of everybody's: only for those whose tenant is the deployment itself."""
        args = arguments(body, LogArgs)
        tile, entries = tile_of(args.path)
        if not entries or principal.tenant != "default":
            raise NotFound("There is no such file in a log.")
        async with self._pool.acquire() as conn:
            data = await entry_bundle(conn, args.log, tile)
        headers = {"content-encoding": "gzip"}
        media = "application/octet-stream"
        return Outcome(status=200, body=data, media_type=media, headers=headers, touched=_read("", tile.width))

    async def read_status(self, _principal: Principal, body: bytes) -> Outcome:
        arguments(body, Nothing)
        async with self._pool.acquire() as conn:
            return _answer(await overview(conn, self._checks))

    async def read_gaps(self, _principal: Principal, body: bytes) -> Outcome:
        arguments(body, Nothing)
        async with self._pool.acquire() as conn:
            return _answer({"gaps": await gaps.find(conn)})

    # --- shared ---

    async def _patient(self, principal: Principal, args: Filters) -> tuple[bytes | None, bool]:
        """The pseudonym to filter by, and False when a patient was named whom the ledger does not know."""
        if not args.patient:
            return None, True
        found = await self._pseudonyms.find(principal.tenant, args.patient)
        return found, found is not None

    async def _event(self, principal: Principal, body: bytes) -> asyncpg.Record:
        try:
            event_id = uuid.UUID(arguments(body, EventArgs).id)
        except ValueError:
            raise BadRequest("Invalid id: a UUID.") from None
        row = await self._pool.fetchrow(
            "select * from event where event_id = $1 and coalesce(tenant, 'default') = $2", event_id, principal.tenant
        )
        if row is None:
            raise NotFound("There is no such event.")
        return row


def _own(row: asyncpg.Record) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(row["leaf"])["data"]
    actor: dict[str, Any] = data.get("actor") or {}
    return {
        "id": str(row["event_id"]),
        "action": (data.get("request") or {}).get("route") or row["action"],
        "table_name": row["resource_type"] or "",
        "timestamp": row["occurred_at"].isoformat(),
        "user_id": row["actor_id"],
        "ip_address": (actor.get("on_behalf_of") or actor).get("ip", ""),
    }


def _answer(body: Any, touched: tuple[Touched, ...] = ()) -> Outcome:
    return Outcome(status=200, body=msgspec.json.encode(body), media_type=JSON, touched=touched)


def _read(patient: str, count: int) -> tuple[Touched, ...]:
    """What the record of this reading says: about whom, and how many events left."""
    return (Touched(patient=patient, type="AuditEvent", count=count),)

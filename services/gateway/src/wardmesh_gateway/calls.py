"""The one door (AR-1): every face describes what it wants, this builds the Call and submits it; nothing else does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Entry, Outcome, Reply, View
from wardmesh_common.errors import Busy, InsufficientScope, Unauthenticated, WardmeshError
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Face, Interaction, Resource, is_write
from wardmesh_gateway.caller import Visit, principal_of
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.problem import unconfigured_platform, unknown_platform
from wardmesh_gateway.rules import check_platform, is_platform_id

_traceparent = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch

SCOPE_READ = "fhir.read"
SCOPE_WRITE = "fhir.write"
SCOPE_AUDIT = "audit.read"
SCOPE_AUDIT_MANAGE = "audit.manage"
SCOPES = frozenset({SCOPE_READ, SCOPE_WRITE, SCOPE_AUDIT, SCOPE_AUDIT_MANAGE})


class Wanted(Struct, frozen=True, kw_only=True):
    """What a caller wants done, independent of the face it came through."""

    tool: str
    interaction: Interaction
    type: str = ""
    id: str = ""
    version: str = ""
    operation: str = ""
    query: str = ""
    body: bytes = b""
    media_type: str = ""
    headers: dict[str, str] = {}
    entries: tuple[Entry, ...] = ()
    view: View = View()
    performer: str = "fhir"
    scope: str = ""  # "" = by the interaction: fhir.read or fhir.write
    anyone: bool = False  # travels without an identity too: auth and policy say what comes of it

    @property
    def writes(self) -> bool:
        return is_write(self.interaction, self.operation)


class Delivers(Protocol):
    """wardmesh_common.submission.Delivery: a reply whose body may still be on its way."""

    reply: Reply

    async def body(self) -> bytes: ...

    def stream(self) -> AsyncGenerator[bytes, None]: ...

    def decline(self) -> None: ...


class Submits(Protocol):
    """The part of the bus that the door needs."""

    async def submit(self, call: Call, body: bytes | None = None) -> Delivers: ...


class Records(Protocol):
    async def outcome(self, call: Call, outcome: Outcome) -> None: ...


class Door:
    """Resolves the platform, refuses who may not come in at all, builds the Call, submits it."""

    def __init__(
        self,
        bus: Submits,
        recorder: Records,
        platforms: Platforms,
        *,
        public_url: str,
        deadline_seconds: float,
        anonymous_open: bool,
        max_in_flight: int,
        sessions: KnownSessions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._recorder = recorder
        self._platforms = platforms
        self._bases = {
            Face.REST: f"{public_url}/api/fhir/",
            Face.MCP: f"{public_url}/api/fhir/",
            Face.FHIR: f"{public_url}/fhir/",
        }
        self._deadline_seconds = deadline_seconds
        self._anonymous_open = anonymous_open
        self._max_in_flight = max_in_flight
        self._sessions = sessions
        self._in_flight = 0
        self._clock = clock

    def platform(self, name: str, face: Face) -> PlatformFacts:
        """The platform that will answer for `name`. Raises PlatformUnknown, BadRequest, PlatformUnconfigured."""
        return self.answering(self.named(name, face), face)

    def answering(self, facts: PlatformFacts, face: Face) -> PlatformFacts:
        """This platform or, while it has no address, its stand-in (FG-27). Raises PlatformUnconfigured."""
        if facts.callable:
            return facts
        stand_in = self._platforms.snapshot.by_id(facts.served_by) if facts.served_by else None
        if stand_in is None or not stand_in.fhir_base_url:
            raise unconfigured_platform(facts.id, face)
        return stand_in

    def named(self, name: str, face: Face) -> PlatformFacts:
        """The platform of this name or alias, whether it has an address or not. Raises PlatformUnknown, BadRequest."""
        facts = self._platforms.snapshot.find(name)
        if facts is None:
            if not is_platform_id(name):
                check_platform(name)
            raise unknown_platform(name, face)
        return facts

    def signs_in(self, name: str, face: Face) -> PlatformFacts:
        """Where somebody signs in who asks for `name`: a stand-in answers under its own sign-in (FG-27)."""
        facts = self.named(name, face)
        if facts.callable or not facts.served_by:
            return facts
        return self._platforms.snapshot.by_id(facts.served_by) or facts

    def admit(self, visit: Visit, facts: PlatformFacts, *, writes: bool) -> None:
        """Nobody unknown comes in, except to read an open platform (FG-39, X-44)."""
        if visit.anonymous and (writes or not facts.open or not self._anonymous_open):
            raise Unauthenticated("Authentication required.", scope=SCOPE_WRITE if writes else SCOPE_READ)

    async def submit(
        self, wanted: Wanted, facts: PlatformFacts, visit: Visit, face: Face, *, traceparent: str = ""
    ) -> Delivers:
        """Send it on its journey. Raises what ended it before a station could reply."""
        if not wanted.anyone:
            self.admit(visit, facts, writes=wanted.writes)
        return await self._journey(self._call(wanted, facts.id, visit, face, traceparent), wanted, visit)

    async def proceed(
        self, wanted: Wanted, platform: str, visit: Visit, face: Face, *, traceparent: str = ""
    ) -> Delivers:
        """The same for an operation of ours: sign-in, audit. `platform` is "" where none is concerned."""
        if visit.anonymous and not wanted.anyone:
            raise Unauthenticated("Authentication required.", scope=wanted.scope or SCOPE_READ)
        return await self._journey(self._call(wanted, platform, visit, face, traceparent), wanted, visit)

    async def _journey(self, call: Call, wanted: Wanted, visit: Visit) -> Delivers:
        try:
            return await self._submit(call, wanted, visit)
        except WardmeshError as error:
            error.call_id = call.id
            raise

    async def _submit(self, call: Call, wanted: Wanted, visit: Visit) -> Delivers:
        lacking = lacking_scope(visit, wanted)
        if lacking is not None:
            await self._refuse(call, visit, lacking)
        if self._in_flight >= self._max_in_flight:
            # Waiting here would only use up the time that the call has (NB-5).
            await self._refuse(call, visit, Busy("The gateway is at its limit.", retry_after=1))
        self._in_flight += 1
        try:
            delivery = await self._bus.submit(call, wanted.body or None)
        finally:
            self._in_flight -= 1
        # What anyone may do is answered to a cookie that nobody issued as well: that vouches for nothing.
        vouched = not wanted.anyone and delivery.reply.status != Unauthenticated.status and delivery.reply.status < 500
        if visit.caller.cookie and vouched:
            self._sessions.remember(visit.caller.cookie)
        return delivery

    def _call(self, wanted: Wanted, platform: str, visit: Visit, face: Face, traceparent: str) -> Call:
        now = self._clock()
        call_id = os.urandom(16).hex()
        if not traceparent or not _traceparent(traceparent):
            # A caller without a trace gets one that is named like its call.
            traceparent = f"00-{call_id}-{call_id[:16]}-01"
        # Where a write says that a version is stored lies on the FHIR face: REST has no history.
        links = Face.FHIR if face is Face.REST and wanted.writes else face
        return Call(
            id=call_id,
            reply_to="",
            face=face,
            tool=wanted.tool,
            interaction=wanted.interaction,
            performer=wanted.performer,
            platform=platform,
            deadline=now + self._deadline_seconds,
            received_at=now,
            resource=Resource(type=wanted.type, id=wanted.id, version=wanted.version),
            operation=wanted.operation,
            query=wanted.query,
            media_type=wanted.media_type,
            headers=wanted.headers,
            entries=wanted.entries,
            view=wanted.view,
            base_url=self._bases[links] + platform,
            caller=visit.caller,
            traceparent=traceparent,
        )

    async def _refuse(self, call: Call, visit: Visit, error: WardmeshError) -> None:
        """A refusal of ours is recorded like any other (AR-3); without a record it becomes audit_unavailable."""
        call.caller = msgspec.structs.replace(visit.caller, bearer="", cookie="", handle="", emergency="")
        if visit.token is not None:
            call.principal = principal_of(visit.token, visit.caller.agent)
        await self._recorder.outcome(call, Outcome(status=error.problem.status, problem=error.problem))
        raise error


def lacking_scope(visit: Visit, wanted: Wanted) -> InsufficientScope | None:
    """A token says itself what it is good for; sessions and anonymous callers are judged by the stations."""
    if visit.token is None or wanted.anyone:
        return None
    needed = wanted.scope or (SCOPE_WRITE if wanted.writes else SCOPE_READ)
    if needed in visit.token.scopes:
        return None
    return InsufficientScope(
        f"Insufficient scope: {needed} is needed for this.",
        scope=" ".join(sorted({*visit.token.scopes, needed} & SCOPES)),
    )

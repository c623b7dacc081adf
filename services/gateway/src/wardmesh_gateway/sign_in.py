"""Sign-in as the faces share it: which platform is meant, starting, waiting in slices, status and revocation."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest, TimedOut, Unavailable, WardmeshError
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.calls import Door
from wardmesh_gateway.procedures import Procedures

PERFORMER = "auth"
# Shorter than the time a stopping gateway has, so that a rolling restart cuts no wait off.
SLICE_SECONDS = 10
# Where the contract leaves the choice no call lasts longer: clients give up after 60 seconds (mcp.md §6).
OWN_CHOICE_SECONDS = 50
# An auth replica may be replaced while somebody waits.
PATIENCE = 5
_LEAST_SECONDS = 0.5
_PENDING = "The sign-in has not been finished yet. Call wait_for_auth again."

Json = dict[str, Any]


class NoOAuth(BadRequest):
    """This platform has no sign-in."""

    code = "oauth_not_configured"


class SignIn:
    """The procedures of auth, for tools and for browsers."""

    def __init__(self, door: Door, procedures: Procedures, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._procedures = procedures
        self._clock = clock
        self._closing = False

    def close(self) -> None:
        """The process is about to stop: whoever waits is told to ask again."""
        self._closing = True

    def platform(self, name: str, face: Face) -> PlatformFacts:
        """Where somebody signs in who asks for `name`. Raises PlatformUnknown, BadRequest, NoOAuth."""
        facts = self._door.signs_in(name, Face.MCP)
        if not facts.has_oauth:
            text = "does not have OAuth configured" if face is Face.MCP else "does not support OAuth authentication"
            raise NoOAuth(f"Platform '{facts.id}' {text}")
        return facts

    def reached(self, name: str) -> PlatformFacts:
        """The platform that answers for `name`. Raises PlatformUnknown, BadRequest, PlatformUnconfigured."""
        return self._door.platform(name, Face.REST)

    async def run(
        self,
        name: str,
        arguments: Mapping[str, Any],
        visit: Visit,
        face: Face,
        *,
        anyone: bool = False,
        traceparent: str = "",
    ) -> Answered:
        """One procedure. Raises the Problem of a refusal."""
        return await self._procedures.run(
            PERFORMER, name, arguments, visit, face, anyone=anyone, traceparent=traceparent
        )

    async def revoke(self, platform: str, visit: Visit, traceparent: str) -> tuple[Json, str]:
        """What auth says of the end of a connection, and the id of its record."""
        answered = await self.run("revoke_auth", {"platform_id": platform}, visit, Face.REST, traceparent=traceparent)
        return msgspec.json.decode(answered.body, type=dict[str, Any]), answered.call_id

    async def wait(
        self, platform: str, seconds: float, visit: Visit, face: Face, traceparent: str = ""
    ) -> tuple[Json, Answered]:
        """What auth says when the sign-in is done, or last said when time is up: then `pending` is true."""
        until = self._clock() + seconds
        failures = 0
        while True:
            begun = self._clock()
            slice_seconds = max(1, min(SLICE_SECONDS, math.ceil(until - begun)))
            arguments = {"platform_id": platform, "timeout": slice_seconds}
            try:
                answered = await self.run("wait_for_auth", arguments, visit, face, traceparent=traceparent)
                said = msgspec.json.decode(answered.body, type=dict[str, Any])
                failures = 0
            except (Unavailable, TimedOut) as error:
                failures += 1
                if failures >= PATIENCE or self._clock() >= until:
                    raise
                said, answered = _not_yet(platform, error)
            if said.get("success") or self._clock() >= until or self._closing:
                return said, answered
            # An answer that came too quickly must not turn this into a loop that never rests.
            await asyncio.sleep(max(0.0, _LEAST_SECONDS - (self._clock() - begun)))

    async def wait_for_tool(
        self, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str = ""
    ) -> Answered:
        """`wait_for_auth` as the tool answers it: done, pending where the time was ours to choose, or `timeout`."""
        platform: str = arguments["platform_id"]
        asked = arguments.get("timeout")
        said, answered = await self.wait(platform, asked or OWN_CHOICE_SECONDS, visit, face, traceparent)
        if said.get("success"):
            return answered
        if asked is not None and not self._closing:
            raise TimedOut("The sign-in was not finished in time. Call wait_for_auth again to go on waiting.")
        pending = {"success": False, "pending": True, "platform_id": platform, "message": _PENDING}
        return Answered(body=msgspec.json.encode(pending), call_id=answered.call_id, platform=platform)


def _not_yet(platform: str, error: WardmeshError) -> tuple[Json, Answered]:
    said: Json = {"success": False, "pending": True}
    return said, Answered(body=msgspec.json.encode(said), call_id=error.call_id, platform=platform)

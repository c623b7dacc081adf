"""What the gateway refuses before there is a call: recorded all the same, but so that nobody can flood the ledger.

The first refusal of a kind from an address is recorded at once, the rest of its minute as one record with a count.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Caller, Outcome, Touched
from wardmesh_common.errors import Problem, WardmeshError
from wardmesh_common.happening import happening
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway.calls import Records
from wardmesh_gateway.ratelimit import address_key

WINDOW_SECONDS = 60.0
# So many address and event pairs are told apart at a time; further ones share a record per event.
MAX_OPEN = 256

_log = logging.getLogger("wardmesh.gateway")


class _Refused(Struct):
    """One kind of refusal of one address since its first record."""

    event: str
    problem: Problem
    caller: Caller
    face: Face
    more: int = 0


class SecurityRecords:
    """`note` never waits; records are written beside the answer."""

    def __init__(
        self,
        records: Records,
        *,
        window_seconds: float = WINDOW_SECONDS,
        max_open: int = MAX_OPEN,
    ) -> None:
        self._records = records
        self._window = window_seconds
        self._max_open = max_open
        self._open: dict[tuple[str, str], _Refused] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, event: str, problem: Problem, caller: Caller, face: Face) -> None:
        """A refusal happened. Credentials of `caller` go nowhere."""
        caller = Caller(ip=caller.ip, user_agent=caller.user_agent, agent=caller.agent)
        key = (event, address_key(caller.ip))
        if key not in self._open and len(self._open) >= self._max_open:
            key, caller = (event, ""), Caller()
        held = self._open.get(key)
        if held is not None:
            held.more += 1
            return
        self._open[key] = _Refused(event, problem, caller, face)
        self._timers[key] = asyncio.get_running_loop().call_later(self._window, self._end, key)
        self._write(self._open[key], 1)

    async def close(self) -> None:
        """Write what has only been counted so far."""
        for key in tuple(self._open):
            self._timers[key].cancel()
            self._end(key)
        if self._writing:
            await asyncio.wait(tuple(self._writing))

    def _end(self, key: tuple[str, str]) -> None:
        self._timers.pop(key)
        held = self._open.pop(key)
        if held.more:
            self._write(held, held.more)

    def _write(self, held: _Refused, count: int) -> None:
        task = asyncio.create_task(self._record(msgspec.structs.replace(held), count), name="security record")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _record(self, refused: _Refused, count: int) -> None:
        about_identity = refused.event.startswith("security.")
        call = happening(
            refused.event,
            # What is about who somebody is belongs to the records of signing in.
            performer="auth" if about_identity else "fhir",
            interaction=Interaction.OPERATION if about_identity else Interaction.READ,
            face=refused.face,
            caller=refused.caller,
        )
        outcome = Outcome(
            status=refused.problem.status,
            problem=refused.problem,
            event=refused.event,
            touched=(Touched(count=count),),
        )
        try:
            await self._records.outcome(call, outcome)
        except WardmeshError as error:
            _log.warning("a refusal was not recorded: %s", error.problem.code)


_validation = frozenset({400, 405, 406, 413, 415, 422})


def event_of(problem: Problem, *, credential: bool) -> str:
    """The word of FG-19 for a refusal of ours, or the empty string for what is nobody's doing."""
    if problem.status == 401:
        return "security.invalid_token" if credential else "error.resource_access"
    if problem.status == 429:
        return "security.rate_limit"
    if problem.code == "csrf_violation":
        return "security.csrf_violation"
    if problem.code in ("platform_not_found", "platform_not_configured", "oauth_not_configured"):
        return "error.platform"
    return "error.validation" if problem.status in _validation else ""

"""A stage for decisions: a real Cerbos behind CerbosClient and Decider, a catalogue of our own, callers by role."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import wardmesh_policy
from wardmesh_common.contracts import Call, Entry
from wardmesh_common.errors import PlatformUnknown
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Decision, Face, Grant, Interaction, Principal, Resource
from wardmesh_policy.bundle import version_of
from wardmesh_policy.cache import VerdictCache
from wardmesh_policy.cerbos_client import CerbosClient
from wardmesh_policy.checks import Caller, Check
from wardmesh_policy.decider import Decider
from wardmesh_policy.verdicts import Verdict

POLICIES = Path(wardmesh_policy.__file__).parent / "policies"
OWN, OTHER = "own-1", "other-2"
PLATFORMS = {
    platform.id: platform
    for platform in (
        PlatformFacts(id="store", name="Store", type="sandbox", writes=True),
        PlatformFacts(id="closed", name="Closed", type="ehr"),
        PlatformFacts(id="open", name="Open", type="sandbox", open=True),
        PlatformFacts(id="open-writes", name="Open", type="sandbox", open=True, writes=True),
        PlatformFacts(id="ehr", name="EHR", type="ehr", auth_method="authorization_code", writes=True),
    )
}
ACTIONS = {
    "read": Interaction.READ,
    "search": Interaction.SEARCH,
    "create": Interaction.CREATE,
    "update": Interaction.UPDATE,
    "delete": Interaction.DELETE,
}


class Counting:
    """Passes questions on and counts them."""

    def __init__(self, cerbos: Any) -> None:
        self._cerbos = cerbos
        self.requests = 0
        self.resources = 0
        self.kinds: set[str] = set()

    async def ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]:
        self.requests += 1
        self.resources += len(checks)
        self.kinds |= {check.kind for check, _ in checks}
        return await self._cerbos.ask(caller, checks, timeout_seconds)


class Judge:
    """Asks for decisions the way the station does."""

    def __init__(self, client: Any, folder: Path = POLICIES, version: Callable[[], str] | None = None) -> None:
        self.cerbos = Counting(client)
        self.version = version_of(folder)
        self.cache = VerdictCache()
        home = frozenset({"store"})
        self.decider = Decider(self.cerbos, self.cache, PLATFORMS.get, version or (lambda: self.version), 1.0, home)

    async def ask(self, roles: str | tuple[str, ...], action: str, kind: str, **more: Any) -> Decision:
        """`roles` as words; `action` of the matrix, or an interaction."""
        return await self.decide(caller(roles, **more.pop("who", {})), call_of(action, kind, **more))

    async def decide(self, principal: Principal, call: Call, remaining: float = 5.0) -> Decision:
        call.principal = principal
        return await self.decider.decide(call, remaining)


def caller(roles: str | tuple[str, ...], **more: Any) -> Principal:
    names = tuple(roles.split()) if isinstance(roles, str) else roles
    given = {"id": "i:somebody", "patient": OWN, "practitioner": OWN} | more
    return Principal(roles=names, **given)


def call_of(
    action: str,
    kind: str,
    resource_id: str = "",
    *,
    subject: str = "",
    platform: str = "store",
    grant: Grant | None = None,
    **more: Any,
) -> Call:
    body = json.dumps({"resourceType": kind, "subject": {"reference": f"Patient/{subject}"}}) if subject else ""
    given: dict[str, Any] = {"body": body.encode()} | more
    return Call(
        id=uuid.uuid4().hex,
        reply_to="",
        face=Face.REST,
        tool=action,
        interaction=ACTIONS.get(action) or Interaction(action),
        platform=platform,
        deadline=time.time() + 10,
        resource=Resource(type=kind, id=resource_id),
        grant=grant,
        **given,
    )


def bundle_of(kind: str, *entries: tuple[str, str] | tuple[str, str, str], **more: Any) -> Call:
    made = tuple(Entry(method=e[0], url=e[1], if_none_exist=e[2] if len(e) > 2 else "") for e in entries)
    return call_of(kind, "", entries=made, **more)


@asynccontextmanager
async def judging(
    target: str, folder: Path = POLICIES, version: Callable[[], str] | None = None
) -> AsyncIterator[Judge]:
    client = CerbosClient(target)
    try:
        yield Judge(client, folder, version)
    finally:
        await client.close()


__all__ = ["POLICIES", "Judge", "PlatformUnknown", "bundle_of", "call_of", "caller", "judging"]

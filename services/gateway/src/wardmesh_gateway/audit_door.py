"""Questions to the ledger as calls: a name, arguments and, where one patient is concerned, whom policy has to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway.asgi import Request
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.calls import SCOPE_AUDIT, SCOPE_AUDIT_MANAGE, SCOPE_READ, Delivers, Door, Wanted
from wardmesh_gateway.problem import of_reply
from wardmesh_gateway.rules import check_id

# What needs more than the right to read: each leaves something behind, or takes whole leaves away.
MANAGING = frozenset(
    {"place_hold", "release_hold", "close_review", "suspend_disclosures", "read_entries"}
    | {"open_event", "open_disclosures"}
)


class Asked(Struct, frozen=True, kw_only=True):
    """One question. `patient` is an id on `platform`; the record seals it, policy compares it with the caller's own."""

    tool: str
    arguments: Mapping[str, Any]
    platform: str = ""
    patient: str = ""
    query: str = ""  # as it was asked, for the record
    own: bool = False  # about the asker himself: no scope of the ledger is needed


class AuditDoor:
    """Every reading of the ledger goes through here, and so through identity, policy and its record (AU-605)."""

    def __init__(self, door: Door, *, home_platform: str) -> None:
        self._door = door
        self._home = home_platform

    def about(self, patient: str, platform: str) -> tuple[str, str, str]:
        """Platform id, patient id, and the reference that the ledger knows. Raises BadRequest, PlatformUnknown."""
        facts = self._door.named(platform or self._home, Face.REST)
        check_id(patient, "patient id")
        return facts.id, patient, f"{facts.id}/Patient/{patient}"

    async def ask(self, asked: Asked, request: Request, visit: Visit) -> Delivers:
        """The answer, which may still be on its way. Raises the Problem of a refusal."""
        wanted = Wanted(
            tool=asked.tool,
            interaction=Interaction.OPERATION,
            performer="audit",
            type="Patient" if asked.patient else "",
            id=asked.patient,
            query=asked.query,
            body=msgspec.json.encode(asked.arguments),
            media_type="application/json",
            scope=_scope(asked, visit, self._home),
        )
        trace = request.header(b"traceparent")
        delivery = await self._door.proceed(wanted, asked.platform, visit, Face.REST, traceparent=trace)
        reply = delivery.reply
        if reply.problem is not None or reply.status >= 400:
            body = await delivery.body()
            problem = of_reply(reply, body)
            assert problem is not None, "an answer of 400 or more says what went wrong"
            raise Refused(msgspec.structs.replace(problem, station=reply.station), reply.call_id)
        return delivery

    async def answer(self, asked: Asked, request: Request, visit: Visit) -> bytes:
        """The whole answer at once, for pages."""
        return await (await self.ask(asked, request, visit)).body()


def _scope(asked: Asked, visit: Visit, home: str) -> str:
    """What a token must say. For one's own trail and report it needs nothing of the ledger."""
    mine = visit.token.claims.get("patient") if visit.token else ""
    if asked.own and (not asked.patient or (asked.platform == home and asked.patient == mine)):
        return SCOPE_READ
    return SCOPE_AUDIT_MANAGE if asked.tool in MANAGING else SCOPE_AUDIT

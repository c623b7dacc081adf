"""The REST face over coverage: requirements, questionnaire packages and rules of a payer (FG-10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from wardmesh_common.errors import NotAllowed, NotFound, Unprocessable
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.answers import success
from wardmesh_gateway.asgi import Request, Send, respond
from wardmesh_gateway.bodies import check_json, media_type_of
from wardmesh_gateway.calls import Door, Wanted
from wardmesh_gateway.coverage_calls import check_prior_auth, policy_rules, questionnaire_package
from wardmesh_gateway.entrance import Entrance, response_headers
from wardmesh_gateway.problem import JSON, rest
from wardmesh_gateway.rules import CPT, check_platform

PREFIX = "/api/coverage/"
MAX_BODY = 64 * 1024  # read before anybody is known: validation comes first (FG-8)


class Requirements(Struct, kw_only=True, forbid_unknown_fields=True):
    patient_id: str
    coverage_id: str
    procedure_code: str
    code_system: str = CPT


class Package(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    coverage_id: str
    questionnaire_url: str | None = None
    raw_format: bool = False


Build = Callable[[Mapping[str, Any], str], Wanted]
_POSTED: dict[str, tuple[type[Struct], Build]] = {
    "requirements": (Requirements, check_prior_auth),
    "questionnaire-package": (Package, questionnaire_package),
}


class CoverageFace:
    """One route per tool; what the path and the body say is checked before anything is looked up."""

    def __init__(self, door: Door, entrance: Entrance) -> None:
        self._door = door
        self._entrance = entrance

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX)

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, send, rest, JSON)

    async def _route(self, request: Request, send: Send) -> None:
        parts = request.path[len(PREFIX) :].rstrip("/").split("/")
        check_platform(parts[0])
        if len(parts) == 2 and parts[1] in _POSTED:
            _only(request, "POST")
            kind, build = _POSTED[parts[1]]
            wanted = build(await _read(request, kind), "")
        elif len(parts) == 3 and parts[1] == "rules":
            _only(request, "GET", "HEAD")
            wanted = policy_rules({"procedure_code": parts[2], "code_system": _system(request)}, "")
        else:
            raise NotFound("There is nothing at this address.")
        await self._perform(request, send, parts[0], wanted)

    async def _perform(self, request: Request, send: Send, platform: str, wanted: Wanted) -> None:
        facts = self._door.platform(platform, Face.REST)
        visit = await self._entrance.visit(request)
        work = self._door.submit(wanted, facts, visit, Face.REST, traceparent=request.header(b"traceparent"))
        delivery = await request.unless_hung_up(work)
        body = await success(delivery)
        headers = [JSON, *response_headers(delivery.reply, facts.id)]
        await respond(send, 200, headers, body, head=request.method == "HEAD")


async def _read(request: Request, kind: type[Struct]) -> Mapping[str, Any]:
    """Raises Unprocessable for a body that is not this model (FG-9); its text never quotes the body."""
    check_json(media_type_of(request.header(b"content-type")))
    request.limit = min(request.limit, MAX_BODY)
    body = await request.body()
    try:
        return msgspec.to_builtins(msgspec.json.decode(body, type=kind))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        names = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise Unprocessable(f"Invalid body: a JSON object with these members is expected: {names}.") from None


def _system(request: Request) -> str:
    named = [value for name, value in parse_qsl(request.query, keep_blank_values=True) if name == "code_system"]
    return named[-1] if named else CPT


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise NotAllowed("This method is not offered here.")

"""Which address asks the ledger what: paths, query parameters and bodies become the arguments of one question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from wardmesh_common.errors import BadRequest, NotAllowed, NotFound, TooLarge
from wardmesh_gateway.asgi import Request
from wardmesh_gateway.audit_door import Asked, AuditDoor

_MOST_PARAMETERS = 32
_MOST_BODY = 64 * 1024

_FILTERS = [
    "log",
    "actor",
    "pseudonym",
    "type",
    "action",
    "outcome",
    "phase",
    "purpose",
    "resource",
    "request",
    "break_glass",
    "from",
    "to",
    "patient",
    "platform",
]
EVENTS = frozenset([*_FILTERS, "cursor", "limit", "sort", "order"])
TAIL = frozenset([*_FILTERS, "cursor", "limit"])
REPORT = frozenset(["from", "to", "format", "cursor", "limit", "platform"])
ACTIVITY = REPORT - {"platform"}
DISCLOSURES = frozenset(["patient", "platform", "from", "to", "format", "sealed"])

_log = re.compile(r"/log/([0-9]{1,4})/(checkpoint|tile/[0-9a-z/.]{3,80})").fullmatch
_lists = re.compile(r"/log/logs(?:/([0-9]{4}-[0-9]{2}-[0-9]{2}))?").fullmatch
_event = re.compile(r"/v1/events/([0-9A-Fa-f-]{36})(/proof)?").fullmatch
_patient = re.compile(r"/v1/patients/([^/]+)/access-report").fullmatch
_actor = re.compile(r"/v1/actors/(.{1,255})/activity-report").fullmatch
_hold = re.compile(r"/v1/holds/([0-9A-Fa-f-]{36})/release").fullmatch
_review = re.compile(r"/v1/reviews/([0-9A-Fa-f-]{36})").fullmatch


async def asked_of(request: Request, door: AuditDoor) -> Asked:
    """The question behind a request. Raises BadRequest, NotFound, NotAllowed, TooLarge, PlatformUnknown."""
    if request.method == "POST":
        return await _posted(request, door)
    if request.method not in ("GET", "HEAD"):
        raise NotAllowed("This method is not offered here.")
    path = request.path
    simple = _simple(request)
    if simple is not None:
        return simple
    if path == "/v1/events":
        return events_of(request, door)
    if path == "/v1/disclosures":
        return _disclosures(request, door)
    if found := _patient(path):
        given = parameters(request, REPORT)
        platform, patient, reference = door.about(found[1], given.pop("platform", ""))
        arguments = {**typed(given), "patient": reference}
        return Asked(
            tool="access_report",
            arguments=arguments,
            platform=platform,
            patient=patient,
            query=request.query,
            own=True,
        )
    if found := _actor(path):
        arguments = {**typed(parameters(request, ACTIVITY)), "actor": found[1]}
        return Asked(tool="activity_report", arguments=arguments, query=request.query)
    raise NotFound("There is nothing at this address.")


def _simple(request: Request) -> Asked | None:
    """Questions that are wholly in the path, or have no arguments."""
    path = request.path
    if path in _PLAIN:
        parameters(request, frozenset())
        return Asked(tool=_PLAIN[path], arguments={}, own=path == "/audit-latest/")
    if path in _LISTS:
        tool, known = _LISTS[path]
        return Asked(tool=tool, arguments=typed(parameters(request, known)))
    if (file := _file(request)) is not None:
        return file
    if found := _event(path):
        given = parameters(request, frozenset() if found[2] else frozenset(["sealed"]))
        tool = "open_event" if _opens(given) else "read_event"
        return Asked(tool="prove_event" if found[2] else tool, arguments={"id": found[1]})
    return None


def _file(request: Request) -> Asked | None:
    """The list of all logs, and the files of one."""
    if found := _lists(request.path):
        parameters(request, frozenset())
        return Asked(tool="read_log_list", arguments={"day": found[1]} if found[1] else {})
    if found := _log(request.path):
        arguments = {"log": int(found[1])}
        if found[2] == "checkpoint":
            return Asked(tool="read_checkpoint", arguments=arguments)
        tool = "read_entries" if found[2].startswith("tile/entries/") else "read_tile"
        return Asked(tool=tool, arguments={**arguments, "path": found[2]})
    return None


_PLAIN = {
    "/v1/status": "read_status",
    "/v1/gaps": "read_gaps",
    "/audit-latest/": "own_records",
}

_LISTS = {
    "/v1/reviews": ("list_reviews", frozenset(["status", "limit", "format"])),
    "/v1/holds": ("list_holds", frozenset(["released"])),
}


def events_of(request: Request, door: AuditDoor, tool: str = "read_events", known: frozenset[str] = EVENTS) -> Asked:
    """A search, or with another tool a following of the ledger."""
    given = parameters(request, known)
    return asked_events(given, door, tool, request.query)


def asked_events(given: dict[str, str], door: AuditDoor, tool: str, query: str) -> Asked:
    order = given.pop("order", "oldest")
    if order not in ("oldest", "newest"):
        raise BadRequest("Invalid order: oldest or newest.")
    patient, named, platform = given.pop("patient", ""), given.pop("platform", ""), ""
    arguments = typed(given)
    if order == "newest":
        arguments["newest_first"] = True
    if patient:
        platform, patient, arguments["patient"] = door.about(patient, named)
    return Asked(tool=tool, arguments=arguments, platform=platform, patient=patient, query=query)


def _disclosures(request: Request, door: AuditDoor) -> Asked:
    given = parameters(request, DISCLOSURES)
    opened = _opens(given)
    platform, patient, reference = door.about(given.pop("patient", ""), given.pop("platform", ""))
    return Asked(
        tool="open_disclosures" if opened else "disclosures",
        arguments={**typed(given), "patient": reference},
        platform=platform,
        patient=patient,
        query=request.query,
        own=opened,
    )


async def _posted(request: Request, door: AuditDoor) -> Asked:
    parameters(request, frozenset())
    path = request.path
    if path in ("/v1/holds", "/v1/disclosures/suspensions"):
        tool = "place_hold" if path == "/v1/holds" else "suspend_disclosures"
        return _about_patient(tool, await _body(request), door)
    if found := _hold(path):
        return Asked(tool="release_hold", arguments={"id": found[1]})
    if found := _review(path):
        return Asked(tool="close_review", arguments={**await _body(request), "id": found[1]})
    raise NotFound("There is nothing at this address.")


def _about_patient(tool: str, given: dict[str, Any], door: AuditDoor) -> Asked:
    """A body that may name a patient by the id on a platform; the ledger knows references."""
    named, patient, platform = str(given.pop("platform", "")), str(given.get("patient", "")), ""
    if patient:
        platform, patient, given["patient"] = door.about(patient, named)
    return Asked(tool=tool, arguments=given, platform=platform, patient=patient)


def parameters(request: Request, known: frozenset[str]) -> dict[str, str]:
    """The query parameters. Raises BadRequest for one that is unknown or said twice; it never repeats them."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        raise BadRequest("The query string cannot be read.") from None
    for name, value in pairs:
        if name not in known:
            offered = f"Known: {', '.join(sorted(known))}." if known else "None is known here."
            raise BadRequest(f"A query parameter is not known. {offered}")
        if name in found:
            raise BadRequest(f"The query parameter {name} is there twice.")
        if value:
            found[name] = value
    return found


def typed(given: Mapping[str, str]) -> dict[str, Any]:
    """Numbers and flags as what they are."""
    arguments: dict[str, Any] = dict(given)
    for name in ("limit", "log"):
        if name in arguments:
            if not re.fullmatch("[0-9]{1,6}", arguments[name]):
                raise BadRequest(f"Invalid {name}: a number.")
            arguments[name] = int(arguments[name])
    for name in ("break_glass", "released"):
        if name in arguments:
            if arguments[name] not in ("true", "false"):
                raise BadRequest(f"Invalid {name}: true or false.")
            arguments[name] = arguments[name] == "true"
    return arguments


def _opens(given: dict[str, str]) -> bool:
    sealed = given.pop("sealed", "keep")
    if sealed not in ("keep", "open"):
        raise BadRequest("Invalid sealed: keep or open.")
    return sealed == "open"


async def _body(request: Request) -> dict[str, Any]:
    if request.header(b"content-type").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The body must be application/json.")
    body = await request.body()
    if len(body) > _MOST_BODY:
        raise TooLarge(f"The body may have at most {_MOST_BODY} bytes.")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise BadRequest("The body must be a JSON object.") from None

"""From a tool's arguments to what the door is asked for: pure functions, one per tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from wardmesh_common.contracts import View
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.bodies import FHIR_JSON, JSON_PATCH, encode_resource, with_id
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.coverage_calls import check_prior_auth, policy_rules, questionnaire_package
from wardmesh_gateway.fhir_paths import target_of
from wardmesh_gateway.rules import check_id, check_operation, check_parameter, check_type
from wardmesh_gateway.schemas import MAX_LIMIT

Arguments = Mapping[str, Any]

MODEL_BYTES = 60_000
DEFAULT_PAGE = 10
_FOREIGN = "Invalid url: it is not a page link of this gateway."
REPRESENTATION = {"prefer": "return=representation"}

_encoder = msgspec.json.Encoder(decimal_format="number")


def query_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Pairs in order, repetitions kept (PX-5)."""
    return "&".join(f"{quote(name, safe=':$')}={quote(value, safe=':,/$')}" for name, value in pairs)


def pairs_of(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Search parameters of a tool call: a list repeats its parameter (X-1)."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        check_parameter(name)
        values = value if isinstance(value, list) else [value]
        pairs.extend((name, _text(single)) for single in values)
    return pairs


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _view(arguments: Arguments, default: str) -> View:
    model = arguments.get("view", default) == "model"
    return View(model=True, max_bytes=MODEL_BYTES) if model else View()


def capabilities(arguments: Arguments, _view_default: str) -> Wanted:
    if "resource_type" in arguments:
        check_type(arguments["resource_type"])
    return Wanted(tool="get_capabilities", interaction=Interaction.CAPABILITIES)


def search(arguments: Arguments, view: str) -> Wanted:
    pairs = pairs_of(arguments.get("params", {}))
    named = {name for name, _ in pairs}
    if "_count" not in named:
        pairs.append(("_count", str(arguments.get("limit", DEFAULT_PAGE))))
    if elements := arguments.get("elements"):
        pairs.append(("_elements", ",".join(elements)))
    pairs += [("_include", value) for value in arguments.get("include", ())]
    pairs += [("_revinclude", value) for value in arguments.get("revinclude", ())]
    if sort := arguments.get("sort"):
        pairs.append(("_sort", ",".join(sort)))
    return Wanted(
        tool="search",
        interaction=Interaction.SEARCH,
        type=check_type(arguments["resource_type"]),
        query=query_of(pairs),
        view=_view(arguments, view),
    )


def read(arguments: Arguments, view: str) -> Wanted:
    if "operation" in arguments:
        return execute_operation(arguments, view)
    return Wanted(
        tool="read",
        interaction=Interaction.READ,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        view=_view(arguments, view),
    )


def execute_operation(arguments: Arguments, view: str) -> Wanted:
    operation = check_operation(arguments["operation"])
    pairs = pairs_of(arguments.get("params", {}))
    if operation == "$everything":
        pairs = _bounded(pairs)
    return Wanted(
        tool="execute_operation",
        interaction=Interaction.OPERATION,
        operation=operation,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        query=query_of(pairs),
        view=_view(arguments, view),
    )


def _bounded(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """$everything of one person can be megabytes: a page of 10 unless asked for more, 50 at most (FG-26)."""
    asked = [value for name, value in pairs if name == "_count"]
    count = int(asked[-1]) if asked and asked[-1].isdigit() else DEFAULT_PAGE
    others = [pair for pair in pairs if pair[0] != "_count"]
    return [*others, ("_count", str(max(1, min(count, MAX_LIMIT))))]


def create(arguments: Arguments, view: str) -> Wanted:
    kind = check_type(arguments["resource_type"])
    return Wanted(
        tool="create",
        interaction=Interaction.CREATE,
        type=kind,
        body=encode_resource(arguments["resource"], kind),
        media_type=FHIR_JSON,
        headers=REPRESENTATION,
        view=_view(arguments, view),
    )


def update(arguments: Arguments, view: str) -> Wanted:
    kind, resource_id = check_type(arguments["resource_type"]), check_id(arguments["resource_id"])
    return Wanted(
        tool="update",
        interaction=Interaction.UPDATE,
        type=kind,
        id=resource_id,
        body=encode_resource(with_id(arguments["resource"], resource_id), kind),
        media_type=FHIR_JSON,
        headers=REPRESENTATION,
        view=_view(arguments, view),
    )


def patch(arguments: Arguments, view: str) -> Wanted:
    """JSON Patch: `add` on a member that exists replaces it. The id and the type of a resource never change."""
    operations: list[dict[str, Any]] = []
    for name, value in arguments["fields"].items():
        if name in ("id", "resourceType", "meta"):
            raise BadRequest("Invalid fields: id, resourceType and meta cannot be patched.")
        if value is None:
            operations.append({"op": "remove", "path": f"/{name}"})
        else:
            operations.append({"op": "add", "path": f"/{name}", "value": value})
    return Wanted(
        tool="patch",
        interaction=Interaction.PATCH,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        body=_encoder.encode(operations),
        media_type=JSON_PATCH,
        headers=REPRESENTATION,
        view=_view(arguments, view),
    )


def delete(arguments: Arguments, _view_default: str) -> Wanted:
    return Wanted(
        tool="delete",
        interaction=Interaction.DELETE,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
    )


def count(arguments: Arguments, _view_default: str) -> Wanted:
    kept = [pair for pair in pairs_of(arguments.get("params", {})) if pair[0] not in ("_summary", "_count")]
    return Wanted(
        tool="count",
        interaction=Interaction.SEARCH,
        type=check_type(arguments["resource_type"]),
        query=query_of([*kept, ("_summary", "count")]),
    )


def next_page(arguments: Arguments, view: str) -> Wanted:
    """Nothing of the given URL is requested: only the cursor in it is taken, and fhir-proxy issued that (PX-2)."""
    try:
        parts = urlsplit(arguments["url"])
    except ValueError:
        raise BadRequest(_FOREIGN) from None
    cursors = [value for name, value in parse_qsl(parts.query) if name == "_cursor"]
    # The path of ours ends in /fhir/{platform}/..., which says what the first page was asked with.
    below = parts.path.rpartition("/fhir/")[2].split("/")[1:]
    if len(cursors) != 1 or "/fhir/" not in parts.path:
        raise BadRequest(_FOREIGN)
    first = target_of("GET", [part for part in below if part], has_query=True)
    return Wanted(
        tool="get_next_page",
        interaction=first.interaction,
        type=first.type,
        id=first.id,
        operation=first.operation,
        query=query_of([("_cursor", cursors[0])]),
        view=_view(arguments, view),
    )


# Arguments and the face's default view -> what is wanted. A test compares the keys with TOOLS.
BUILD: dict[str, Callable[[Arguments, str], Wanted]] = {
    "get_capabilities": capabilities,
    "search": search,
    "read": read,
    "execute_operation": execute_operation,
    "create": create,
    "update": update,
    "patch": patch,
    "delete": delete,
    "count": count,
    "get_next_page": next_page,
    "check_prior_auth": check_prior_auth,
    "get_questionnaire_package": questionnaire_package,
    "get_policy_rules": policy_rules,
}

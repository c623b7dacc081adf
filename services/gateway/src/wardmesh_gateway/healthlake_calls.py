"""From the arguments of a tool for the data of a datastore to what the door is asked for (HL-2 to HL-8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.bodies import FHIR_JSON, JSON_PATCH
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.fhir_bundle import bundle_entries
from wardmesh_gateway.healthlake_bundles import bundle_of
from wardmesh_gateway.healthlake_pages import next_page
from wardmesh_gateway.healthlake_patches import parameters_of
from wardmesh_gateway.rules import check_id, check_type
from wardmesh_gateway.tool_calls import pairs_of, query_of

Arguments = Mapping[str, Any]
Pairs = list[tuple[str, str]]

REPRESENTATION = {"prefer": "return=representation"}
_QUOTED = 64
_encoder = msgspec.json.Encoder(decimal_format="number")


def capabilities(_arguments: Arguments) -> Wanted:
    return Wanted(tool="get_datastore_capabilities", interaction=Interaction.CAPABILITIES)


def read(arguments: Arguments) -> Wanted:
    version = arguments.get("version_id", "")
    return Wanted(
        tool="read_fhir_resource",
        interaction=Interaction.VREAD if version else Interaction.READ,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        version=check_id(version, "version_id") if version else "",
    )


def search(arguments: Arguments) -> Wanted:
    return Wanted(
        tool="search_fhir_resources",
        interaction=Interaction.SEARCH,
        type=check_type(arguments["resource_type"]),
        query=query_of(pairs_of(arguments.get("query_parameters", {}))),
    )


def search_advanced(arguments: Arguments) -> Wanted:
    pairs = pairs_of(arguments.get("search_parameters", {}))
    pairs += [("_include", value) for value in arguments.get("include_parameters", ())]
    pairs += [("_revinclude", value) for value in arguments.get("revinclude_parameters", ())]
    if sort := arguments.get("sort_parameters"):
        pairs.append(("_sort", ",".join(sort)))
    return Wanted(
        tool="search_fhir_resources_advanced",
        interaction=Interaction.SEARCH,
        type=check_type(arguments["resource_type"]),
        query=query_of(_counted(pairs, arguments)),
    )


def search_all(arguments: Arguments) -> Wanted:
    pairs = pairs_of(arguments.get("query_parameters", {}))
    return Wanted(
        tool="search_all_resources",
        interaction=Interaction.SEARCH,
        query=query_of(_counted(pairs, arguments)),
    )


def everything(arguments: Arguments) -> Wanted:
    """The whole record of a patient, a page at a time."""
    pairs = [(name, arguments[name]) for name in ("start", "end") if name in arguments]
    pairs += next_page(arguments)
    return Wanted(
        tool="patient_everything",
        interaction=Interaction.OPERATION,
        type="Patient",
        id=check_id(arguments["patient_id"], "patient_id"),
        operation="$everything",
        query=query_of(pairs),
    )


def create(arguments: Arguments) -> Wanted:
    kind = check_type(arguments["resource_type"])
    _check_type_of(arguments["resource_data"], kind)
    resource = {name: value for name, value in arguments["resource_data"].items() if name != "id"}
    condition = arguments.get("if_none_exist", "")
    return Wanted(
        tool="create_fhir_resource",
        interaction=Interaction.CREATE,
        type=kind,
        body=_encoder.encode(resource),
        media_type=FHIR_JSON,
        headers={**REPRESENTATION, **({"if-none-exist": _header(condition)} if condition else {})},
    )


def update(arguments: Arguments) -> Wanted:
    kind, resource_id = check_type(arguments["resource_type"]), check_id(arguments["resource_id"])
    resource = arguments["resource_data"]
    _check_type_of(resource, kind)
    given = resource.get("id")
    if given is not None and given != resource_id:
        said = given[:_QUOTED] if isinstance(given, str) else "None"
        raise BadRequest(f"Resource ID mismatch: URL specifies '{resource_id}' but resource contains '{said}'")
    return Wanted(
        tool="update_fhir_resource",
        interaction=Interaction.UPDATE,
        type=kind,
        id=resource_id,
        body=_encoder.encode({**resource, "id": resource_id}),
        media_type=FHIR_JSON,
        headers={**REPRESENTATION, **_expected(arguments)},
    )


def patch(arguments: Arguments) -> Wanted:
    operations = arguments["patch_operations"]
    fhir = arguments.get("patch_format") == "fhir-patch"
    return Wanted(
        tool="patch_fhir_resource",
        interaction=Interaction.PATCH,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        body=_encoder.encode(parameters_of(operations) if fhir else operations),
        media_type=FHIR_JSON if fhir else JSON_PATCH,
        headers={**REPRESENTATION, **_expected(arguments)},
    )


def delete(arguments: Arguments) -> Wanted:
    return Wanted(
        tool="delete_fhir_resource",
        interaction=Interaction.DELETE,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        headers=_expected(arguments),
    )


def history(arguments: Arguments) -> Wanted:
    pairs = _counted([], arguments)
    if since := arguments.get("since"):
        pairs.append(("_since", since))
    return Wanted(
        tool="get_fhir_resource_history",
        interaction=Interaction.HISTORY,
        type=check_type(arguments["resource_type"]),
        id=check_id(arguments["resource_id"]),
        query=query_of(pairs),
    )


def compartment(arguments: Arguments) -> Wanted:
    kind = arguments.get("resource_type", "*")
    return Wanted(
        tool="get_fhir_resource_compartment",
        interaction=Interaction.SEARCH,
        type=check_type(arguments["compartment_type"]),
        id=check_id(arguments["compartment_id"], "compartment_id"),
        operation=kind if kind == "*" else check_type(kind),
        query=query_of(pairs_of(arguments.get("query_parameters", {}))),
    )


def bundle(arguments: Arguments) -> Wanted:
    """A collection is no request: it is stored as the Bundle that it is, and judged by its kind."""
    kind = arguments.get("bundle_type", "transaction")
    made = bundle_of(arguments["bundle_resources"], kind)
    if kind == "collection":
        return Wanted(
            tool="create_fhir_bundle",
            interaction=Interaction.CREATE,
            type="Bundle",
            body=_encoder.encode(made),
            media_type=FHIR_JSON,
            headers=REPRESENTATION,
        )
    return Wanted(
        tool="create_fhir_bundle",
        interaction=Interaction.TRANSACTION if kind == "transaction" else Interaction.BATCH,
        body=_encoder.encode(made),
        media_type=FHIR_JSON,
        entries=bundle_entries(made),
    )


def validate(arguments: Arguments) -> Wanted:
    resource = arguments["resource_data"]
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise BadRequest("Missing required 'resourceType' field")
    profile = arguments.get("profile_url")
    return Wanted(
        tool="validate_fhir_resource_against_profile",
        interaction=Interaction.OPERATION,
        type=check_type(kind),
        operation="$validate",
        query=query_of([("profile", profile)]) if profile else "",
        body=_encoder.encode(resource),
        media_type=FHIR_JSON,
    )


def _check_type_of(resource: Mapping[str, Any], kind: str) -> None:
    found = resource.get("resourceType")
    if found != kind:
        said = found[:_QUOTED] if isinstance(found, str) else "None"
        raise BadRequest(f"Resource type mismatch: URL specifies '{kind}' but resource contains '{said}'")


def _counted(pairs: Pairs, arguments: Arguments) -> Pairs:
    return [*pairs, ("_count", str(arguments["count"]))] if "count" in arguments else pairs


def _expected(arguments: Arguments) -> dict[str, str]:
    return {"if-match": _header(arguments["if_match"])} if "if_match" in arguments else {}


def _header(value: str) -> str:
    """A header holds printable ASCII only; what else a search needs is percent-encoded."""
    if not value.isascii() or not value.isprintable():
        raise BadRequest("Invalid if_match or if_none_exist: printable ASCII is expected.")
    return value


# A test compares the keys with the tools.
BUILD: dict[str, Callable[[Arguments], Wanted]] = {
    "get_datastore_capabilities": capabilities,
    "read_fhir_resource": read,
    "search_fhir_resources": search,
    "search_fhir_resources_advanced": search_advanced,
    "search_all_resources": search_all,
    "patient_everything": everything,
    "create_fhir_resource": create,
    "update_fhir_resource": update,
    "patch_fhir_resource": patch,
    "delete_fhir_resource": delete,
    "get_fhir_resource_history": history,
    "get_fhir_resource_compartment": compartment,
    "create_fhir_bundle": bundle,
    "validate_fhir_resource_against_profile": validate,
}

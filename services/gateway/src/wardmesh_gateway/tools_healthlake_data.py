"""The tools for what lies in a datastore: read, search, write, bundles, validation, templates (HL-2 to HL-9)."""

from __future__ import annotations

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway import healthlake_schemas as arg
from wardmesh_gateway.schemas import RESULT, Schema
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_healthlake import PROFILE

_STORE = {"datastore_id": arg.DATASTORE_ID}
_TYPED = {**_STORE, "resource_type": arg.TYPE}
_TARGET = {**_TYPED, "resource_id": arg.ID}
_DELETED: Schema = {
    "type": "object",
    "properties": {"status": {"type": "string"}, "statusCode": {"type": "integer"}},
}
_VERDICT: Schema = {
    "type": "object",
    "properties": {
        "valid": {"type": "boolean"},
        "issues": {"type": "array", "items": {"type": "string"}},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
_ADDRESS: Schema = {"type": "object", "description": "A FHIR Address, for example {line, city, state, postalCode}."}
_QUANTITY: Schema = {"type": "object", "description": "A FHIR Quantity, for example {value, unit, system, code}."}
_PATCH: Schema = {
    "type": "array",
    "items": {"type": "object"},
    "minItems": 1,
    "maxItems": 256,
    "description": "JSON Patch operations; with fhir-patch operations of FHIRPath Patch: {type, path, name, value}.",
}
_BUNDLED: Schema = {
    "type": "array",
    "items": {"type": "object"},
    "minItems": 1,
    "maxItems": 1000,
    "description": "The resources. One with an id is updated, one without is created. A reference {Type}/temp-id "
    "points at the one resource of that type that has no id.",
}


def _tool(
    name: str,
    title: str,
    summary: str,
    interaction: Interaction | None,
    properties: dict[str, Schema],
    *,
    optional: tuple[str, ...] = (),
    operation: str = "",
    output: Schema = RESULT,
) -> ToolSpec:
    """All of `properties` are required except `optional` ones; what asks a datastore takes a region."""
    placed = {} if interaction is None else {"region_name": arg.REGION}
    return ToolSpec(
        name=name,
        title=title,
        summary=summary,
        interaction=interaction,
        operation=operation,
        input=arg.whole(tuple(key for key in properties if key not in optional), **properties, **placed),
        output=output,
        performer="fhir" if interaction else "gateway",
        family=PROFILE,
        profiles=(PROFILE,),
    )


DATA_TOOLS: tuple[ToolSpec, ...] = (
    _tool(
        "get_datastore_capabilities",
        "Get a datastore's capabilities",
        "The CapabilityStatement of a datastore: resource types, interactions, search parameters.",
        Interaction.CAPABILITIES,
        _STORE,
    ),
    _tool(
        "read_fhir_resource",
        "Read a FHIR resource",
        "Read one resource of a datastore, or one version of it.",
        Interaction.READ,
        {**_TARGET, "version_id": arg.text("Version to read, for example '2'.")},
        optional=("version_id",),
    ),
    _tool(
        "search_fhir_resources",
        "Search FHIR resources",
        "Search one resource type of a datastore. Returns a searchset Bundle with its page links.",
        Interaction.SEARCH,
        {**_TYPED, "query_parameters": arg.QUERY},
        optional=("query_parameters",),
    ),
    _tool(
        "search_fhir_resources_advanced",
        "Search with includes and sorting",
        "Search one resource type with included resources, sorting and a page size.",
        Interaction.SEARCH,
        {
            **_TYPED,
            "search_parameters": arg.QUERY,
            "include_parameters": arg.strings("_include values, for example ['Patient:general-practitioner']."),
            "revinclude_parameters": arg.strings("_revinclude values, for example ['Observation:subject']."),
            "sort_parameters": arg.strings("Parameters to sort by; '-' in front means descending."),
            "count": arg.COUNT,
        },
        optional=("search_parameters", "include_parameters", "revinclude_parameters", "sort_parameters", "count"),
    ),
    _tool(
        "search_all_resources",
        "Search all resource types",
        "Search over every resource type of a datastore, for example by _lastUpdated.",
        Interaction.SEARCH,
        {**_STORE, "query_parameters": arg.QUERY, "count": arg.COUNT},
        optional=("query_parameters", "count"),
    ),
    _tool(
        "create_fhir_resource",
        "Create a FHIR resource",
        "Store a new resource; the datastore chooses its id. With if_none_exist only when nothing matches that search.",
        Interaction.CREATE,
        {
            **_TYPED,
            "resource_data": arg.RESOURCE,
            "if_none_exist": arg.text("Search that must find nothing, for example 'identifier=http://x|1'."),
        },
        optional=("if_none_exist",),
    ),
    _tool(
        "update_fhir_resource",
        "Update a FHIR resource",
        "Replace a resource as a whole: what is left out of it is gone.",
        Interaction.UPDATE,
        {**_TARGET, "resource_data": arg.RESOURCE, "if_match": arg.IF_MATCH},
        optional=("if_match",),
    ),
    _tool(
        "patch_fhir_resource",
        "Patch a FHIR resource",
        "Change parts of a resource with JSON Patch or FHIRPath Patch.",
        Interaction.PATCH,
        {
            **_TARGET,
            "patch_operations": _PATCH,
            "patch_format": {
                "type": "string",
                "enum": ["json-patch", "fhir-patch"],
                "default": "json-patch",
                "description": "How the operations are written.",
            },
            "if_match": arg.IF_MATCH,
        },
        optional=("patch_format", "if_match"),
    ),
    _tool(
        "delete_fhir_resource",
        "Delete a FHIR resource",
        "Delete one resource; its history stays.",
        Interaction.DELETE,
        {**_TARGET, "if_match": arg.IF_MATCH},
        optional=("if_match",),
        output=_DELETED,
    ),
    _tool(
        "get_fhir_resource_history",
        "Get a resource's history",
        "All versions of one resource, newest first.",
        Interaction.HISTORY,
        {**_TARGET, "count": arg.COUNT, "since": arg.text("Only versions since this time, ISO 8601.")},
        optional=("count", "since"),
    ),
    _tool(
        "get_fhir_resource_compartment",
        "Get a compartment",
        "What belongs to one resource, for example everything of a Patient, or only its Observations.",
        Interaction.SEARCH,
        {
            **_STORE,
            "compartment_type": arg.text("Type of the compartment, for example 'Patient'."),
            "compartment_id": arg.text("Id of that resource."),
            "resource_type": arg.TYPE,
            "query_parameters": arg.QUERY,
        },
        optional=("resource_type", "query_parameters"),
    ),
    _tool(
        "create_fhir_bundle",
        "Send a bundle",
        "Store several resources at once: all or nothing as transaction, one by one as batch, unchanged as collection.",
        Interaction.TRANSACTION,
        {
            **_STORE,
            "bundle_resources": _BUNDLED,
            "bundle_type": {
                "type": "string",
                "enum": ["transaction", "batch", "collection"],
                "default": "transaction",
                "description": "How the resources are stored.",
            },
        },
        optional=("bundle_type",),
    ),
    _tool(
        "validate_fhir_resource",
        "Check a resource's form",
        "Quick look at a resource before storing it: type, id, required elements. No profile is judged.",
        None,
        {"resource_data": arg.RESOURCE, "resource_type": arg.TYPE},
        optional=("resource_type",),
        output=_VERDICT,
    ),
    _tool(
        "validate_fhir_resource_against_profile",
        "Validate against a profile",
        "Have a datastore validate a resource, against a profile when one is named. Returns an OperationOutcome.",
        Interaction.OPERATION,
        {**_STORE, "resource_data": arg.RESOURCE, "profile_url": arg.PROFILE},
        optional=("profile_url",),
    ),
    _tool(
        "create_patient_template",
        "Make a Patient",
        "Put together a Patient resource. Nothing is stored.",
        None,
        {
            "family_name": arg.text("Family name."),
            "given_names": arg.strings("Given names."),
            "gender": arg.text("male, female, other or unknown."),
            "birth_date": arg.text("Date of birth, YYYY-MM-DD."),
            "identifier_system": arg.text("System of an identifier, with identifier_value."),
            "identifier_value": arg.text("Value of that identifier."),
            "phone": arg.text("Phone number at home."),
            "email": arg.text("E-mail address."),
            "address": _ADDRESS,
        },
        optional=("identifier_system", "identifier_value", "phone", "email", "address"),
    ),
    _tool(
        "create_observation_template",
        "Make an Observation",
        "Put together an Observation resource. Nothing is stored.",
        None,
        {
            "patient_reference": arg.text("Whom it is about, for example 'Patient/123'."),
            "code_system": arg.text("Code system, for example 'http://loinc.org'."),
            "code_value": arg.text("Code, for example '8867-4'."),
            "code_display": arg.text("What the code means."),
            "status": arg.text("Status of the observation.", default="final"),
            "value_quantity": _QUANTITY,
            "value_string": arg.text("Value as text; a quantity goes first."),
            "effective_datetime": arg.text("When it was observed; now, if not given."),
            "category_code": arg.text("Category, for example 'vital-signs'."),
        },
        optional=("status", "value_quantity", "value_string", "effective_datetime", "category_code"),
    ),
)

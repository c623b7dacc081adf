"""The tools for any FHIR platform: search, read, write, operations (FG-21, FG-26)."""

from __future__ import annotations

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.schemas import (
    COUNT,
    DELETED,
    LIMIT,
    NAMES,
    OPERATION,
    PARAMS,
    PLATFORM,
    PLATFORM_LIST,
    RESOURCE,
    RESOURCE_ID,
    RESOURCE_TYPE,
    VIEW,
    described,
    tool_input,
)
from wardmesh_gateway.tool_spec import ToolSpec

_TARGET = ("platform_id", "resource_type", "resource_id")

FHIR_TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        name="list_platforms",
        title="List platforms",
        summary="List the payers, EHRs and sandboxes that can be asked. Start here to find a platform_id. "
        "has_fhir is false for a platform that nobody has set up yet.",
        interaction=None,
        input=tool_input(()),
        output=PLATFORM_LIST,
        performer="gateway",
    ),
    ToolSpec(
        name="get_capabilities",
        title="Get capabilities",
        summary="What a platform's FHIR server supports: resource types, interactions, search parameters. "
        "With resource_type the details of that type; with full=true the whole CapabilityStatement.",
        interaction=Interaction.CAPABILITIES,
        input=tool_input(
            ("platform_id",),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            full={"type": "boolean", "default": False, "description": "Return the whole CapabilityStatement."},
        ),
    ),
    ToolSpec(
        name="search",
        title="Search resources",
        summary="Search one resource type on a platform with FHIR search parameters. Returns a searchset Bundle.",
        interaction=Interaction.SEARCH,
        input=tool_input(
            ("platform_id", "resource_type"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            params=PARAMS,
            limit=LIMIT,
            elements=described(NAMES, "Only these elements of each resource, for example ['name', 'birthDate']."),
            include=described(NAMES, "Referenced resources to add, for example ['Observation:subject']."),
            revinclude=described(NAMES, "Resources that refer to the matches, for example ['Provenance:target']."),
            sort=described(NAMES, "Parameters to sort by, most important first; '-' in front means descending."),
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="read",
        title="Read a resource",
        summary="Read one resource by its id; with operation, run that FHIR operation on it instead.",
        interaction=Interaction.READ,
        input=tool_input(
            _TARGET,
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            resource_id=RESOURCE_ID,
            operation=OPERATION,
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="execute_operation",
        title="Execute an operation",
        summary="Run a FHIR operation on one resource, for example $everything on a Patient.",
        interaction=Interaction.OPERATION,
        input=tool_input(
            (*_TARGET, "operation"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            resource_id=RESOURCE_ID,
            operation=OPERATION,
            params=described(PARAMS, "Parameters of the operation; a list repeats one."),
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="create",
        title="Create a resource",
        summary="Store a new resource; the platform chooses its id. Returns the stored resource.",
        interaction=Interaction.CREATE,
        input=tool_input(
            ("platform_id", "resource_type", "resource"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            resource=RESOURCE,
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="update",
        title="Update a resource",
        summary="Replace a resource as a whole: what is left out of it is gone. Returns the stored resource.",
        interaction=Interaction.UPDATE,
        input=tool_input(
            (*_TARGET, "resource"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            resource_id=RESOURCE_ID,
            resource=RESOURCE,
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="patch",
        title="Patch a resource",
        summary="Change single top-level elements of a resource and leave the others as they are.",
        interaction=Interaction.PATCH,
        input=tool_input(
            (*_TARGET, "fields"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            resource_id=RESOURCE_ID,
            fields={
                "type": "object",
                "minProperties": 1,
                "maxProperties": 64,
                "propertyNames": {"pattern": "^_?[a-z][A-Za-z0-9]*$"},
                "description": "Top-level elements with their new values; null removes an element.",
            },
            view=VIEW,
        ),
    ),
    ToolSpec(
        name="delete",
        title="Delete a resource",
        summary="Delete one resource by its id.",
        interaction=Interaction.DELETE,
        input=tool_input(_TARGET, platform_id=PLATFORM, resource_type=RESOURCE_TYPE, resource_id=RESOURCE_ID),
        output=DELETED,
    ),
    ToolSpec(
        name="count",
        title="Count resources",
        summary="How many resources match a search, without fetching them.",
        interaction=Interaction.SEARCH,
        input=tool_input(
            ("platform_id", "resource_type"),
            platform_id=PLATFORM,
            resource_type=RESOURCE_TYPE,
            params=PARAMS,
        ),
        output=COUNT,
    ),
    ToolSpec(
        name="get_next_page",
        title="Get the next page",
        summary="Follow a 'next' link of an earlier search result. Only links that this gateway issued are accepted.",
        interaction=Interaction.SEARCH,
        input=tool_input(
            ("platform_id", "url"),
            platform_id=PLATFORM,
            url={
                "type": "string",
                "minLength": 1,
                "maxLength": 8192,
                "description": "The url of a Bundle.link, unchanged.",
            },
            view=VIEW,
        ),
    ),
)

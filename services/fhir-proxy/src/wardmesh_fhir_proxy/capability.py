"""CapabilityStatements: addresses made ours (PX-1) and the short forms of FG-4."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from wardmesh_fhir_proxy import envelope, json_exact

SEARCH_PARAMETERS_SHOWN = 10
NOTE = "Summary of the platform. Ask for one resource type to see all of its search parameters and operations."


def rewrite(body: bytes, base_url: str) -> bytes:
    """`implementation.url` and the OAuth addresses in `rest.security` name the gateway; all else stays."""
    members = json_exact.members(body)
    if "implementation" in members:
        implementation = json_exact.decode(members["implementation"])
        if isinstance(implementation, dict) and "url" in implementation:
            implementation["url"] = base_url
            members["implementation"] = Raw(json_exact.encode(implementation))
    if "rest" in members:
        rest = json_exact.decode(members["rest"])
        if _rewrite_security(rest, base_url):
            members["rest"] = Raw(json_exact.encode(rest))
    return envelope.encode_plain(members)


def _rewrite_security(rest: Any, base_url: str) -> bool:
    changed = False
    for part in rest if isinstance(rest, list) else []:
        security = part.get("security") if isinstance(part, dict) else None
        if isinstance(security, dict):
            changed = _rewrite_uris(security, base_url) or changed
            # Certificates and descriptions of the platform's own sign-in mislead a client of the gateway.
            changed = security.pop("description", None) is not None or changed
    return changed


def _rewrite_uris(node: Any, base_url: str) -> bool:
    changed = False
    if isinstance(node, list):
        for item in node:
            changed = _rewrite_uris(item, base_url) or changed
    elif isinstance(node, dict):
        for key in [key for key in node if key in ("valueUri", "valueUrl")]:
            node[key] = f"{base_url.rstrip('/')}/oauth2/{node.get('url', 'endpoint')}"
            changed = True
        for child in node.values():
            if isinstance(child, dict | list):
                changed = _rewrite_uris(child, base_url) or changed
    return changed


def capability_summary(statement: dict[str, Any], resource_type: str = "") -> dict[str, Any]:
    """FG-4: an overview, or everything about one type; a type the platform lacks gives an OperationOutcome."""
    resources = [
        resource
        for rest in statement.get("rest") or []
        for resource in rest.get("resource") or []
        if isinstance(resource, dict)
    ]
    return _of_type(resources, resource_type) if resource_type else _overview(statement, resources)


def _overview(statement: dict[str, Any], resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": statement.get("fhirVersion"),
        "status": statement.get("status"),
        "publisher": statement.get("publisher"),
        "software": statement.get("software"),
        "resourceCount": len(resources),
        "resources": [_short(resource) for resource in resources],
        "note": NOTE,
    }


def _short(resource: dict[str, Any]) -> dict[str, Any]:
    parameters = [p.get("name") for p in resource.get("searchParam") or []]
    return {
        "type": resource.get("type"),
        "interactions": [i.get("code") for i in resource.get("interaction") or []],
        "searchParams": parameters[:SEARCH_PARAMETERS_SHOWN],
        "searchParamCount": len(parameters),
    }


def _of_type(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    for resource in resources:
        if resource.get("type") == kind:
            return {
                "resourceType": "CapabilityStatement",
                "resource": kind,
                "searchParam": resource.get("searchParam") or [],
                "operation": resource.get("operation") or [],
                "interaction": resource.get("interaction") or [],
            }
    issue = {
        "severity": "warning",
        "code": "not-found",
        "diagnostics": "The platform does not offer this resource type.",
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}

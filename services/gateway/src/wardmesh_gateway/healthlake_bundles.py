"""Several resources as one Bundle: full URLs, requests, and references to what has no id yet (HL-7, X-40)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wardmesh_common.errors import BadRequest
from wardmesh_gateway.rules import check_id, check_type

_TEMPORARY = re.compile(r"([A-Z][A-Za-z]+)/temp-id").fullmatch

Name = Callable[[], str]


def new_name() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def bundle_of(resources: Sequence[Mapping[str, Any]], kind: str, name: Name = new_name) -> dict[str, Any]:
    """Raises BadRequest for what is no resource, and for a reference that points at none or at several."""
    named = [(name(), resource, _type_of(resource, position)) for position, resource in enumerate(resources)]
    unnamed: dict[str, list[str]] = {}
    for url, resource, resource_type in named:
        if "id" not in resource:
            unnamed.setdefault(resource_type, []).append(url)
    entries = [_entry(url, _resolved(resource, unnamed), resource_type, kind) for url, resource, resource_type in named]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def _type_of(resource: Mapping[str, Any], position: int) -> str:
    resource_type = resource.get("resourceType")
    if not isinstance(resource_type, str):
        raise BadRequest(f"Invalid bundle_resources: item {position} has no resourceType.")
    if "id" in resource and not isinstance(resource["id"], str):
        raise BadRequest(f"Invalid bundle_resources: the id of item {position} is not text.")
    return check_type(resource_type)


def _entry(url: str, resource: Any, resource_type: str, kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"fullUrl": url, "resource": resource}
    if kind == "collection":
        return entry
    if "id" in resource:
        entry["request"] = {"method": "PUT", "url": f"{resource_type}/{check_id(resource['id'], 'id')}"}
    else:
        entry["request"] = {"method": "POST", "url": resource_type}
    return entry


def _resolved(value: Any, unnamed: Mapping[str, Sequence[str]]) -> Any:
    if isinstance(value, list):
        return [_resolved(item, unnamed) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: _reference(member, unnamed) if name == "reference" else _resolved(member, unnamed)
        for name, member in value.items()
    }


def _reference(value: Any, unnamed: Mapping[str, Sequence[str]]) -> Any:
    found = _TEMPORARY(value) if isinstance(value, str) else None
    if found is None:
        return _resolved(value, unnamed)
    meant = unnamed.get(found[1], ())
    if len(meant) != 1:
        # The reference has the form of a type and `temp-id`: nothing else of the caller's stands in this text.
        how_many = "none" if not meant else "several"
        raise BadRequest(f"Cannot resolve reference '{found[0][:72]}': the bundle holds {how_many} without an id.")
    return meant[0]

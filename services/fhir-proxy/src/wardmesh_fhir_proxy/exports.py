"""A bulk export is followed by links that only the one who started it can use, for a day (Bulk Data, PX-1, ADR 36)."""

from __future__ import annotations

from typing import Any

import msgspec

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, BadUpstream, NotAllowed
from wardmesh_common.vocabulary import EXPORT_FILE, EXPORT_STATUS, Face
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.cursors import PARAMETER, Cursors
from wardmesh_fhir_proxy.links import Address, ours, rewrite

LIFETIME_SECONDS = 24 * 3600.0
LISTS = ("output", "deleted", "error")
FOLLOWING = frozenset({EXPORT_STATUS, EXPORT_FILE})


def check(call: Call, cursor: str) -> None:
    """Raises BadRequest without a link of ours, NotAllowed where nobody could take a file."""
    if call.operation not in FOLLOWING:
        return
    if not cursor:
        raise BadRequest("An export is followed by the links that it was answered with.")
    if call.operation == EXPORT_FILE and call.face is not Face.FHIR:
        raise NotAllowed("The files of an export are read over the FHIR face.")


def status_link(call: Call, keys: Cursors, address: Address, location: str) -> str:
    """Where the caller asks how far the export is."""
    return _link(call, keys, address, location, EXPORT_STATUS)


def manifest(call: Call, keys: Cursors, address: Address, body: bytes, base_url: str) -> bytes:
    """The platform's manifest with our links in it, and the token that they need. Raises BadUpstream."""
    try:
        told = json_exact.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise BadUpstream("The platform sent a manifest that cannot be read.") from None
    if not isinstance(told, dict):
        raise BadUpstream("The platform sent a manifest that cannot be read.")
    for name in LISTS:
        for item in _items(told, name):
            item["url"] = _link(call, keys, address, item.get("url"), EXPORT_FILE)
    for item in _items(told, "link"):
        item["url"] = _link(call, keys, address, item.get("url"), EXPORT_STATUS)
    if isinstance(request := told.pop("request", None), str) and (mapped := rewrite(address, base_url, request)):
        told["request"] = mapped
    return json_exact.encode({**told, "requiresAccessToken": True})


def _items(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = told.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BadUpstream("The platform sent a manifest that cannot be read.")
    return found


def _link(call: Call, keys: Cursors, address: Address, url: Any, operation: str) -> str:
    """A file that lies elsewhere would be left out without a word: better no manifest than half of one (PX-3)."""
    suffix = address.suffix(url) if isinstance(url, str) else None
    if not suffix or ".." in suffix.partition("?")[0].split("/"):
        raise BadUpstream("The platform's export points outside the platform.")
    meant = msgspec.structs.replace(call, operation=operation)
    token = keys.issue(meant, address.url(suffix), seconds=LIFETIME_SECONDS)
    path = "/".join(part for part in (call.resource.type, call.resource.id, operation) if part)
    return ours(call.base_url, f"{path}?{PARAMETER}={token}")

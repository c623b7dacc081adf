"""Bundles on their way in: every entry as the request it stands for, so that policy can judge each (PX-10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wardmesh_common.contracts import Entry
from wardmesh_common.errors import BadRequest, TooLarge
from wardmesh_common.vocabulary import Interaction

# Each entry is an event in the ledger, stored before an answer leaves.
MAX_ENTRIES = 1000

_kinds = {"batch": Interaction.BATCH, "transaction": Interaction.TRANSACTION}
_methods = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
# A relative FHIR URL: never absolute, never a way out of the base.
_url = re.compile(r"(?:\$[a-z-]+|[A-Z][A-Za-z]+|_history|metadata)(?:[/?][^\s\\]*)?").fullmatch


def bundle_kind(bundle: Mapping[str, Any]) -> Interaction:
    if bundle.get("resourceType") != "Bundle":
        raise BadRequest("A Bundle of type batch or transaction is expected here.")
    kind = _kinds.get(str(bundle.get("type")))
    if kind is None:
        raise BadRequest("The Bundle's type must be batch or transaction.")
    return kind


def bundle_entries(bundle: Mapping[str, Any]) -> tuple[Entry, ...]:
    """All entries; a Bundle with one that cannot be judged is refused as a whole."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise BadRequest("Bundle.entry must be a list.")
    if len(entries) > MAX_ENTRIES:
        raise TooLarge(f"A Bundle may have {MAX_ENTRIES} entries at most; send the rest in another one.")
    return tuple(_entry(entry, position) for position, entry in enumerate(entries))


def _entry(entry: object, position: int) -> Entry:
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(request, dict):
        raise BadRequest(f"Bundle.entry[{position}] has no request.")
    method, url = request.get("method"), request.get("url")
    if method not in _methods:
        raise BadRequest(f"Bundle.entry[{position}].request.method is not one that can be performed.")
    if not isinstance(url, str) or not _url(url) or ".." in url.partition("?")[0].split("/"):
        raise BadRequest(f"Bundle.entry[{position}].request.url is not a relative FHIR URL.")
    condition = request.get("ifNoneExist", "")
    if not isinstance(condition, str):
        raise BadRequest(f"Bundle.entry[{position}].request.ifNoneExist must be text.")
    if method in ("POST", "PUT"):
        _check_resource(entry.get("resource"), str(method), url, position)
    return Entry(method=str(method), url=url, if_none_exist=condition)


def _check_resource(resource: object, method: str, url: str, position: int) -> None:
    """What is stored must be what policy was asked about: the type and id of the URL."""
    path, _, _ = url.partition("?")
    parts = path.split("/")
    if any(part.startswith("$") for part in parts) or (method == "POST" and parts[-1] == "_search"):
        return
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if kind != parts[0]:
        raise BadRequest(f"Bundle.entry[{position}].resource is not of the type that its request names.")
    given = resource.get("id") if isinstance(resource, dict) else None
    if method == "PUT" and len(parts) > 1 and given is not None and given != parts[1]:
        raise BadRequest(f"Bundle.entry[{position}].resource has another id than its request names.")

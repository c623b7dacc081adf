"""Batches and transactions: compared with what policy saw, denied entries kept away from the platform (PX-10)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Raw

from wardmesh_common.contracts import Call, Entry
from wardmesh_common.errors import BadRequest, Conflict, Denied
from wardmesh_common.vocabulary import Interaction, Obligations
from wardmesh_fhir_proxy import content, envelope, etags, json_exact, widening
from wardmesh_fhir_proxy.compartment import BINARY
from wardmesh_fhir_proxy.kinds import KindChecks
from wardmesh_fhir_proxy.screening import Screen
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

_URL = re.compile(r"(?:[A-Z][A-Za-z]*|_history|metadata|\$[a-z-]+)(?:/[A-Za-z0-9\-.$_*]+)*(?:\?[^#\s\\]*)?|\?[^#\s\\]*")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


async def prepare(call: Call, body: bytes, checks: KindChecks, screen: Screen) -> tuple[bytes, tuple[int, ...]]:
    """(body to forward, positions of denied entries). Raises Denied when nothing may be sent."""
    document = json_exact.strict_object(body)
    entries = _entries(document)
    if document.get("resourceType") != "Bundle" or document.get("type") != str(call.interaction):
        raise BadRequest("The body must be a Bundle of the kind that was asked for.")
    found = tuple(_request(entry) for entry in entries)
    if found != call.entries:
        raise Denied("The entries are not the ones the decision was made for.")
    denied = _denied(call)
    for position, entry in enumerate(entries):
        if position not in denied:
            await _check(entry["request"], found[position], checks)
            await _check_written(entry, found[position], screen)
    if not denied:
        return body, ()
    if call.interaction is Interaction.TRANSACTION:
        raise Denied("An entry of the transaction is not allowed; nothing was sent.")
    return _without(body, denied), denied


def _entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("entry") or []
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("request"), dict) for e in entries
    ):
        raise BadRequest("Every entry needs a request.")
    return entries


def _request(entry: dict[str, Any]) -> Entry:
    method, url = entry["request"].get("method"), entry["request"].get("url")
    condition = entry["request"].get("ifNoneExist", "")
    outside = not isinstance(url, str) or not _URL.fullmatch(url) or ".." in url.partition("?")[0].split("/")
    if method not in _METHODS or outside or not isinstance(condition, str):
        raise BadRequest("An entry's request is not well-formed; its URL must be relative.")
    return Entry(method=method, url=url, if_none_exist=condition)


def _denied(call: Call) -> tuple[int, ...]:
    obligations = call.decision.obligations if call.decision else Obligations()
    return obligations.denied_entries


async def _check(request: dict[str, Any], seen: Entry, checks: KindChecks) -> None:
    """Conditions of one entry: masked ETags, conditional criteria, chained searches."""
    path, _, query = seen.url.partition("?")
    kind = path.partition("/")[0] if path[:1].isupper() else ""
    if seen.method == "PUT" and etags.names_masked_copy(str(request.get("ifMatch", ""))):
        raise Conflict("An entry's ETag names a masked copy: writing it back would erase hidden fields.")
    writes = seen.method not in ("GET", "HEAD")
    if seen.if_none_exist or (writes and query):
        await checks.require({kind}, Interaction.SEARCH, widening.CONDITIONAL_DENIED)
    criteria = seen.if_none_exist or query
    reached = widening.kinds_reached(kind, criteria)
    await checks.require(reached, Interaction.SEARCH, widening.CHAIN_DENIED)


async def _check_written(entry: dict[str, Any], seen: Entry, screen: Screen) -> None:
    """A Binary in an entry is held to the same as one that comes alone."""
    if seen.url.partition("?")[0].partition("/")[0] != BINARY or seen.method not in ("POST", "PUT", "PATCH"):
        return
    if seen.method == "PATCH":
        raise BadRequest("A Binary is replaced, not patched.")
    await content.require_allowed(json_exact.encode(entry.get("resource")), screen)


def _without(body: bytes, denied: tuple[int, ...]) -> bytes:
    """The same Bundle less the denied entries; the others keep their bytes."""
    members = json_exact.members(body)
    entries = json_exact.raw_list(members["entry"])
    kept = [entry for position, entry in enumerate(entries) if position not in denied]
    members["entry"] = Raw(envelope.encode_plain(kept))
    return envelope.encode_plain(members)


def nothing_sent() -> UpstreamAnswer:
    """The platform's part of a batch in which every entry stays behind."""
    empty = {"resourceType": "Bundle", "type": "batch-response"}
    return UpstreamAnswer(200, {"Content-Type": "application/fhir+json"}, envelope.encode_plain(empty))


def sent(call: Call, denied: tuple[int, ...]) -> tuple[tuple[int, str], ...]:
    """Position and method of every entry that the platform was given."""
    return tuple((n, entry.method) for n, entry in enumerate(call.entries) if n not in denied)


def statuses(answered: list[tuple[int, envelope.Entry, Any]]) -> tuple[int, ...]:
    """How each entry ended, for the record; 0 where the platform does not say it."""
    said = (entry.response.status if isinstance(entry.response, envelope.Response) else "" for _, entry, _ in answered)
    return tuple(int(text[:3]) if isinstance(text, str) and text[:3].isdecimal() else 0 for text in said)


def with_refusals(
    answered: list[tuple[int, envelope.Entry, Any]], denied: tuple[int, ...]
) -> list[tuple[int, envelope.Entry, Any]]:
    """Put a 403 where each denied entry stood, so that answers keep the order of the request."""
    merged = list(answered)
    for position in denied:
        text = "This entry is not allowed."
        outcome = Raw(envelope.operation_outcome("error", "forbidden", text))
        refusal = envelope.Entry(response=envelope.Response(status="403 Forbidden", outcome=outcome))
        merged.insert(position, (position, refusal, None))
    return merged

"""The upstream request of a Call: address, headers and body, with the caller's query kept as it came (PX-4, PX-5)."""

from __future__ import annotations

import re

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, Conflict, Denied, NotAllowed
from wardmesh_common.vocabulary import EXPORT, EXPORT_FILE, EXPORT_STATUS, READS, Interaction, Obligations, is_write
from wardmesh_fhir_proxy import etags, headers
from wardmesh_fhir_proxy.compartment import BINARY, PATIENT_COMPARTMENT
from wardmesh_fhir_proxy.cursors import PARAMETER
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.upstream import UpstreamRequest

_TYPE = re.compile(r"[A-Z][A-Za-z]{0,63}")
_ID = re.compile(r"(?!\.+$)[A-Za-z0-9\-.]{1,64}")
_OPERATION = re.compile(r"\$[a-z][a-z-]{1,40}")
_MEMBER = re.compile(r"\*|[A-Z][A-Za-z]{0,63}")
_QUERY = re.compile(r"[\x21-\x7e]*")
FORM = "application/x-www-form-urlencoded"
_METHODS = {
    Interaction.CREATE: "POST",
    Interaction.UPDATE: "PUT",
    Interaction.PATCH: "PATCH",
    Interaction.DELETE: "DELETE",
    Interaction.BATCH: "POST",
    Interaction.TRANSACTION: "POST",
}


def checked_path(call: Call) -> str:
    """The path below the base; refuses anything that could leave it, whoever checked it before."""
    r, i = call.resource, call.interaction
    if (r.type and not _TYPE.fullmatch(r.type)) or any(part and not _ID.fullmatch(part) for part in (r.id, r.version)):
        raise BadRequest("The resource type or id is not well-formed.")
    if i is Interaction.CAPABILITIES:
        return "metadata"
    if i in (Interaction.BATCH, Interaction.TRANSACTION):
        return ""
    parts = [part for part in (r.type, r.id) if part]
    if i is Interaction.VREAD:
        parts += ["_history", r.version]
    elif i is Interaction.HISTORY:
        parts.append("_history")
    elif i is Interaction.OPERATION:
        parts.append(_matching(_OPERATION, call.operation))
    elif i is Interaction.SEARCH and r.id:
        parts.append(_matching(_MEMBER, call.operation))  # a compartment: Patient/1/Observation
    elif i is Interaction.SEARCH and call.body:
        parts.append("_search")
    needs_id = i in (Interaction.READ, Interaction.VREAD)
    if (needs_id and not r.id) or (i is Interaction.VREAD and not r.version):
        raise BadRequest("The resource type or id is missing.")
    return "/".join(parts)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise BadRequest("The operation is not well-formed.")
    return text


def checked_query(call: Call) -> str:
    """The raw query without our own cursor parameter; order and repetitions untouched."""
    if not _QUERY.fullmatch(call.query) or "#" in call.query:
        raise BadRequest("The query string holds characters that must be percent-encoded.")
    if PARAMETER not in call.query:
        return call.query
    return "&".join(pair for pair in call.query.split("&") if pair.partition("=")[0] != PARAMETER)


def policy_filter(call: Call, obligations: Obligations) -> tuple[str, str] | None:
    """The search parameter that narrows this search to the one patient policy allows."""
    if call.interaction is not Interaction.SEARCH or not obligations.compartment or call.resource.id:
        return None
    if not _ID.fullmatch(obligations.compartment):
        raise Denied("The decision limits this call to a patient whose id is not well-formed.")
    row = PATIENT_COMPARTMENT.get(call.resource.type)
    if row is None:
        return None
    value = obligations.compartment if row.filter == "_id" else f"Patient/{obligations.compartment}"
    return row.filter, value


def with_filter(query: str, added: tuple[str, str] | None) -> str:
    if added is None:
        return query
    pair = f"{added[0]}={added[1]}"
    return f"{query}&{pair}" if query else pair


def raw_content(call: Call) -> bool:
    """Content is asked for as what it is, NDJSON of a bulk export for instance, and not as a resource in JSON."""
    if call.interaction is Interaction.OPERATION:
        return call.operation == EXPORT_FILE
    if call.resource.type != BINARY or call.interaction not in READS:
        return False
    return not headers.wants_json(call.headers.get("accept", ""), call.query)


def build(
    call: Call,
    descriptor: Descriptor,
    address: Address,
    body: bytes,
    *,
    token: str,
    fingerprint: str,
    added: tuple[str, str] | None,
) -> UpstreamRequest:
    """Everything but pages, which bring their own address (`for_page`). `added` is the filter of policy."""
    _check_offers(call, descriptor)
    query = with_filter(checked_query(call), added)
    suffix = checked_path(call)
    base = f"{address.base}/{suffix}" if suffix else address.base
    method = _method(call, body)
    write = is_write(call.interaction, call.operation)
    return UpstreamRequest(
        method=method,
        url=f"{base}?{query}" if query else base,
        headers=upstream_headers(call, descriptor, token, fingerprint, bool(body)),
        body=body,
        retryable=_retryable(call, method, write),
        write=write,
        streamed=raw_content(call),
    )


def for_page(call: Call, descriptor: Descriptor, url: str, token: str) -> UpstreamRequest:
    """A page that a cursor stands for; conditional headers of the first request do not apply to it."""
    sent = upstream_headers(call, descriptor, token, "", has_body=False)
    kept = {name: value for name, value in sent.items() if not name.startswith("If-")}
    return UpstreamRequest(method="GET", url=url, headers=kept, retryable=True, streamed=raw_content(call))


def upstream_headers(
    call: Call, descriptor: Descriptor, token: str, fingerprint: str, has_body: bool
) -> dict[str, str]:
    """Exactly the PX-4 set, our own credential last."""
    given = call.headers
    sent: dict[str, str] = {"Accept": descriptor.accept}
    sent["Accept-Encoding"] = "gzip" if descriptor.compression else "identity"
    if raw_content(call):
        sent["Accept"] = given.get("accept", "*/*")
        sent["Accept-Encoding"] = given.get("accept-encoding", "identity")
    if call.operation == EXPORT_FILE:
        sent["Accept"] = headers.FHIR_NDJSON
    elif call.operation == EXPORT_STATUS:
        sent["Accept"] = headers.JSON
    if has_body:
        sent["Content-Type"] = call.media_type or headers.FHIR_JSON
    for name in headers.TO_UPSTREAM:
        if name in given:
            sent[headers.CANONICAL[name]] = given[name]
    if call.traceparent:
        sent["traceparent"] = call.traceparent
    search = call.interaction is Interaction.SEARCH
    preference = headers.prefer(given.get("prefer", ""), search and descriptor.handling_strict)
    if preference:
        sent["Prefer"] = preference
    _conditional(call, sent, fingerprint)
    sent.update(descriptor.headers)
    if token:
        sent["Authorization"] = f"Bearer {token}"
    return sent


def _conditional(call: Call, sent: dict[str, str], fingerprint: str) -> None:
    """ETags of masked copies are ours: translate or withhold them (PX-7)."""
    if "If-Match" in sent:
        if call.interaction is Interaction.UPDATE and etags.names_masked_copy(sent["If-Match"]):
            raise Conflict("This ETag names a masked copy: writing it back would erase hidden fields. Use PATCH.")
        sent["If-Match"] = ", ".join(etags.split(tag)[0] for tag in etags.listed(sent["If-Match"]))
    if call.interaction not in (Interaction.READ, Interaction.VREAD, Interaction.CAPABILITIES):
        if not is_write(call.interaction, call.operation):
            sent.pop("If-None-Match", None)
            sent.pop("If-Modified-Since", None)
        return
    if "If-None-Match" not in sent and "If-Modified-Since" not in sent:
        return
    limited = bool(call.decision and call.decision.obligations.compartment)
    tags = "" if limited else etags.forwardable(sent.get("If-None-Match", ""), fingerprint)
    if tags:
        sent["If-None-Match"] = tags
    else:
        sent.pop("If-None-Match", None)
    if fingerprint or limited:
        sent.pop("If-Modified-Since", None)


def _method(call: Call, body: bytes) -> str:
    if call.interaction in (Interaction.OPERATION, Interaction.SEARCH):
        return "POST" if body else "GET"
    return _METHODS.get(call.interaction, "GET")


def _retryable(call: Call, method: str, write: bool) -> bool:
    """Never what could happen twice: a bare POST, PATCH, batch or transaction."""
    if call.operation == EXPORT:
        return False  # each is a job of its own
    if not write:
        return method == "GET" or call.interaction is Interaction.SEARCH
    if call.interaction in (Interaction.UPDATE, Interaction.DELETE):
        return "if-match" in call.headers
    return call.interaction is Interaction.CREATE and "if-none-exist" in call.headers


def _check_offers(call: Call, descriptor: Descriptor) -> None:
    """What the descriptor says the platform lacks is refused here, with a clear reason."""
    if call.interaction is Interaction.OPERATION and call.operation in descriptor.operations.missing:
        raise NotAllowed("This platform does not offer this operation.")
    if is_write(call.interaction, call.operation) and not descriptor.writes:
        raise Denied("Writing is switched off for this platform.")
    if call.interaction is Interaction.DELETE and "if-match" in call.headers and not descriptor.if_match_on_delete:
        raise NotAllowed("This platform does not mind If-Match on a delete: it would delete any version.")
    if "if-none-exist" in call.headers and not descriptor.if_none_exist:
        raise NotAllowed("This platform does not offer conditional create.")

"""What is checked before anything is sent: format, criteria that reach further, bodies, whose record is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, Conflict, Denied, NotFound
from wardmesh_common.vocabulary import EXPORT_FILE, READS, Interaction, Obligations, criteria_of, is_write
from wardmesh_fhir_proxy import batches, content, headers, json_exact, widening
from wardmesh_fhir_proxy.compartment import BINARY, patients_of, peek
from wardmesh_fhir_proxy.kinds import KindChecks
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.screening import Screen
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, UpstreamRequest

BUNDLES = frozenset({Interaction.BATCH, Interaction.TRANSACTION})
BODIES = frozenset({Interaction.CREATE, Interaction.UPDATE})
WRITTEN = BODIES | {Interaction.PATCH}
CHANGES = frozenset({Interaction.UPDATE, Interaction.PATCH, Interaction.DELETE})

ReadStored = Callable[[], Awaitable[UpstreamAnswer]]


def require_format(call: Call) -> None:
    """Binary content may be asked for as what it is; everything else is FHIR JSON."""
    if (call.resource.type == BINARY and call.interaction in READS) or call.operation == EXPORT_FILE:
        return
    accept = call.headers.get("accept", "")
    if accept or call.query:
        headers.require_json(accept, call.query)


async def check_widening(call: Call, checks: KindChecks) -> None:
    """Refuse criteria over kinds the caller may not read, and conditional writes without the right to search."""
    if call.interaction in BUNDLES:
        return
    kind = call.resource.type
    criteria = [call.query] if call.query else []
    if call.interaction is Interaction.SEARCH and call.body:
        criteria.append(call.body.decode("ascii", "replace"))
    if widening.conditional(call):
        await checks.require({kind}, Interaction.SEARCH, widening.CONDITIONAL_DENIED)
        criteria.append(criteria_of(call.headers.get("if-none-exist", "")))
    if criteria:
        if call.interaction is Interaction.SEARCH and call.resource.id:
            kind = call.operation  # a compartment search asks for this type
        reached = widening.kinds_reached(kind, "&".join(criteria))
        await checks.require(reached, Interaction.SEARCH, widening.CHAIN_DENIED)


async def prepared(call: Call, body: bytes, checks: KindChecks, screen: Screen) -> tuple[bytes, tuple[int, ...]]:
    """The body to send, and the positions of batch entries that stay behind."""
    if call.interaction in BUNDLES:
        return await batches.prepare(call, body, checks, screen)
    if call.interaction is Interaction.UPDATE and screen.masks.of(call.resource.type):
        raise Conflict("You see a masked copy of this resource: replacing it would erase hidden fields. Use PATCH.")
    if call.interaction in BODIES and (call.resource.type != BINARY or content.as_resource(call)):
        _check_body(call, body)
    if call.resource.type == BINARY and call.interaction in WRITTEN:
        await content.require_readable(call, body, screen)
    return body, ()


def _check_body(call: Call, body: bytes) -> None:
    document = json_exact.strict_object(body)
    if document.get("resourceType") != call.resource.type:
        raise BadRequest("The body's resource type is not the one in the address.")
    if call.interaction is Interaction.UPDATE and call.resource.id and document.get("id") != call.resource.id:
        raise BadRequest("The body's id is not the one in the address.")


async def require_own(call: Call, body: bytes, address: Address, read_stored: ReadStored) -> None:
    """A caller limited to one patient writes only inside that patient's compartment: before and after the change.

    Answers are screened as well, but by then the platform would have changed.
    """
    duties = call.decision.obligations if call.decision else Obligations()
    if not duties.compartment or not is_write(call.interaction, call.operation):
        return
    if call.interaction in BUNDLES or call.interaction is Interaction.OPERATION or widening.conditional(call):
        raise Denied("A caller limited to one patient cannot write in bulk or by condition.")
    if call.interaction in BODIES and not _belongs(body, duties.compartment, address):
        raise Denied("The resource would lie outside the patient's record.")
    if call.interaction in CHANGES:
        stored = await read_stored()
        if stored.status != 200 or not _belongs(stored.body, duties.compartment, address):
            raise NotFound("Resource not found")


def looking_at(request: UpstreamRequest) -> UpstreamRequest:
    """The plain read of what a write is about."""
    kept = {k: v for k, v in request.headers.items() if k in ("Accept", "Accept-Encoding", "Authorization")}
    return UpstreamRequest(method="GET", url=request.url, headers=kept, retryable=True)


def _belongs(resource: bytes, patient: str, address: Address) -> bool:
    try:
        return patient in patients_of(peek(resource), address)
    except msgspec.DecodeError:
        return False

"""What is done to datastores, their jobs and tags: our call, the back end's answer (HL-1, HL-10, HL-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadRequest, Problem
from wardmesh_common.organisations import datastore_id
from wardmesh_common.vocabulary import DATASTORE_OPERATIONS, Interaction
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.faults import clean
from wardmesh_fhir_proxy.healthlake import BackendName
from wardmesh_fhir_proxy.healthlake_backend import Backend, Order, Said

JSON = "application/json"
ENDPOINT, IDENTITY = "DatastoreEndpoint", "DatastoreId"
VALIDATION = "ValidationException"
# AWS's code of an error -> our status, code and issue type.
_MEANS = {
    "ResourceNotFoundException": (404, "not_found", "not-found"),
    VALIDATION: (400, "validation_error", "invalid"),
    "ConflictException": (409, "conflict", "conflict"),
    "AccessDeniedException": (403, "forbidden", "forbidden"),
    "ThrottlingException": (429, "throttled", "throttled"),
    "ServiceQuotaExceededException": (429, "throttled", "throttled"),
}
_FAILED = (502, "upstream_unavailable", "transient")


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of such a call."""

    request: dict[str, Any]
    region: str = ""


_asked = msgspec.json.Decoder(Asked)


def concerns(call: Call) -> bool:
    """One of ours: such an operation is never sent to a FHIR server."""
    of_datastore = call.interaction is Interaction.OPERATION and call.resource.type == "Datastore"
    return of_datastore and call.operation in DATASTORE_OPERATIONS


def read_body(body: bytes) -> Asked:
    try:
        return _asked.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise BadRequest("The arguments of this operation cannot be read.") from None


class ControlDesk:
    """Answers in AWS's own members; only addresses are ours."""

    def __init__(self, backends: Mapping[BackendName, Backend]) -> None:
        self._backends = backends

    async def perform(self, call: Call, place: Descriptor, asked: Asked, bearer: str, seconds: float) -> Outcome:
        assert call.principal is not None, "the pair assertion comes first"
        _check_target(call, asked.request)
        order = Order(
            operation=call.operation,
            asked=asked.request,
            principal=call.principal.id,
            token=call.id,
            seconds=seconds,
            bearer=bearer,
        )
        try:
            said = await self._backends[place.healthlake.backend].ask(place, order)
        except BadRequest as error:
            said = Said(400, {}, VALIDATION, error.problem.detail)
        if said.code:
            return refused(said, place)
        own = self._addressed(call, place, asked.region, said.result)
        return Outcome(status=200, body=msgspec.json.encode(own), media_type=JSON)

    def _addressed(self, call: Call, place: Descriptor, region: str, said: Any) -> Any:
        """Datastores are reached through the gateway: their own addresses stay inside (X-3)."""
        if isinstance(said, list):
            return [self._addressed(call, place, region, item) for item in said]
        if not isinstance(said, dict):
            return said
        shown = {name: self._addressed(call, place, region, value) for name, value in said.items()}
        if ENDPOINT in shown and isinstance(shown.get(IDENTITY), str):
            beside = call.base_url.rpartition("/")[0]
            shown[ENDPOINT] = f"{beside}/{datastore_id(call.platform, shown[IDENTITY], region)}/"
        return shown


def _check_target(call: Call, request: dict[str, Any]) -> None:
    """What policy was asked about is what is sent: the datastore of the request is the one in the call."""
    named = request.get(IDENTITY) or str(request.get("ResourceARN", "")).rpartition("/")[2]
    if (named or "") != call.resource.id:
        raise BadRequest("The datastore of the request is not the one that was decided on.")


def refused(said: Said, place: Descriptor) -> Outcome:
    """The control plane's refusal, its text freed of addresses; the code stays AWS's."""
    status, code, issue = _MEANS.get(said.code, _FAILED)
    text = clean(said.message, (place.bases.patient,)) or "The control plane refused the request."
    body = msgspec.json.encode({"code": said.code, "message": text})
    problem = Problem(code=code, status=status, detail=text, issue=issue, station="fhir-proxy")
    return Outcome(status=status, body=body, media_type=JSON, problem=problem)

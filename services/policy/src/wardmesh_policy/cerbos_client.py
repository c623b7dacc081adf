"""The only place that speaks to Cerbos: one gRPC channel, one request for any number of resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from cerbos.engine.v1 import engine_pb2
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from google.protobuf import json_format, struct_pb2
from grpc import aio

from wardmesh_common.errors import Unavailable
from wardmesh_policy.checks import Caller, Check
from wardmesh_policy.verdicts import Unreadable, Verdict, verdict_of

METHOD = "/cerbos.svc.v1.CerbosService/CheckResources"
MAX_RESOURCES = 50  # Cerbos's own limit for one request
EFFECT_ALLOW = 1
NO_ID = "_"

# A dead socket is noticed by the next call; these only matter for one that is silently gone.
OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
]


class CerbosClient:
    """Asks the policy decision point. Whatever goes wrong is Unavailable, never an allow."""

    def __init__(self, target: str) -> None:
        self._channel = _channel(target)
        self._check = self._channel.unary_unary(
            METHOD,
            request_serializer=request_pb2.CheckResourcesRequest.SerializeToString,
            response_deserializer=response_pb2.CheckResourcesResponse.FromString,
        )

    async def close(self) -> None:
        await self._channel.close()

    async def ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]:
        """One verdict per check, in their order. Raises Unavailable."""
        verdicts: list[Verdict] = []
        for start in range(0, len(checks), MAX_RESOURCES):
            verdicts += await self._ask(caller, checks[start : start + MAX_RESOURCES], timeout_seconds)
        return verdicts

    async def _ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]:
        request = request_pb2.CheckResourcesRequest(
            principal=principal_of(caller),
            resources=[entry_of(check, attributes) for check, attributes in checks],
        )
        try:
            response = await self._check(request, timeout=max(0.01, timeout_seconds))
        except (aio.AioRpcError, grpc.RpcError):
            raise Unavailable("The policy decision point is not reachable.") from None
        try:
            return [
                _verdict(caller, check, result) for (check, _), result in zip(checks, response.results, strict=True)
            ]
        except (ValueError, Unreadable):
            raise Unavailable("The policy decision point gave an unreadable answer.") from None


def _channel(target: str) -> aio.Channel:
    """Cerbos answers gRPC on the port of its HTTP API too, so its URL will do (SM-9)."""
    scheme, separator, rest = target.partition("://")
    if not separator:
        return aio.insecure_channel(target, options=OPTIONS)
    address = rest.rstrip("/")
    if scheme == "https":
        return aio.secure_channel(address, grpc.ssl_channel_credentials(), options=OPTIONS)
    return aio.insecure_channel(address, options=OPTIONS)


def principal_of(caller: Caller) -> engine_pb2.Principal:
    attributes = {
        "patient": caller.patient,
        "practitioner": caller.practitioner,
        "compartment": caller.compartment,
        "client_id": caller.client_id,
        "agent": caller.agent,
        "agent_did": caller.agent_did,
    }
    principal = engine_pb2.Principal(id=caller.id, roles=caller.roles)
    for name, value in attributes.items():
        principal.attr[name].string_value = value
    principal.attr["capabilities"].list_value.extend(caller.capabilities)
    principal.attr["anonymous"].bool_value = caller.anonymous
    principal.attr["in_browser"].bool_value = caller.in_browser
    return principal


def entry_of(check: Check, attributes: dict[str, Any]) -> request_pb2.CheckResourcesRequest.ResourceEntry:
    """Cerbos wants an id: what has none yet is called NO_ID, which no FHIR id can be."""
    given = struct_pb2.Struct()
    given.update(attributes)
    resource = engine_pb2.Resource(kind=check.kind, id=check.id or NO_ID)
    for name, value in given.fields.items():
        resource.attr[name].CopyFrom(value)
    return request_pb2.CheckResourcesRequest.ResourceEntry(resource=resource, actions=[check.action])


def _verdict(caller: Caller, check: Check, result: Any) -> Verdict:
    if (result.resource.kind, result.resource.id) != (check.kind, check.id or NO_ID) or any(
        output.error for output in result.outputs
    ):
        raise Unreadable
    outputs = [(output.src, json_text(output.val)) for output in result.outputs]
    roles = ", ".join(caller.roles)
    missing = f"no rule allows {check.action} on {check.kind} for role {roles}"
    return verdict_of(result.actions.get(check.action, 0) == EFFECT_ALLOW, outputs, missing=missing)


def json_text(value: struct_pb2.Value) -> str:
    """An output is either a JSON text or a structure; both become text."""
    if value.HasField("string_value"):
        return value.string_value
    return json_format.MessageToJson(value, indent=None)

"""The OpenAPI document: valid, complete, and what the gateway really does (FG-29)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from gateway.rest_stage import PATIENT, WRITER, FakeDelivery, Stage, ok
from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.audit_face import PREFIXES as LEDGER
from wardmesh_gateway.catalogue_api import create_catalogue_api
from wardmesh_gateway.router import UNRECORDED_ROUTES
from wardmesh_gateway.tools import TOOLS
from wardmesh_gateway.tools_sign_in import SIGN_IN_TOOLS
from wardmesh_gateway.tools_smedrec import KINDS

LEDGER_ID = "0190c8a0-0000-7000-8000-000000000000"
BUNDLE = b'{"resourceType":"Bundle","type":"searchset","total":0}'


def document() -> dict[str, Any]:
    return asyncio.run(Stage().send("GET", "/openapi.json")).json()


DOCUMENT = document()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.mark.requirement("FG-29")
def test_every_route_and_tool_is_described() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    paths = DOCUMENT["paths"].keys()
    assert {f"/v1/tools/{tool.name}" for tool in TOOLS} <= paths
    assert {"/health", "/api/platforms", "/api/platforms/{platform_id}"} <= paths
    for face in ("/api/fhir/{platform}", "/fhir/{platform}"):
        assert {f"{face}/metadata", f"{face}/{{resource_type}}", f"{face}/{{resource_type}}/{{resource_id}}"} <= paths
    names = [
        operation["operationId"]
        for item in DOCUMENT["paths"].values()
        for key, operation in item.items()
        if key != "parameters"
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_every_described_route_makes_a_call_unless_it_is_on_the_list_of_unrecorded_ones(path: str) -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"resourceType":"CapabilityStatement","total":1,"success":true}')
    values = {
        "platform": "smarthealthit-sandbox-patient" if path.startswith("/auth/") else "store",
        "resource_type": "Patient", "resource_id": "p1", "version_id": "1",
        "operation": "$everything", "platform_id": "store", "log": "0", "level": "0", "number": "000",
        "event_id": LEDGER_ID, "hold_id": LEDGER_ID, "review_id": LEDGER_ID, "patient_id": "p1", "actor_id": "a",
        "procedure_code": "70551", "day": "2026-05-04",
    }  # fmt: skip
    target = re.sub(r"{(\w+)}", lambda found: values[found[1]], path)
    target += "?patient=p1" if path == "/v1/disclosures" else ""
    item = {key: value for key, value in DOCUMENT["paths"][path].items() if key != "parameters"}
    for method in item:
        asyncio.run(
            stage.send(
                method.upper(), target, headers={**WRITER, **_headers(path, method)}, content=_body(path, method)
            )
        )
    each = 2 if path.endswith("list_fhir_jobs") else 1  # both kinds of jobs are asked for
    assert len(stage.bus.calls) == (0 if path in UNRECORDED_ROUTES else each * len(item))


def test_what_is_not_described_is_on_the_list_of_unrecorded_routes() -> None:
    api = create_catalogue_api(Stage().platforms, registered=lambda _: False, public_url="http://gateway.test")
    assert {route.path for route in api.routes if isinstance(route, Route)} <= set(UNRECORDED_ROUTES)


def _headers(path: str, method: str) -> dict[str, str]:
    if path.endswith("_search"):
        return {"content-type": "application/x-www-form-urlencoded"}
    if path.startswith(LEDGER):
        scopes = "fhir.read,audit.read,audit.manage"
        return {"authorization": f"Bearer doctor:{scopes}", "content-type": "application/json"}
    kind = "application/json-patch+json" if method == "patch" else "application/fhir+json"
    return {"content-type": kind, "x-requested-with": "test"}


COVERED = {"patient_id": "p1", "coverage_id": "c1", "procedure_code": "70551"}


def _body(path: str, method: str) -> bytes | None:
    if path.startswith("/v1/tools/"):
        name = path.rpartition("/")[2]
        own = next((tool for tool in SIGN_IN_TOOLS if tool.name == name), None)
        known: dict[str, Any] = {
            "platform_id": "store" if own is None else "smarthealthit-sandbox-patient",
            "resource_type": "Patient", "resource_id": "p1", "operation": "$everything", "code": "c", "state": "s",
            "resource": {"resourceType": "Patient"}, "fields": {"active": True},
            **COVERED, "query": "clinic", "url": "http://gateway.test/fhir/store/Patient?_cursor=a",
        }  # fmt: skip
        spec = next(tool for tool in TOOLS if tool.name == name)
        required = spec.input["required"]
        if spec.family:
            kind = next((kind for kind in KINDS if kind in name), "Patient")  # of the resource that a tool stores
            return (
                json.dumps(sample(spec.input))
                .replace('"resourceType": "Patient"', f'"resourceType": "{kind}"')
                .encode()
            )
        return json.dumps({key: known[key] for key in required}).encode()
    if path.startswith("/api/break-glass"):
        return b'{"platform_id":"store","patient_id":"p1","reason_code":"other","reason":"r","break_glass":"x"}'
    if path.startswith("/api/token"):
        return b'{"username":"u","password":"p","refresh":"r"}'
    if method == "patch":
        return b"[]"
    if path.startswith("/api/coverage/"):
        kept = COVERED if path.endswith("requirements") else {"coverage_id": "c1"}
        return json.dumps(kept).encode() if method == "post" else None
    if path == "/fhir/{platform}":
        return b'{"resourceType":"Bundle","type":"batch"}'
    return PATIENT if method in ("post", "put") and not path.endswith("_search") else None


DATASTORE = "0123456789abcdef" * 2
PERSON = {"resourceType": "Patient", "id": "p1"}
VALUES: dict[str, Any] = {
    "datastore_id": DATASTORE, "resource_arn": f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{DATASTORE}",
    "resource_type": "Patient", "resourceType": "Patient", "compartment_type": "Patient",
    "resource_id": "p1", "id": "p1",
    "resource_data": PERSON, "resource": PERSON, "bundle_resources": [PERSON],
}  # fmt: skip


def sample(schema: dict[str, Any], name: str = "") -> Any:
    """Something that the schema takes; what has to mean something comes from VALUES."""
    if name in VALUES:
        return VALUES[name]
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {each: sample(schema["properties"][each], each) for each in schema.get("required", ())}
    if schema["type"] == "array":
        return [sample(schema["items"])]
    return "x"


async def platform(call: Call) -> FakeDelivery:
    if call.procedure:
        said = b'{"success":true,"location":"https://platform.test/authorize?state=abc","platforms":{}}'
        return FakeDelivery(msgspec.structs.replace(ok(said), media_type="application/json"))
    statement = call.interaction is Interaction.CAPABILITIES
    return FakeDelivery(ok(b'{"resourceType":"CapabilityStatement"}' if statement else BUNDLE))


def permissive() -> Stage:
    stage = Stage(rate_limit=10**9)
    stage.bus.reply = platform
    return stage


schema = schemathesis.openapi.from_asgi("/openapi.json", permissive().router)


@schema.parametrize()
@hypothesis.settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_what_the_document_promises_holds_for_generated_requests(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=WRITER, checks=CHECKS)

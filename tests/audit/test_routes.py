"""Every way in, of every service, is recorded or stands here with the reason why not: a new one fails until it does."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from gateway import mcp_stage
from gateway.rest_stage import Stage, ok
from wardmesh_audit.cosignature import Cosigner
from wardmesh_audit.note import Signer
from wardmesh_audit.witness import Witness
from wardmesh_audit.witness_server import application
from wardmesh_audit.witness_store import WitnessStore
from wardmesh_common import contracts
from wardmesh_common.contracts import SUBJECTS
from wardmesh_common.health import Health
from wardmesh_gateway.catalogue_api import create_catalogue_api
from wardmesh_gateway.coverage_face import CoverageFace
from wardmesh_gateway.ledger_face import LedgerFace
from wardmesh_gateway.router import UNRECORDED_ROUTES
from wardmesh_gateway.sign_in_face import SignInFace

SERVICES = Path(__file__).resolve().parents[2] / "services"

# Subjects whose receiver records nothing. The broker's permissions let nobody listen on a subject outside SUBJECTS.
UNRECORDED_SUBJECTS = {
    "mesh.cancel": "the call that it ends is recorded as abandoned by the station that holds it",
    "mesh.seek": "asks who holds a call, by its id; the loss itself is recorded by the gateway",
    "mesh.load.auth.*": "how busy a replica is",
    "mesh.load.fhir-proxy.*": "how busy a replica is",
    "mesh.load.audit.*": "how busy a replica is",
    "audit.in.*": "is the record",
    "gw.reply.*": "between replicas of the gateway: an answer to a call that is recorded",
    "gw.cancel": "between replicas of the gateway: ends a call that is recorded",
    "gw.events": "between replicas of the gateway: that a list has changed",
    "gw.rate": "between replicas of the gateway: counters",
    "gw.wait": "between replicas of the gateway: that somebody waits, by a digest",
    "ask.fhir.catalogue.get": "our own documents about platforms",
    "ask.fhir.directory.search": "our own documents about organisations",
    "ask.fhir.organisation.get": "our own documents about organisations",
    "ask.policy.kinds.check": "part of deciding a call that is recorded",
    "ask.policy.tools.check": "which tools a list shows: nothing is read",
    "ask.audit.key.lend": "part of making a record; the key events are recorded by the keys role",
    "ask.auth.token.check": "part of letting a caller in; a refusal is recorded at the gateway's door",
    "ask.auth.token.renew": "part of performing a call; auth records each renewal by itself",
    "event.store.version.committed.*.*": "that the store has a new version, not what it says; the write is recorded",
    "event.fhir.catalogue.changed": "tells that something has changed, not what",
    "event.policy.bundle.changed": "tells that something has changed, not what; every decision names its version",
    "event.auth.session.revoked": "the procedure that revoked is recorded",
    "event.auth.grant.changed": "the procedure that changed it is recorded",
}

# Addresses of a browser that answer without a call when nobody is signed in, or out of our own memory.
UNRECORDED_PAGES = {
    "/": "for somebody unknown a page that says nothing; for a session the question to auth is a call",
    "/.well-known/jwks.json": "our own public keys; asked of auth, by a call, once a minute",
    "/auth/logout": "without a session there is nothing to end; with one it is a call",
    "/logout": "as /auth/logout",
}

EVENT_ID = "0190c8a0-0000-7000-8000-000000000000"
UNRECORDED_VIEWS = {
    "/patient": "an empty form; what it asks is posted, and a call",
    f"/reviews/{EVENT_ID}": "a form is posted there, which is a call; to look at there is nothing",
}

# Methods of the protocol that reach no platform and no ledger.
UNRECORDED_METHODS = {
    "ping": "is anybody there",
    "server/discover": "what we are",
    "tools/list": "names of tools, by what policy allows",
    "prompts/list": "our own texts",
    "prompts/get": "our own texts, with the caller's words in them",
    "resources/list": "our own documents",
    "resources/templates/list": "our own documents",
    "resources/read": "our own documents about platforms",
    "subscriptions/listen": "that one of these lists has changed",
    "completion/complete": "names out of our own documents",
    "logging/setLevel": "how much the protocol says",
    "tasks/get": "how far a sign-in is: asked of auth, by a call",
    "tasks/update": "as tasks/get",
    "tasks/cancel": "ends a sign-in: told to auth, by a call",
}
UNRECORDED_OF_OTHERS = {
    "witness": {
        "POST /add-checkpoint": "a public note about sizes and hashes; what was refused is kept as evidence",
        "GET /log/{place}/checkpoint": "a public note",
        "GET /readyz": "health",
        "GET /livez": "health",
    },
    "health": {"/livez": "health", "/readyz": "health", "/startupz": "health"},
}
BODY = {
    "platform_id": "store", "patient_id": "p1", "reason_code": "other", "reason": "r", "break_glass": "x",
    "username": "u", "password": "p", "refresh": "r",
}  # fmt: skip
WHO = {
    "authorization": "Bearer doctor:fhir.read,fhir.write,audit.read,audit.manage",
    "content-type": "application/json",
    "x-requested-with": "test",
}


def recorded(target: str, method: str = "GET", **headers: str) -> bool:
    """Whether this request becomes a call, which its station records, or a record of the gateway's own."""
    stage = Stage()
    stage.bus.reply = ok(b'{"success":true,"total":1,"resourceType":"CapabilityStatement"}')
    content = json.dumps(BODY).encode() if method == "POST" else None
    asyncio.run(stage.send(method, target, headers={**WHO, **headers}, content=content))
    return bool(stage.bus.calls or stage.bus.recorded)


def received() -> dict[str, set[str]]:
    """How services take in what comes over the bus: method of the bus -> names of subjects in the source."""
    found: dict[str, set[str]] = {"station": set(), "answer": set(), "hear": set()}
    for path in SERVICES.glob("*/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            first = ast.unparse(node.args[0])
            if node.func.attr in found and (first.isupper() or first.startswith("perform_subject(")):
                found[node.func.attr].add(first)
    return found


@pytest.mark.requirement("AU-110")
def test_every_subject_is_a_station_of_the_call_or_has_a_reason_why_nothing_is_recorded() -> None:
    subjects = {rule.subject for rule in SUBJECTS}
    stations = {subject for subject in subjects if subject.startswith("call.")}
    assert subjects - stations == set(UNRECORDED_SUBJECTS)


@pytest.mark.requirement("AU-110")
def test_a_call_comes_in_through_a_station_and_nowhere_else() -> None:
    """`Station` records every ending of every call; `answer` and `hear` do not."""
    found = received()
    assert {"DECIDE", "IDENTIFY"} < found["station"]
    assert {'perform_subject("fhir")', "perform_subject('fhir')"} & found["station"]
    for name in found["answer"] | found["hear"]:
        assert getattr(contracts, name) in UNRECORDED_SUBJECTS
    for name in (name for name in found["station"] if name.isupper()):
        assert getattr(contracts, name) not in UNRECORDED_SUBJECTS


@pytest.mark.requirement("AU-110")
def test_the_gateway_has_these_faces_and_no_other() -> None:
    router: Any = Stage().router
    assert {prefix for prefix, *_ in router._faces} == {"/api/fhir/", "/fhir/", "/v1/tools/"}
    assert {type(owner) for owner in router._owners} == {SignInFace, LedgerFace, CoverageFace}
    # What the documents of the catalogue answer, and every path and tool that is described, is compared with the list
    # of unrecorded routes in tests/gateway/test_openapi.py.
    api = create_catalogue_api(Stage().platforms, registered=lambda _: False, public_url="http://gateway.test")
    assert {route.path for route in api.routes if isinstance(route, Route)} <= set(UNRECORDED_ROUTES)


@pytest.mark.requirement("AU-110")
def test_every_address_of_the_sign_in_is_recorded_or_has_a_reason() -> None:
    face: Any = next(owner for owner in Stage().router._owners if isinstance(owner, SignInFace))
    addresses = {path: method for path, (method, _) in face._routes.items()}
    place = "/auth/smarthealthit-sandbox-patient"
    addresses |= {f"{place}/{name}": method for name, (method, _) in face._platform_routes.items()}
    addresses |= {"/auth/callback": "GET", "/oauth/callback": "GET", "/auth/callback/store": "GET"}
    assert set(UNRECORDED_PAGES) <= set(addresses)
    for path, method in addresses.items():
        headers = {"authorization": ""} if path in UNRECORDED_PAGES else {}
        target = f"{path}?code=c&state=s" if "callback" in path else path
        assert recorded(target, method, **headers) or path in UNRECORDED_PAGES, path


@pytest.mark.requirement("AU-110")
def test_every_view_of_the_console_is_recorded() -> None:
    source = SERVICES / "gateway/src/wardmesh_gateway/console.py"
    texts = {
        part.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.JoinedStr) and ast.unparse(node).startswith(("f'{ROOT}", 'f"{ROOT}', "rf'{ROOT}"))
        for part in node.values
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }
    views = {text.split("(")[0] + (EVENT_ID if "(" in text else "") for text in texts if text.startswith("/")}
    assert {"/events", "/patient", "/reviews", "/verification", "/stream"} <= views
    for view in {"", *views} - set(UNRECORDED_VIEWS):
        assert recorded(f"/console/audit{view}"), view


@pytest.mark.requirement("AU-110")
@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/api/fhir/store/Patient?_count=abc;", {}),  # 400
        ("POST", "/v1/tools/read", {}),  # 400
        ("GET", "/api/fhir/store/Patient/p1", {"authorization": "Bearer nonsense"}),  # 401
        ("GET", "/fhir/store/Patient/p1", {"authorization": "Bearer doctor:audit.read"}),  # 403
        ("GET", "/api/fhir/nowhere/Patient/p1", {}),  # 404, no such platform
        ("PUT", "/fhir/store/Patient/p1", {"content-type": "text/csv"}),  # 415
    ],
)
def test_what_the_gateway_refuses_by_itself_is_recorded(method: str, target: str, headers: dict[str, str]) -> None:
    assert recorded(target, method, **headers)


@pytest.mark.requirement("AU-110")
def test_too_many_requests_are_recorded() -> None:
    async def run() -> list[int]:
        stage = Stage(rate_limit=1)
        statuses = [(await stage.get("/api/fhir/store/Patient/p1", headers=WHO)).status_code for _ in range(3)]
        await asyncio.sleep(0)
        assert [outcome.status for _, outcome in stage.bus.recorded] == [429]
        return statuses

    assert asyncio.run(run()) == [200, 429, 429]


@pytest.mark.requirement("AU-110")
def test_every_method_of_the_protocol_is_a_call_or_has_a_reason() -> None:
    async def run() -> tuple[set[str], int]:
        async with mcp_stage.stage() as stage:
            face: Any = stage.face
            methods = set(face._json.app._request_handlers)
            await stage.modern("tools/call", {"name": "read", "arguments": {"platform_id": "store"}})
            return methods, len(stage.door.calls)

    methods, calls = asyncio.run(run())
    assert calls == 1, "a tool goes through the door; tests/gateway/test_openapi.py drives every tool of ours"
    assert methods - {"tools/call"} - set(UNRECORDED_METHODS) == set()


@pytest.mark.requirement("AU-110")
def test_other_processes_answer_only_what_has_a_reason(tmp_path: Path) -> None:
    signer = Signer("test/audit/0", bytes(32))
    store = WitnessStore(tmp_path / "witness.sqlite3")
    app = application(Witness(store, [signer.verifier], Cosigner("w", bytes(range(32)))), ["test/audit/0"])
    routes = {f"{r.method} {r.resource.canonical}" for r in app.router.routes() if r.resource and r.method != "HEAD"}
    assert routes == set(UNRECORDED_OF_OTHERS["witness"])
    health = Health()
    answered = {path for path in ("/livez", "/readyz", "/startupz", "/metrics", "/") if health.answer(path)[0] != 404}
    assert answered == set(UNRECORDED_OF_OTHERS["health"])


@pytest.mark.requirement("AU-110")
def test_the_store_is_a_platform_and_offers_nothing_beside_what_platforms_are_asked() -> None:
    """Nobody but fhir-proxy is let in (ADR 7), so every request to it is part of a call that fhir-proxy records."""
    assert not list((SERVICES / "fhir-store/src").rglob("*gateway*"))
    front = (SERVICES / "fhir-store/src/wardmesh_fhir_store/front.py").read_text()
    assert front.count("Router(") == 1, "one router per datastore"

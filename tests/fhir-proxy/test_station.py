"""The service as it runs: on a real broker, between stand-ins for auth and policy."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engines import nats
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_CATALOGUE,
    ASK_KINDS,
    DECIDE,
    EVENT_CATALOGUE_CHANGED,
    IDENTIFY,
    Call,
    Outcome,
    Touched,
    perform_subject,
)
from wardmesh_common.health import Health
from wardmesh_common.questions import Ask, Catalogue, Changed, KindsAnswer, KindsQuestion, KindVerdict
from wardmesh_common.settings import BadSettings
from wardmesh_common.station import Hop
from wardmesh_common.token_seal import seal_token
from wardmesh_common.vocabulary import Decision, Face, Grant, Interaction, Obligations, Principal, Resource
from wardmesh_fhir_proxy import settings
from wardmesh_fhir_proxy.app import create_app

pytestmark = pytest.mark.anyio

SEAL_KEY = bytes(range(32, 64))
ENVIRON = {
    "WARDMESH_TOKEN_SEAL_KEY": base64.urlsafe_b64encode(SEAL_KEY).decode(),
    "WARDMESH_CURSOR_KEYS": f'["{base64.urlsafe_b64encode(bytes(32)).decode()}"]',
}


class Records:
    """Stands in for the recorder; remembers the order of things."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.outcomes: list[Outcome] = []
        self.requests_at_intent: list[int] = []

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        self.requests_at_intent.append(len(self.upstream.requests))

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Mesh:
    def __init__(self, gateway: Bus, records: Records) -> None:
        self.gateway = gateway
        self.records = records
        self.duties = Obligations()
        self.kinds: dict[str, Obligations] = {}

    async def identify(self, call: Call, hop: Hop) -> Call:
        call.principal = Principal(id="p1", roles=("Doctor",))
        sealed = seal_token(SEAL_KEY, "platform-token", call_id=call.id, platform=call.platform, principal_id="p1")
        call.grant = Grant(platform=call.platform, sealed_token=sealed)
        return call

    def decision(self, covers: str, duties: Obligations, *, allowed: bool = True) -> Decision:
        return Decision(
            id="d",
            allowed=allowed,
            reason="r",
            policy_version="1",
            covers=covers,
            expires=time.time() + 30,
            obligations=duties,
        )

    async def decide(self, call: Call, hop: Hop) -> Call:
        call.decision = self.decision(call.digest(), self.duties)
        return call

    async def check_kinds(self, question: KindsQuestion, ask: Ask) -> KindsAnswer:
        return KindsAnswer(
            verdicts=tuple(
                KindVerdict(
                    kind=k, decision=self.decision("", self.kinds.get(k, Obligations()), allowed=k in self.kinds)
                )
                for k in question.kinds
            )
        )

    async def read(self, interaction: str, kind: str, identity: str = "", **more: Any) -> tuple[Any, bytes]:
        call = Call(
            id=os.urandom(8).hex(),
            reply_to="",
            face=Face.FHIR,
            tool=interaction,
            interaction=Interaction(interaction),
            platform="probe",
            deadline=time.time() + 10,
            resource=Resource(type=kind, id=identity),
            base_url="http://gateway.example/fhir/probe",
            **more,
        )
        delivery = await self.gateway.submit(call, more.get("body"))
        return delivery.reply, await delivery.body()


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with nats() as running:
        yield running.url


@pytest.fixture
async def mesh(upstream: Any, tmp_path: Path, nats_url: str) -> AsyncIterator[Mesh]:
    descriptor = {"id": "probe", "name": "P", "type": "sandbox", "bases": {"patient": upstream.base}, "writes": True}
    (tmp_path / "probe.yaml").write_bytes(msgspec.json.encode(descriptor))
    read = settings.read({**ENVIRON, "WARDMESH_PLATFORMS_DIR": str(tmp_path)})
    async with AsyncExitStack() as stack:
        buses: dict[str, Bus] = {}
        for service in ("gateway", "auth", "policy", "fhir-proxy"):
            buses[service] = await Bus.connect(service, nats_url, "")
            stack.push_async_callback(buses[service].close)
            buses[service].recorder = Records(upstream)
        records = buses["fhir-proxy"].recorder
        assert isinstance(records, Records)
        made = Mesh(buses["gateway"], records)
        await buses["auth"].station(IDENTIFY, made.identify, onward=DECIDE)
        await buses["policy"].station(DECIDE, made.decide, onward=perform_subject("fhir"))
        await buses["policy"].answer(ASK_KINDS, KindsQuestion, made.check_kinds)
        await stack.enter_async_context(create_app(read, buses["fhir-proxy"], Health()))
        yield made


async def test_a_read_travels_to_the_platform_with_the_opened_token_and_back(mesh: Mesh, upstream: Any) -> None:
    upstream.answer({"resourceType": "Patient", "id": "p1"}, ETag='W/"1"')
    reply, body = await mesh.read("read", "Patient", "p1")
    assert (reply.status, reply.headers["ETag"]) == (200, 'W/"1"')
    assert msgspec.json.decode(body) == {"resourceType": "Patient", "id": "p1"}
    assert upstream.requests[0].headers["Authorization"] == "Bearer platform-token"
    assert mesh.records.outcomes[0].touched == (
        Touched(patient="probe/Patient/p1", type="Patient", ids=("p1",), count=1),
    )


async def test_a_write_is_recorded_before_the_platform_sees_it(mesh: Mesh, upstream: Any) -> None:
    upstream.answer({"resourceType": "Patient", "id": "n1"}, 201)
    reply, _ = await mesh.read("create", "Patient", body=b'{"resourceType":"Patient"}')
    assert reply.status == 201
    assert mesh.records.requests_at_intent == [0]
    assert len(upstream.requests) == 1


@pytest.mark.requirement("PX-11")
async def test_px11_policy_is_asked_over_the_bus_about_included_kinds(mesh: Mesh, upstream: Any) -> None:
    rows = [{"resource": {"resourceType": k, "id": "1"}} for k in ("Observation", "Practitioner", "Claim")]
    upstream.answer({"resourceType": "Bundle", "type": "searchset", "entry": rows})
    mesh.kinds = {"Practitioner": Obligations()}
    reply, body = await mesh.read("search", "Observation")
    kinds = [e["resource"]["resourceType"] for e in msgspec.json.decode(body)["entry"]]
    assert kinds == ["Observation", "Practitioner", "OperationOutcome"]
    assert reply.withheld == 1


async def test_px6_a_bundle_of_twenty_megabytes_passes_through_byte_identical(mesh: Mesh, upstream: Any) -> None:
    resource = b'{"resourceType":"Observation","id":"o","valueString":"%s"}' % (b"x" * 20_000)
    entries = b",".join(b'{"resource":%s}' % resource for _ in range(1000))
    upstream.answer(b'{"resourceType":"Bundle","type":"searchset","entry":[%s]}' % entries)
    _, body = await mesh.read("search", "Observation")
    assert body.count(resource) == 1000


@pytest.mark.requirement("FG-32")
async def test_fg32_the_catalogue_is_asked_for_and_its_change_is_told(
    mesh: Mesh, upstream: Any, tmp_path: Path
) -> None:
    catalogue = await mesh.gateway.ask(ASK_CATALOGUE, Changed(version=""), Catalogue)
    assert {"store", "probe", "epic"} < {p.id for p in catalogue.platforms}
    heard = asyncio.Event()

    async def hear(changed: Changed) -> None:
        heard.set()

    await mesh.gateway.hear(EVENT_CATALOGUE_CHANGED, Changed, hear)
    (tmp_path / "probe.yaml").write_text(
        f"id: probe\nname: Renamed\ntype: sandbox\nbases: {{patient: '{upstream.base}'}}\n"
    )
    os.kill(os.getpid(), 1)  # SIGHUP
    async with asyncio.timeout(5):
        await heard.wait()
    again = await mesh.gateway.ask(ASK_CATALOGUE, Changed(version=""), Catalogue)
    assert {p.id: p.name for p in again.platforms}["probe"] == "Renamed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"WARDMESH_TOKEN_SEAL_KEY": "short"}, "WARDMESH_TOKEN_SEAL_KEY"),
        ({"WARDMESH_CURSOR_KEYS": "[]"}, "WARDMESH_CURSOR_KEYS"),
        ({"WARDMESH_CURSOR_KEYS": '["AAAA"]'}, "WARDMESH_CURSOR_KEYS"),
    ],
)
def test_wrong_keys_are_named_without_their_value(change: dict[str, str], message: str) -> None:
    with pytest.raises(BadSettings, match=message) as refused:
        settings.read({**ENVIRON, **change})
    assert "AAAA" not in str(refused.value) and "short" not in str(refused.value)

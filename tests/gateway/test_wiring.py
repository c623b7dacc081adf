"""Two gateway replicas on a real broker, with the real HTTP server, over small stations."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

import engines
from auth.fake_issuer import AUDIENCE, FakeIssuer, issuer
from common.mesh_in_a_process import MemoryRecorder, SmallMesh, small_mesh
from gateway.rest_stage import PLATFORMS
from wardmesh_cli.ports import free_port
from wardmesh_common.contracts import ASK_CATALOGUE, EVENT_CATALOGUE_CHANGED, Call, Outcome
from wardmesh_common.health import Health
from wardmesh_common.questions import Ask, Catalogue, CatalogueQuestion, Changed
from wardmesh_common.settings import BadSettings
from wardmesh_common.station import Hop
from wardmesh_gateway.app import create_app
from wardmesh_gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
KEYS = json.dumps([base64.urlsafe_b64encode(b"k" * 32).decode()])
READ = "/api/fhir/store/Patient/p1"


@pytest.fixture(scope="module")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine


class Mesh:
    """What a test needs: the replicas' addresses, a token, what the performer saw and shall say."""

    def __init__(self, small: SmallMesh, token_issuer: FakeIssuer) -> None:
        self.small = small
        self.issuer = token_issuer
        self.bases: list[str] = []
        self.seen: list[tuple[Call, bytes]] = []
        self.answer = Outcome(status=200, body=b'{"resourceType":"Patient","id":"p1"}')
        self.hold: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.catalogue = Catalogue(version="1", platforms=PLATFORMS)

    def headers(self, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.issuer.sign(**claims)}"}

    async def perform(self, call: Call, hop: Hop) -> Outcome:
        self.entered.set()
        self.seen.append((call, await hop.body()))
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return Outcome(status=self.answer.status, body=self.answer.body, headers=dict(self.answer.headers))

    async def facts(self, _question: CatalogueQuestion, _ask: Ask) -> Catalogue:
        return self.catalogue


@asynccontextmanager
async def mesh_of(nats: engines.Nats, replicas: int = 2, **settings: Any) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        token_issuer = await stack.enter_async_context(issuer())
        small = await stack.enter_async_context(small_mesh(nats.url))
        mesh = Mesh(small, token_issuer)
        await small.remove(small.performer)
        small.performer = await small.add_performer(mesh.perform)
        await small.performer.answer(ASK_CATALOGUE, CatalogueQuestion, mesh.facts)
        for _ in range(replicas):
            bus = await small.bus("gateway")
            port = free_port()
            ready = GatewaySettings(
                port=port,
                public_url="http://gateway.test",
                issuer=token_issuer.url,
                audience=AUDIENCE,
                gateway_keys=KEYS,
                allowed_hosts="127.0.0.1",
                **settings,
            )
            await stack.enter_async_context(create_app(ready, bus, Health(), environ={}))
            mesh.bases.append(f"http://127.0.0.1:{port}")
        async with aiohttp.ClientSession() as http, asyncio.timeout(60):
            for base in mesh.bases:
                while (await (await http.get(f"{base}/health")).json())["platforms_registered"] == 0:
                    await asyncio.sleep(0.01)
        yield mesh


async def test_every_face_of_every_replica_reaches_the_performer_through_the_same_journey(nats: engines.Nats) -> None:
    async with mesh_of(nats) as mesh, aiohttp.ClientSession(headers=mesh.headers()) as http:
        for base in mesh.bases:
            body = {"platform_id": "store", "resource_type": "Patient", "resource_id": "p1"}
            for answer in (
                await http.get(base + READ),
                await http.get(f"{base}/fhir/store/Patient/p1"),
                await http.post(f"{base}/v1/tools/read", json=body),
            ):
                assert (answer.status, await answer.read()) == (200, mesh.answer.body)
        assert [str(call.face) for call, _ in mesh.seen] == ["rest", "fhir", "rest"] * 2
        assert all(call.principal and call.principal.id == "p" for call, _ in mesh.seen)


async def test_an_mcp_client_lists_platforms_and_reads_through_the_same_door(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh, aiohttp.ClientSession(headers=mesh.headers()) as http:
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "read",
                "arguments": {"platform_id": "store", "resource_type": "Patient", "resource_id": "p1"},
            },
        }
        accept = {"accept": "application/json, text/event-stream"}
        answer = await http.post(f"{mesh.bases[0]}/mcp", json=message, headers=accept)
        result = (await answer.json())["result"]
        assert result["structuredContent"] == {"resourceType": "Patient", "id": "p1"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert str(mesh.seen[0][0].face) == "mcp"
        assert mesh.seen[0][0].view.max_bytes == 60_000


async def test_large_bodies_pass_in_both_directions(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh:
        mesh.answer = Outcome(status=201, body=b'{"resourceType":"Bundle","x":"' + b"a" * 5_000_000 + b'"}')
        headers = {**mesh.headers(scope="fhir.read fhir.write"), "content-type": "application/fhir+json"}
        body = b'{"resourceType":"Patient","x":"' + b"b" * 3_000_000 + b'"}'
        async with aiohttp.ClientSession(headers=headers) as http:
            answer = await http.post(f"{mesh.bases[0]}/fhir/store/Patient", data=io.BytesIO(body))
            assert answer.status == 201
            assert hashlib.sha256(await answer.read()).digest() == hashlib.sha256(mesh.answer.body).digest()
        assert mesh.seen[0][1] == body
        assert mesh.seen[0][0].parked is not None


async def test_a_caller_that_hangs_up_stops_the_work(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh:
        mesh.hold = asyncio.Event()
        async with aiohttp.ClientSession(headers=mesh.headers()) as http, asyncio.timeout(60):
            task = asyncio.create_task(http.get(mesh.bases[0] + READ))
            await mesh.entered.wait()
            task.cancel()
            await mesh.cancelled.wait()
        recorder = mesh.small.performer.recorder
        assert isinstance(recorder, MemoryRecorder)
        async with asyncio.timeout(30):
            while recorder.codes() != ["abandoned"]:
                await asyncio.sleep(0.01)


async def test_a_missing_station_is_503_at_once_and_recorded(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh, aiohttp.ClientSession(headers=mesh.headers()) as http:
        await mesh.small.remove(mesh.small.auth)
        started = asyncio.get_running_loop().time()
        answer = await http.get(mesh.bases[0] + READ)
        assert answer.status == 503
        assert await answer.json() == {"detail": "No instance of auth is up."}
        assert asyncio.get_running_loop().time() - started < 10, "long before a call's deadline"
        recorder = mesh.small.buses[-1].recorder
        assert isinstance(recorder, MemoryRecorder)
        assert recorder.codes() == ["unavailable"]


@pytest.mark.requirement("X-10")
async def test_replicas_share_the_budget_of_one_principal(nats: engines.Nats) -> None:
    async with mesh_of(nats, rate_limit=40) as mesh, aiohttp.ClientSession() as http:
        headers = [mesh.headers(iat=number) for number in (1, 2)]
        statuses: list[int] = []
        for number in range(60):
            base = mesh.bases[number % 2]
            async with http.get(base + READ, headers=headers[number % 3 % 2]) as answer:
                statuses.append(answer.status)
        # Each replica holds back at most 5 % of the limit from the other, plus what is on its way.
        assert 40 <= statuses.count(200) <= 44
        assert statuses[-1] == 429
        async with http.get(mesh.bases[0] + READ, headers=mesh.headers(sub="demo_nurse")) as answer:
            assert answer.status == 200


async def test_a_change_of_the_catalogue_reaches_every_replica(nats: engines.Nats) -> None:
    async with mesh_of(nats) as mesh, aiohttp.ClientSession() as http:
        mesh.catalogue = Catalogue(version="2", platforms=PLATFORMS[:2])
        await mesh.small.performer.tell(EVENT_CATALOGUE_CHANGED, Changed(version="2"))
        async with asyncio.timeout(60):
            for base in mesh.bases:
                while (await (await http.get(f"{base}/api/platforms")).json())["total"] != 2:
                    await asyncio.sleep(0.01)


async def test_a_token_for_somebody_else_is_not_good_here(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh, aiohttp.ClientSession() as http:
        for claims in ({"aud": "https://other.example"}, {"exp": 1}, {"iss": "https://evil.example"}):
            async with http.get(mesh.bases[0] + READ, headers=mesh.headers(**claims)) as answer:
                assert answer.status == 401
        assert mesh.seen == []


async def test_a_replica_that_stops_finishes_what_it_has_begun(nats: engines.Nats) -> None:
    async with aiohttp.ClientSession() as http:
        async with mesh_of(nats, replicas=1) as mesh:
            mesh.hold = asyncio.Event()
            task = asyncio.create_task(http.get(mesh.bases[0] + READ, headers=mesh.headers()))
            await mesh.entered.wait()
            asyncio.get_running_loop().call_later(0.2, mesh.hold.set)
        answer = await task
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(mesh.bases[0] + READ)


async def test_a_taken_port_is_a_configuration_fault_told_before_anything_starts(nats: engines.Nats) -> None:
    async with mesh_of(nats, replicas=1) as mesh:
        port = int(mesh.bases[0].rpartition(":")[2])
        settings = GatewaySettings(port=port, gateway_keys=KEYS)
        bus = await mesh.small.bus("gateway")
        with pytest.raises(BadSettings, match=f"port {port}"):
            async with create_app(settings, bus, Health(), environ={}):
                pass

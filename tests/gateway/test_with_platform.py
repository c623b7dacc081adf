"""From HTTP through the real gateway and the real fhir-proxy to a recording FHIR platform and back."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

import engines
from auth.fake_issuer import AUDIENCE, FakeIssuer, issuer
from common.mesh_in_a_process import small_mesh
from wardmesh_cli.ports import free_port
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_KINDS, DECIDE, IDENTIFY, Call, perform_subject
from wardmesh_common.health import Health
from wardmesh_common.questions import Ask, KindsAnswer, KindsQuestion, KindVerdict
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import Decision, Grant, Principal
from wardmesh_fhir_proxy.app import create_app as create_proxy
from wardmesh_fhir_proxy.settings import Settings as ProxySettings
from wardmesh_gateway.app import create_app
from wardmesh_gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
PUBLIC = "http://gateway.test"
PATIENT = b'{"resourceType":"Patient","id":"p1","meta":{"versionId":"1"},"extension":[{"valueDecimal":1.00}]}'


@pytest.fixture(scope="module")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine


class Platform:
    """A FHIR server that remembers what it was asked and says what the test wants."""

    def __init__(self) -> None:
        self.base = ""
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, bytes, dict[str, str]] = (200, PATIENT, {})
        self.silent = False

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        if self.silent:
            await asyncio.sleep(60)
        status, body, headers = self.answer
        return web.Response(status=status, body=body, headers={"content-type": "application/fhir+json", **headers})

    def page(self, number: int, last: int, total: int | None) -> None:
        links = [{"relation": "self", "url": f"{self.base}/Patient?name=a"}]
        if number < last:
            links.append({"relation": "next", "url": f"{self.base}?_getpages=secret-{number + 1}"})
        entry = {
            "fullUrl": f"{self.base}/Patient/p{number}",
            "resource": {"resourceType": "Patient", "id": f"p{number}"},
            "search": {"mode": "match"},
        }
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": [entry]}
        if total is not None:
            bundle["total"] = total
        self.answer = (200, json.dumps(bundle).encode(), {})


@asynccontextmanager
async def platform_server() -> AsyncIterator[Platform]:
    platform = Platform()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", platform.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    platform.base = f"http://127.0.0.1:{runner.addresses[0][1]}/r4"
    try:
        yield platform
    finally:
        await runner.cleanup()


async def identify(call: Call, _hop: Hop) -> Call:
    call.principal = Principal(id="p1", roles=("Doctor",), scopes=("fhir.read", "fhir.write"))
    call.grant = Grant(platform=call.platform)
    return call


async def decide(call: Call, _hop: Hop) -> Call:
    call.decision = decision(call.digest())
    return call


def decision(covers: str) -> Decision:
    return Decision(id="d", allowed=True, reason="test", policy_version="1", covers=covers, expires=time.time() + 60)


async def kinds(question: KindsQuestion, _ask: Ask) -> KindsAnswer:
    return KindsAnswer(verdicts=tuple(KindVerdict(kind=kind, decision=decision("")) for kind in question.kinds))


@dataclass
class Told:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class World:
    def __init__(self, http: aiohttp.ClientSession, gateway: str, platform: Platform) -> None:
        self.http = http
        self.gateway = gateway
        self.platform = platform

    async def send(self, method: str, path: str, **more: Any) -> Told:
        """The whole answer; addresses go out exactly as they are written."""
        async with self.http.request(method, URL(self.gateway + path, encoded=True), **more) as answer:
            return Told(answer.status, answer.headers, await answer.read())

    async def get(self, path: str) -> Told:
        return await self.send("GET", path)

    @property
    def asked(self) -> list[str]:
        return [path for _, path, _, _ in self.platform.seen]


def _token(token_issuer: FakeIssuer) -> dict[str, str]:
    return {"authorization": f"Bearer {token_issuer.sign(scope='fhir.read fhir.write')}"}


@asynccontextmanager
async def world(
    nats: engines.Nats, folder: Path, record: Callable[[Bus], Any] | None = None, **descriptor: Any
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(platform_server())
        described = {
            "id": "probe", "name": "Probe", "type": "sandbox", "fhir_version": "R4", "writes": True,
            "bases": {"patient": platform.base}, "auth": {"method": "none"}, **descriptor,
        }  # fmt: skip
        (folder / "probe.yaml").write_text(json.dumps(described))
        token_issuer = await stack.enter_async_context(issuer())
        small = await stack.enter_async_context(small_mesh(nats.url))
        for station in (small.auth, small.policy, small.performer):
            await small.remove(station)
        proxy = await small.bus("fhir-proxy")
        if record is not None:
            proxy.recorder = record(proxy)
        settings = ProxySettings(token_seal_key=KEY, cursor_keys=[KEY], platforms_dir=str(folder))
        await stack.enter_async_context(create_proxy(settings, proxy, Health()))
        policy = await small.bus("policy")
        await policy.answer(ASK_KINDS, KindsQuestion, kinds)
        await policy.station(DECIDE, decide, onward=perform_subject("fhir"))
        auth = await small.bus("auth")
        await auth.station(IDENTIFY, identify, onward=DECIDE)
        port = free_port()
        ready = GatewaySettings(
            port=port, public_url=PUBLIC, issuer=token_issuer.url, audience=AUDIENCE, gateway_keys=f'["{KEY}"]'
        )
        await stack.enter_async_context(create_app(ready, await small.bus("gateway"), Health(), environ={}))
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=_token(token_issuer)))
        here = World(http, f"http://127.0.0.1:{port}", platform)
        async with asyncio.timeout(60):
            while (await here.get("/health")).json()["platforms_registered"] == 0:
                await asyncio.sleep(0.01)
        yield here


@pytest.mark.requirement("X-1", "PX-5")
@pytest.mark.parametrize("face", ["/api/fhir/probe", "/fhir/probe"])
async def test_repeated_parameters_reach_the_platform_unchanged(nats: engines.Nats, tmp_path: Path, face: str) -> None:
    async with world(nats, tmp_path) as here:
        here.platform.page(1, 1, 1)
        query = "date=ge2020-01-01&date=le2020-12-31&code=http://loinc.org%7C8867-4&_include=a:b&_include=c:d"
        answer = await here.get(f"{face}/Observation?{query}")
        assert answer.status == 200
        assert here.asked == [f"/r4/Observation?{query}"]


async def test_repeated_parameters_of_a_tool_reach_the_platform_as_well(nats: engines.Nats, tmp_path: Path) -> None:
    async with world(nats, tmp_path) as here:
        here.platform.page(1, 1, 1)
        params = {"date": ["ge2020-01-01", "le2020-12-31"]}
        body = {"platform_id": "probe", "resource_type": "Observation", "params": params}
        assert (await here.send("POST", "/v1/tools/search", json=body)).status == 200
        assert here.asked == ["/r4/Observation?date=ge2020-01-01&date=le2020-12-31&_count=10"]


@pytest.mark.requirement("X-2", "FG-5")
@pytest.mark.parametrize("face", ["/api/fhir/probe", "/fhir/probe"])
@pytest.mark.parametrize("total", [3, None])
async def test_a_client_pages_to_the_end_through_our_own_links(
    nats: engines.Nats, tmp_path: Path, face: str, total: int | None
) -> None:
    async with world(nats, tmp_path) as here:
        url, ids, pages = f"{face}/Patient?name=a", [], 0
        while url:
            pages += 1
            here.platform.page(pages, 3, total)
            answer = await here.get(url)
            assert answer.status == 200
            assert here.platform.base not in answer.text
            bundle = answer.json()
            assert bundle.get("total") == total
            assert bundle["type"] == "searchset"
            assert bundle["entry"][0]["search"] == {"mode": "match"}
            assert bundle["entry"][0]["fullUrl"].startswith(f"{PUBLIC}{face}/Patient/")
            ids += [entry["resource"]["id"] for entry in bundle["entry"]]
            following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
            assert all(link.startswith(f"{PUBLIC}{face}/Patient?_cursor=") for link in following)
            url = following[0].removeprefix(PUBLIC) if following else ""
        assert ids == ["p1", "p2", "p3"]
        assert here.asked[1:] == ["/r4?_getpages=secret-2", "/r4?_getpages=secret-3"]


@pytest.mark.requirement("PX-2")
async def test_a_changed_page_link_asks_the_platform_nothing(nats: engines.Nats, tmp_path: Path) -> None:
    async with world(nats, tmp_path) as here:
        here.platform.page(1, 2, None)
        bundle = (await here.get("/fhir/probe/Patient?name=a")).json()
        link = next(link["url"] for link in bundle["link"] if link["relation"] == "next").removeprefix(PUBLIC)
        here.platform.seen.clear()
        for changed in (link[:-2] + "AA", link.replace("/Patient?", "/Observation?"), "/fhir/probe/Patient?_cursor=x"):
            answer = await here.get(changed)
            assert 400 <= answer.status < 500
        page = {"platform_id": "probe", "url": f"{here.platform.base}?_getpages=secret-2"}
        assert (await here.send("POST", "/v1/tools/get_next_page", json=page)).status == 400
        assert here.asked == []


@pytest.mark.requirement("FG-7")
async def test_writes_return_the_stored_resource_with_status_etag_and_a_location_that_works(
    nats: engines.Nats, tmp_path: Path
) -> None:
    async with world(nats, tmp_path) as here:
        headers = {"etag": 'W/"1"', "location": f"{here.platform.base}/Patient/p1/_history/1"}
        here.platform.answer = (201, PATIENT, headers)
        body = b'{"resourceType":"Patient","extension":[{"valueDecimal":1.00}]}'
        kind = {"content-type": "application/fhir+json"}
        answer = await here.send("POST", "/api/fhir/probe/Patient", data=body, headers=kind)
        assert (answer.status, answer.headers["etag"], answer.body) == (201, 'W/"1"', PATIENT)
        assert answer.headers["location"] == f"{PUBLIC}/fhir/probe/Patient/p1/_history/1"
        method, path, sent, received = here.platform.seen[-1]
        assert (method, path, received) == ("POST", "/r4/Patient", body)
        assert "return=representation" in sent["Prefer"]
        assert "authorization" not in {name.lower() for name in sent}
        here.platform.answer = (200, PATIENT, {})
        assert (await here.get("/fhir/probe/Patient/p1/_history/1")).status == 200
        put = {**kind, "if-match": 'W/"1"'}
        answer = await here.send("PUT", "/api/fhir/probe/Patient/p1", data=body, headers=put)
        assert (answer.status, answer.body) == (200, PATIENT)
        method, path, sent, received = here.platform.seen[-1]
        assert (method, path, sent["If-Match"]) == ("PUT", "/r4/Patient/p1", 'W/"1"')
        assert json.loads(received)["id"] == "p1"
        here.platform.answer = (204, b"", {})
        answer = await here.send("DELETE", "/api/fhir/probe/Patient/p1")
        assert answer.json()["issue"][0]["diagnostics"] == "Successfully deleted Patient/p1"


@pytest.mark.requirement("X-3", "FG-9")
async def test_a_dead_slow_or_broken_platform_is_503_504_or_502_and_nothing_inside_is_named(
    nats: engines.Nats, tmp_path: Path
) -> None:
    async with world(nats, tmp_path, timeout_seconds=3) as here:
        host = here.platform.base.removeprefix("http://").partition("/")[0]
        texts: list[str] = []

        async def status_of(path: str = "/api/fhir/probe/Patient/p1") -> int:
            answer = await here.get(path)
            texts.append(answer.text)
            return answer.status

        here.platform.answer = (200, b"<html>Traceback at /srv/app.py</html>", {"content-type": "text/html"})
        assert await status_of() == 502
        here.platform.answer = (500, b"java.lang.NullPointerException at com.acme.Foo", {"content-type": "text/plain"})
        assert await status_of() == 502
        outcome = {"resourceType": "OperationOutcome", "issue": [{"diagnostics": f"bad value at {here.platform.base}"}]}
        here.platform.answer = (400, json.dumps(outcome).encode(), {})
        assert await status_of() == 422
        here.platform.answer = (404, json.dumps(outcome).encode(), {})
        assert await status_of() == 404
        assert json.loads(texts[-1]) == {"detail": "Resource not found"}
        here.platform.silent = True
        assert await status_of() == 504
        assert all(host not in text and "srv" not in text and "acme" not in text for text in texts)


@pytest.mark.requirement("X-3")
async def test_a_platform_that_is_gone_is_503(nats: engines.Nats, tmp_path: Path) -> None:
    gone = f"http://127.0.0.1:{free_port()}/r4"
    async with world(nats, tmp_path, bases={"patient": gone}) as here:
        for path in ("/api/fhir/probe/Patient/p1", "/fhir/probe/Patient/p1"):
            answer = await here.get(path)
            assert answer.status == 503
            assert "127.0.0.1" not in answer.text


@pytest.mark.requirement("FG-2", "FG-27", "FG-32")
async def test_the_whole_catalogue_is_listed_and_examples_resolve(nats: engines.Nats, tmp_path: Path) -> None:
    async with world(nats, tmp_path) as here:
        listed = (await here.get("/api/platforms")).json()
        assert listed["total"] == len(listed["platforms"]) >= 60
        names = [row["name"] for row in listed["platforms"]]
        assert names == sorted(names)
        assert "probe" in {row["id"] for row in listed["platforms"]}
        shown = (await here.get("/api/platforms/smarthealthit-sandbox-patient")).json()
        assert shown["name"] == "SMART Health IT Sandbox (Patient)"
        for example, found in (("smarthealthit-sandbox", "smarthealthit-sandbox-patient"), ("aetna", "aetna")):
            assert ((await here.get(f"/api/platforms/{example}")).json())["id"] == found
        epic = (await here.get("/api/platforms/epic")).json()
        assert epic["fhir_base_url"] is None
        several = await here.get("/api/platforms/47198")
        assert several.status == 400

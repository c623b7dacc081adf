"""A recording, fault-injecting FHIR platform and a performer wired to it."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from botocore.credentials import ReadOnlyCredentials

from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.errors import AuditUnavailable, SignInRequired
from wardmesh_common.questions import KindsAnswer, KindsQuestion, KindVerdict
from wardmesh_common.vocabulary import Decision, Face, Grant, Interaction, Obligations, Principal, Resource
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.healthlake_client import ControlPlane
from wardmesh_fhir_proxy.healthlake_desk import ControlDesk
from wardmesh_fhir_proxy.healthlake_hapi import Hapi
from wardmesh_fhir_proxy.healthlake_hapi_server import HapiServer
from wardmesh_fhir_proxy.healthlake_model import Model
from wardmesh_fhir_proxy.healthlake_signing import Signer
from wardmesh_fhir_proxy.performer import Performer
from wardmesh_fhir_proxy.upstream import Transport

sys.path.append(str(Path(__file__).parent))

BASE = "http://gateway.example/fhir/probe"
KEY = bytes(range(32))
AWS_KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "a-secret-of-a-test", "a-session-of-a-test")


@dataclass
class Seen:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


Respond = Callable[[Seen], Awaitable[web.StreamResponse | web.Response]]


@dataclass
class Upstream:
    """Answers every request by `respond`, and keeps what it was sent, byte for byte."""

    base: str = ""
    requests: list[Seen] = field(default_factory=list)
    respond: Any = None
    cut_next: bool = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        seen = Seen(request.method, path, query, dict(request.headers), await request.read())
        self.requests.append(seen)
        made = self.respond(seen)
        answer = await made if hasattr(made, "__await__") else made
        if self.cut_next and request.transport is not None:
            self.cut_next = False
            request.transport.abort()  # the request was read, no answer comes
        return answer

    def answer(self, body: bytes | dict[str, Any], status: int = 200, **headers: str) -> None:
        """The same answer to everything."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Content-Type", "application/fhir+json")
        self.respond = lambda _: web.Response(status=status, body=data, headers=named)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    double = Upstream()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", double.handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    double.base = f"http://127.0.0.1:{port}/r4"
    yield double
    await runner.cleanup()


@dataclass
class FakeHop:
    content: bytes = b""
    seconds: float = 10.0
    started: float = field(default_factory=time.monotonic)

    def remaining(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    async def body(self) -> bytes:
        return self.content


@dataclass
class Policy:
    """Answers questions about kinds as the test says; unknown kinds are refused."""

    kinds: dict[str, Obligations] = field(default_factory=dict)
    search: set[str] = field(default_factory=set)
    questions: list[KindsQuestion] = field(default_factory=list)

    async def ask(self, question: KindsQuestion) -> KindsAnswer:
        self.questions.append(question)
        searching = question.interaction is Interaction.SEARCH
        verdicts: list[KindVerdict] = []
        for kind in question.kinds:
            allowed = kind in self.search if searching else kind in self.kinds
            duties = self.kinds.get(kind, Obligations())
            verdicts.append(KindVerdict(kind=kind, decision=decision_for("", duties, allowed=allowed)))
        return KindsAnswer(verdicts=tuple(verdicts))


def decision_for(covers: str, duties: Obligations, *, allowed: bool = True) -> Decision:
    return Decision(
        id="d1",
        allowed=allowed,
        reason="test",
        policy_version="1",
        covers=covers,
        expires=time.time() + 30,
        obligations=duties,
    )


@dataclass
class Bench:
    """A performer in front of the upstream, and what it recorded."""

    upstream: Upstream
    performer: Performer
    policy: Policy
    directory: Path
    platforms: Platforms
    intents: list[tuple[Call, tuple[Touched, ...]]] = field(default_factory=list)
    audit_down: bool = False
    keys: Cursors = field(default_factory=lambda: Cursors([KEY]))
    exchanges: Exchanges | None = None
    renewed: str = ""
    renewals: int = 0

    async def renew(self, call: Call) -> str:
        """What auth answers when the platform refused the token of this call."""
        self.renewals += 1
        if not self.renewed:
            raise SignInRequired("there is no other token")
        return self.renewed

    async def record_intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        if self.audit_down:
            raise AuditUnavailable("The audit log cannot be reached.")
        self.intents.append((call, touched))

    def call(self, interaction: Interaction | str, kind: str = "", identity: str = "", **more: Any) -> Call:
        """A call with a positive decision that covers it."""
        duties = more.pop("obligations", Obligations())
        principal = more.pop("principal", Principal(id="p1", roles=("Doctor",)))
        call = Call(
            id=more.pop("id", "call-1"),
            reply_to="_INBOX_gateway.x.w.c",
            face=Face.FHIR,
            tool=str(interaction),
            interaction=Interaction(interaction),
            platform=more.pop("platform", "probe"),
            deadline=time.time() + 30,
            resource=Resource(type=kind, id=identity, version=more.pop("version", "")),
            base_url=BASE,
            **more,
        )
        call.principal = principal
        call.grant = call.grant or Grant(platform=call.platform)
        call.decision = decision_for(call.digest(), duties)
        return call

    async def perform(self, interaction: Interaction | str, kind: str = "", identity: str = "", **more: Any) -> Outcome:
        seconds = more.pop("seconds", 10.0)
        call = self.call(interaction, kind, identity, **more)
        return await self.performer.perform(call, FakeHop(call.body, seconds))

    async def send(self, call: Call, seconds: float = 10.0) -> Outcome:
        return await self.performer.perform(call, FakeHop(call.body, seconds))

    def describe(self, **fields: Any) -> None:
        """Change the platform's descriptor through its file, as an operator would."""
        document = {
            "id": "probe",
            "name": "Probe",
            "type": "sandbox",
            "fhir_version": "R4",
            "bases": {"patient": self.upstream.base},
            "auth": {"method": "none"},
            "writes": True,
            **fields,
        }
        (self.directory / "probe.yaml").write_bytes(msgspec.json.encode(document))  # JSON is YAML
        self.platforms.reload()


@pytest.fixture
async def bench(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Bench]:
    policy = Policy()
    transport = Transport()
    keys = Cursors([KEY])
    platforms = Platforms(tmp_path)
    exchanges = Exchanges(transport, Signer(lambda: AWS_KEYS), jitter=lambda: 0.1)
    holder: list[Bench] = []

    async def record(call: Call, touched: tuple[Touched, ...]) -> None:
        await holder[0].record_intent(call, touched)

    async def renew(call: Call) -> str:
        return await holder[0].renew(call)

    def lent(call: Call) -> str:
        return "first" if call.grant and call.grant.sealed_token else ""

    model = Model()
    plane = ControlPlane(exchanges, model, jitter=lambda: 0.1)
    desk = ControlDesk({"healthlake": plane, "hapi": Hapi(HapiServer(exchanges), model)})
    performer = Performer(platforms, exchanges, keys, lent, policy.ask, record, renew, desk)
    made = Bench(upstream, performer, policy, tmp_path, platforms, keys=keys, exchanges=exchanges)
    holder.append(made)
    made.describe()
    yield made
    await transport.close()

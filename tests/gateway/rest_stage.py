"""The gateway's HTTP application with a scripted bus instead of the mesh, for tests of what the faces themselves do."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import msgspec

from wardmesh_common.contracts import Call, Outcome, Reply
from wardmesh_common.errors import Problem, Unauthenticated, WardmeshError
from wardmesh_common.questions import Catalogue, DirectoryAnswer, DirectoryQuestion, PlatformFacts
from wardmesh_common.tokens import VerifiedToken, principal_id
from wardmesh_gateway.app import Parts, build_parts, build_router
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.ratelimit import RateLimits
from wardmesh_gateway.router import Router
from wardmesh_gateway.settings import GatewaySettings
from wardmesh_gateway.waiting import Waiters

BASE = "http://gateway.test"
ISSUER = "https://issuer.test"
PATIENT = b'{"resourceType":"Patient","id":"p1","extension":[{"valueDecimal":1.00}]}'

PLATFORMS = (
    PlatformFacts(
        id="store",
        name="Wardmesh embedded store",
        type="sandbox",
        fhir_base_url="http://store.internal/fhir",
        fhir_version="R4",
        verification_status="verified",
        capabilities=("patient_access", "patient_everything"),
        writes=True,
    ),
    PlatformFacts(
        id="smarthealthit-sandbox-patient",
        name="SMART Health IT (patient)",
        type="sandbox",
        fhir_base_url="https://sandbox.test/r4",
        aliases=("smart", "smarthealthit-sandbox"),
        name_patterns=("smart",),
        has_oauth=True,
        authorize_url="https://sandbox.test/authorize",
        verification_status="verified",
        live=True,
        open=True,
        writes=True,
    ),
    PlatformFacts(
        id="aetna",
        name="Aetna",
        type="payer",
        fhir_base_url="https://aetna.test/fhir",
        aliases=("cvs",),
        name_patterns=("aetna", "cvs health"),
        payer_ids=("60054", "47198"),
        live=True,
    ),
    PlatformFacts(
        id="anthem", name="Anthem", type="payer", fhir_base_url="https://anthem.test", payer_ids=("47198",), live=True
    ),
    PlatformFacts(id="bare", name="bare", type="ehr"),
    PlatformFacts(id="epic", name="Epic", type="ehr", served_by="store"),
    PlatformFacts(
        id="healthlake", name="HealthLake datastores", type="sandbox", datastore_region="us-west-2", writes=True
    ),
)


class FakeDelivery:
    """A reply whose body comes in the given pieces."""

    def __init__(self, reply: Reply, parts: tuple[bytes, ...] = ()) -> None:
        self.reply = reply
        self.parts = parts
        self.taken = 0
        self.declined = False

    def decline(self) -> None:
        self.declined = True

    async def body(self) -> bytes:
        return b"".join([part async for part in self.stream()])

    async def stream(self) -> AsyncGenerator[bytes, None]:
        if not self.parts:
            yield self.reply.body
            return
        for part in self.parts:
            self.taken += 1
            yield part


Answer = Callable[[Call], Awaitable[FakeDelivery]]


class FakeBus:
    """Answers every Call with what the test wants and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.bodies: list[bytes | None] = []
        self.recorded: list[tuple[Call, Outcome]] = []
        self.told: list[tuple[str, Any]] = []
        self.reply: Reply | WardmeshError | Answer | FakeDelivery = ok(PATIENT)
        # What is answered to a question of this type.
        self.answers: dict[type, Any] = {DirectoryQuestion: DirectoryAnswer(candidates=(), total=0)}
        self.questions: list[Any] = []

    async def submit(self, call: Call, body: bytes | None = None) -> FakeDelivery:
        self.calls.append(call)
        self.bodies.append(body)
        if isinstance(self.reply, WardmeshError):
            raise self.reply
        if isinstance(self.reply, Reply):
            return FakeDelivery(self.reply)
        if isinstance(self.reply, FakeDelivery):
            return self.reply
        return await self.reply(call)

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        self.recorded.append((call, outcome))

    async def tell(self, subject: str, event: msgspec.Struct) -> None:
        self.told.append((subject, event))

    async def ask(self, subject: str, question: Any, answer_type: Any, **_: Any) -> Any:
        assert type(question) in self.answers, "nothing is asked here"
        self.questions.append(question)
        found = self.answers[type(question)]
        if isinstance(found, WardmeshError):
            raise found
        return found

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        raise AssertionError("nothing is heard here")

    @property
    def call(self) -> Call:
        assert len(self.calls) == 1
        return self.calls[0]


def ok(body: bytes, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Reply(call_id="", status=status, body=body, media_type="application/fhir+json", headers=named)


def outcome_body(text: str, code: str = "invalid") -> bytes:
    issue = {"severity": "error", "code": code, "diagnostics": text}
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()


def refused(status: int, code: str, detail: str = "", body: bytes = b"", **more: Any) -> Reply:
    problem = Problem(code=code, status=status, detail=detail, **more)
    return Reply(call_id="", status=status, problem=problem, body=body)


class FakeVerifier:
    """Tokens are `<subject>:<scope>,<scope>`; everything else does not hold."""

    async def verify(self, token: str) -> VerifiedToken:
        subject, colon, scopes = token.partition(":")
        if not colon:
            raise Unauthenticated("the access token is not valid here")
        return VerifiedToken(
            issuer=ISSUER,
            subject=subject,
            principal_id=principal_id(ISSUER, subject),
            client_id="client",
            scopes=tuple(scopes.split(",")),
            claims={"roles": ["Doctor"]},
            issued_at=0,
            expires_at=2e9,
            digest="d" * 64,
        )


READER = {"authorization": "Bearer doctor:fhir.read"}
WRITER = {"authorization": "Bearer doctor:fhir.read,fhir.write"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """One gateway replica without a mesh."""

    def __init__(
        self,
        *,
        registered: frozenset[str] = frozenset(),
        platforms: tuple[PlatformFacts, ...] = PLATFORMS,
        **settings: Any,
    ) -> None:
        self.settings = GatewaySettings(**{"public_url": BASE, "issuer": ISSUER, **settings})
        self.bus = FakeBus()
        self.clock = Clock()
        self.platforms = Platforms(self.bus)
        self.platforms.put(Catalogue(version="1", platforms=platforms))
        self.limits = RateLimits(
            self.bus.tell,
            replica="gateway-1",
            key=b"k" * 32,
            limit=self.settings.rate_limit,
            window_seconds=self.settings.rate_window_seconds,
            clock=self.clock,
        )
        self.parts: Parts = build_parts(
            self.settings,
            submits=self.bus,
            records=self.bus,
            platforms=self.platforms,
            limits=self.limits,
            waiters=Waiters(self.bus.tell, replica="gateway-1", key=b"k" * 32, clock=self.clock),
            verifier=FakeVerifier(),
            keys=[b"k" * 32],
            sessions=KnownSessions(self.clock),
        )
        self.router: Router = build_router(self.settings, self.parts, mcp=None, registered=registered)

    def client(self, peer: str = "203.0.113.7") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.router, client=(peer, 4711), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=BASE, headers={"accept": "*/*"})

    async def get(self, path: str, headers: dict[str, str] | None = None, peer: str = "203.0.113.7") -> httpx.Response:
        return await self.send("GET", path, headers=headers or READER, peer=peer)

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: Any = None,
        peer: str = "203.0.113.7",
    ) -> httpx.Response:
        async with self.client(peer) as client:
            return await client.request(method, path, headers=headers, content=content)

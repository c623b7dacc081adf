"""A stage for auth: replicas on a real bus and database; the test plays gateway, policy and fhir-proxy."""

from __future__ import annotations

import asyncio
import base64
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import text

from auth.fake_issuer import AUDIENCE, FakeIssuer, issuer
from wardmesh_auth.app import App, create_app
from wardmesh_auth.database import engine_for
from wardmesh_auth.migrate import migrate
from wardmesh_auth.settings import AuthSettings
from wardmesh_auth.tables import metadata
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_CATALOGUE,
    DECIDE,
    EVENT_CATALOGUE_CHANGED,
    Call,
    Caller,
    Outcome,
    Reply,
    Touched,
    decode_call,
    encode,
    perform_subject,
)
from wardmesh_common.health import Health
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import Decision, Face, Interaction, Resource

SEAL_KEY = os.urandom(32)
MASTER_KEY = base64.urlsafe_b64encode(os.urandom(32)).decode()
CLIENT = {
    "WARDMESH_PLATFORM_PAYER_CLIENT_ID": "our-client",
    "WARDMESH_PLATFORM_PAYER_CLIENT_SECRET": "CANARY-CLIENT-SECRET",
    "FHIR_GATEWAY_PLATFORM_SIGN_IN_CLIENT_ID": "our-public-client",
}


class Records:
    """A recorder that keeps what it was told, encoded as it would leave the process."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Call, Outcome]] = []
        self.statuses: list[tuple[str, dict[str, Any]]] = []

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        raise AssertionError("auth writes nothing")

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        self.outcomes.append((decode_call(encode(call)), outcome))

    async def status(self, reason: str, facts: dict[str, Any] | None = None) -> None:
        self.statuses.append((reason, facts or {}))

    @property
    def events(self) -> list[str]:
        return [outcome.event for _, outcome in self.outcomes]


class Question(Struct):
    pass


class Answered(Struct):
    reply: Reply
    body: dict[str, Any]

    @property
    def code(self) -> str:
        return self.reply.problem.code if self.reply.problem else ""

    def __getitem__(self, name: str) -> Any:
        assert self.reply.problem is None, self.reply.problem
        return self.body[name]


class Stage:
    def __init__(self) -> None:
        self.issuer: FakeIssuer
        self.replicas: list[App] = []
        self.buses: list[Bus] = []
        self.gateway: Bus
        self.proxy: Bus
        self.records = Records()
        self.decided: list[Call] = []
        self.catalogue: tuple[PlatformFacts, ...] = ()
        self.version = "1"

    async def call(self, *, platform: str = "store", **fields: Any) -> Reply:
        """Send one call the way the gateway does and wait for its end."""
        given = ("bearer", "cookie", "handle", "emergency", "agent", "user_agent")
        caller = Caller(**{k: fields.pop(k) for k in given if k in fields})
        call = Call(
            id=uuid.uuid4().hex,
            reply_to="",
            face=Face.REST,
            tool="read",
            interaction=Interaction(fields.pop("interaction", Interaction.READ)),
            platform=platform,
            deadline=time.time() + 10,
            resource=fields.pop("resource", Resource(type="Patient", id="p1")),
            caller=caller,
            **fields,
        )
        return (await self.gateway.submit(call)).reply

    async def procedure(self, tool: str, arguments: dict[str, Any], *, platform: str = "", **caller: Any) -> Answered:
        """An operation of ours, the way the gateway sends it."""
        call = Call(
            id=uuid.uuid4().hex,
            reply_to="",
            face=Face.REST,
            tool=tool,
            interaction=Interaction.OPERATION,
            performer="auth",
            platform=platform,
            deadline=time.time() + 30,
            body=msgspec.json.encode(arguments),
            caller=Caller(**caller),
        )
        delivery = await self.gateway.submit(call)
        body = await delivery.body()
        return Answered(delivery.reply, msgspec.json.decode(body) if body else {})

    async def change_catalogue(self, *platforms: PlatformFacts) -> None:
        self.catalogue, self.version = platforms, self.version + "+"
        await self.proxy.tell(EVENT_CATALOGUE_CHANGED, Changed(version=self.version))

    async def _decide(self, call: Call, hop: Hop) -> Call | Outcome:
        if call.procedure:
            call.decision = Decision(
                id="d", allowed=True, reason="", policy_version="1", covers=call.digest(), expires=time.time() + 60
            )
            hop.onward = perform_subject(call.performer)
            return call
        self.decided.append(call)
        return Outcome(status=200, body=b"{}")

    async def _answer(self, question: Question, ask: object) -> Catalogue:
        return Catalogue(version=self.version, platforms=self.catalogue)


def platforms(fake: FakeIssuer) -> tuple[PlatformFacts, ...]:
    url = f"{fake.url}/token"
    return (
        PlatformFacts(id="store", name="Store", type="sandbox", writes=True, fhir_base_url="http://x"),
        PlatformFacts(id="open", name="Open", type="sandbox", open=True, fhir_base_url="http://x"),
        PlatformFacts(
            id="payer",
            name="Payer",
            type="payer",
            auth_method="client_credentials",
            token_url=url,
            scopes="system/*.rs",
            fhir_base_url="http://x",
        ),
        PlatformFacts(
            id="unset",
            name="Unset",
            type="payer",
            auth_method="client_credentials",
            token_url=url,
            scopes="system/*.rs",
        ),
        PlatformFacts(
            id="sign-in",
            name="Sign-in",
            type="ehr",
            auth_method="authorization_code",
            has_oauth=True,
            fhir_base_url=f"{fake.url}/fhir",
            authorize_url=f"{fake.url}/authorize",
            token_url=url,
            scopes="patient/*.rs offline_access",
            sign_in=SignInFacts(discovery="static", revocation_url=f"{fake.url}/revoke"),
        ),
        PlatformFacts(id="sign-in-unset", name="Unset", type="ehr", auth_method="authorization_code"),
        PlatformFacts(id="open-sign-in", name="Sandbox", type="sandbox", auth_method="authorization_code", open=True),
        PlatformFacts(id="alias", name="Alias", type="ehr", served_by="store"),
    )


@asynccontextmanager
async def stage(
    database_url: str,
    nats_url: str,
    *,
    replicas: int = 1,
    environ: dict[str, str] | None = None,
    seeds: dict[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    scene = Stage()
    seeds = seeds or {}
    await prepare(database_url)
    async with AsyncExitStack() as stack:
        scene.issuer = await stack.enter_async_context(issuer())
        scene.catalogue = platforms(scene.issuer)
        scene.gateway = await _bus(stack, "gateway", nats_url, scene.records, seeds)
        scene.proxy = await _bus(stack, "fhir-proxy", nats_url, scene.records, seeds)
        await scene.proxy.answer(ASK_CATALOGUE, Question, scene._answer)
        policy = await _bus(stack, "policy", nats_url, scene.records, seeds)
        await policy.station(DECIDE, scene._decide)
        options = {
            "issuer": scene.issuer.url,
            "audience": AUDIENCE,
            "database_url": database_url,
            "token_seal_key": base64.urlsafe_b64encode(SEAL_KEY).decode(),
            "master_key": MASTER_KEY,
        }
        for _ in range(replicas):
            bus = await _bus(stack, "auth", nats_url, scene.records, seeds)
            scene.buses.append(bus)
            made = create_app(
                AuthSettings(**(options | settings)), bus, Health(), environ=CLIENT if environ is None else environ
            )
            scene.replicas.append(await stack.enter_async_context(made))
        yield scene


async def prepare(database_url: str) -> None:
    engine = engine_for(database_url)
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    await engine.dispose()


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def _bus(stack: AsyncExitStack, service: str, url: str, records: Records, seeds: dict[str, str]) -> Bus:
    bus = await Bus.connect(service, url, seeds.get(service, ""))
    bus.recorder = records
    stack.push_async_callback(bus.close)
    return bus

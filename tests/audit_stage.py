"""The ledger behind the gateway: real NATS, PostgreSQL, Cerbos and audit service; only who a caller is, is scripted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import msgspec

import engines
from audit_world import PATIENT_SECONDS, SEED, SMALL, encoded, remove_streams, until
from policy.pdp_stage import POLICIES
from wardmesh_audit.app import create_app
from wardmesh_audit.migrate import migrate
from wardmesh_audit.note import Signer
from wardmesh_audit.settings import AuditSettings
from wardmesh_audit.streams import provision
from wardmesh_cli.ports import free_port
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import DECIDE, IDENTIFY, PERFORM, Call, Outcome, Touched, perform_subject
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.health import Health
from wardmesh_common.leaf import Draft
from wardmesh_common.listening import reserve
from wardmesh_common.questions import Catalogue, PlatformFacts
from wardmesh_common.recorder import Recorder, open_recorder
from wardmesh_common.station import Hop
from wardmesh_common.tokens import VerifiedToken
from wardmesh_common.vocabulary import Grant, Principal
from wardmesh_gateway.app import build_parts, build_router
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.ratelimit import RateLimits
from wardmesh_gateway.server import serving
from wardmesh_gateway.settings import GatewaySettings
from wardmesh_gateway.waiting import Waiters
from wardmesh_policy.cache import VerdictCache
from wardmesh_policy.cerbos_client import CerbosClient
from wardmesh_policy.decider import Decider, refusal_of

PEOPLE = {
    name: Principal(id=f"i:{name}", roles=roles, patient=patient)
    for name, roles, patient in (
        ("auditor", ("Auditor",), ""),
        ("admin", ("Admin",), ""),
        ("compliance", ("Compliance",), ""),
        ("doctor", ("Doctor",), ""),
        ("nurse", ("Nurse",), ""),
        ("billing", ("Billing",), ""),
        ("reception", ("Reception",), ""),
        ("member", ("member",), ""),
        ("patient", ("patient",), "p1"),
        ("stranger", ("patient",), "p9"),
    )
}
STORE = PlatformFacts(id="store", name="Store", type="sandbox", fhir_base_url="http://store.test/fhir")
SCOPES = "fhir.read,audit.read,audit.manage"
KEY = b"k" * 32


class Tokens:
    """`<name>:<scope>,<scope>` of one of PEOPLE."""

    async def verify(self, token: str) -> VerifiedToken:
        name, _, scopes = token.partition(":")
        if name not in PEOPLE:
            raise Unauthenticated("the access token is not valid here")
        claims = {"patient": PEOPLE[name].patient} if PEOPLE[name].patient else {}
        return VerifiedToken(
            issuer="i",
            subject=name,
            principal_id=f"i:{name}",
            client_id="c",
            scopes=tuple(scopes.split(",")),
            claims=claims,
            issued_at=0,
            expires_at=2e9,
            digest="d" * 64,
        )


@dataclass
class Stage:
    """What a test drives: HTTP as somebody, recording as a station, the database as a superuser."""

    base: str
    pg: engines.Postgres
    database: str
    recorder: Recorder
    signer: Signer
    audit_bus: Bus
    http: aiohttp.ClientSession
    environ: dict[str, str]
    logs: int = 1
    revoked: set[str] = field(default_factory=set)

    async def ask(self, who: str, path: str, *, method: str = "GET", scopes: str = SCOPES, **more: Any) -> Answer:
        """With a bearer token; `who` "" is nobody."""
        headers = {"authorization": f"Bearer {who}:{scopes}"} if who else {}
        headers |= more.pop("headers", {})
        async with self.http.request(method, self.base + path, headers=headers, **more) as answer:
            return Answer(answer.status, await answer.read(), answer.headers.copy())

    async def query(self, sql: str, *values: Any) -> list[Any]:
        conn = await asyncpg.connect(self.pg.url(self.database))
        try:
            return await conn.fetch(sql, *values)
        finally:
            await conn.close()

    async def record(self, call: Call, *touched: Touched, status: int = 200) -> None:
        await self.recorder.outcome(call, Outcome(status=status, body=b"{}", touched=touched))

    async def record_draft(self, *drafts: Draft) -> None:
        """Events that no call makes yet; handed over as the recorder hands over its own."""
        await self.recorder._record(list(drafts))  # pyright: ignore[reportPrivateUsage]

    async def settled(self, pause: float = 10.0) -> int:
        """Waits until all that was acknowledged is in the ledger and signed; the size."""

        async def done() -> int:
            rows = await self.query(
                "select sum(size)::bigint as size, (select count(*) from event) as rows, (select sum(s) from"
                " (select max(size) as s from checkpoint group by log_id) as newest)::bigint as signed from tree_state"
            )
            pending = sum([await self._unwritten(log) for log in range(self.logs)])
            size = rows[0]["size"]
            return size if not pending and size and size == rows[0]["signed"] == rows[0]["rows"] else 0

        return await until(done, pause)

    async def _unwritten(self, log: int) -> int:
        answer = await self.audit_bus.nc.request(f"$JS.API.CONSUMER.INFO.AUDIT_IN.audit-writer-{log}", b"", timeout=5)
        info = msgspec.json.decode(answer.data)
        return info["num_pending"] + info["num_ack_pending"]


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@contextlib.asynccontextmanager
async def audit_stage(nats: engines.Nats, pg: engines.Postgres, logs: int = 1) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        pdp = stack.enter_context(engines.cerbos(POLICIES))
        database = f"audit_{os.urandom(4).hex()}"
        await migrate(pg.url(database), pg.url(f"{database}_keys"), logs=logs)
        signer = Signer("test/audit/0", SEED)
        settings = _settings(pg, database, signer, logs)
        operations = await Bus.connect("audit", nats.url, "")
        stack.push_async_callback(operations.close)
        await provision(operations.nc, msgspec.structs.replace(SMALL, logs=logs))
        stack.push_async_callback(remove_streams, operations.nc)
        audit = await _bus(stack, "audit", nats)
        health = Health()
        await stack.enter_async_context(create_app(settings, audit, health))
        stack.callback(setattr, health, "draining", True)
        stage = Stage(
            base="", pg=pg, database=database, recorder=await _recorder(stack, nats, logs), signer=signer,
            audit_bus=audit, http=aiohttp.ClientSession(), environ=_environ(nats, settings), logs=logs,
        )  # fmt: skip
        await _stations(stack, nats, pdp, stage.revoked)
        stage.base = await _gateway(stack, nats)
        stack.push_async_callback(stage.http.close)
        yield stage


def _settings(pg: engines.Postgres, database: str, signer: Signer, logs: int) -> AuditSettings:
    return AuditSettings(
        deployment="test",
        audit_writer_url=pg.url(database, "audit_writer"),
        audit_signer_url=pg.url(database, "audit_signer"),
        audit_reader_url=pg.url(database, "audit_reader"),
        audit_report_url=pg.url(database, "audit_report"),
        audit_officer_url=pg.url(database, "audit_officer"),
        audit_keys_url=pg.url(f"{database}_keys", "key_user"),
        audit_signing_key=encoded(SEED),
        audit_public_key=signer.verifier.vkey(),
        audit_kek=encoded(b"e" * 32),
        audit_handle_key=encoded(b"h" * 32),
        audit_roles=("writer", "publisher", "keys", "api"),
        audit_in_max_bytes=SMALL.in_max_bytes,
        audit_logs=logs,
    )


def _environ(nats: engines.Nats, settings: AuditSettings) -> dict[str, str]:
    """The same for commands."""
    endings = ("_url", "_key", "_kek")
    names = [field.name for field in msgspec.structs.fields(settings)]
    names = [name for name in names if name.startswith("audit_") and name.endswith(endings)]
    values = {f"WARDMESH_{name.upper()}": getattr(settings, name) for name in names if getattr(settings, name)}
    return {**values, "WARDMESH_NATS_URL": nats.url, "WARDMESH_DEPLOYMENT": "test"}


async def _bus(stack: contextlib.AsyncExitStack, service: str, nats: engines.Nats, logs: int = 1) -> Bus:
    bus = await Bus.connect(service, nats.url, "")
    stack.push_async_callback(bus.close)
    recorder = open_recorder(bus, logs=logs, deadline_seconds=PATIENT_SECONDS)
    bus.recorder = recorder
    stack.push_async_callback(recorder.close)
    return bus


async def _recorder(stack: contextlib.AsyncExitStack, nats: engines.Nats, logs: int) -> Recorder:
    bus = await _bus(stack, "fhir-proxy", nats, logs)
    assert isinstance(bus.recorder, Recorder)
    return bus.recorder


async def _stations(
    stack: contextlib.AsyncExitStack, nats: engines.Nats, pdp: engines.Cerbos, revoked: set[str]
) -> None:
    async def identify(call: Call, _hop: Hop) -> Call:
        name = call.caller.bearer.partition(":")[0] or call.caller.cookie
        if name not in PEOPLE or name in revoked:
            raise Unauthenticated("no such session")
        call.caller = msgspec.structs.replace(call.caller, bearer="", cookie="")
        call.principal, call.grant = PEOPLE[name], Grant(platform="")
        return call

    cerbos = CerbosClient(pdp.target)
    stack.push_async_callback(cerbos.close)
    facts = {"store": STORE}
    decider = Decider(cerbos, VerdictCache(), facts.get, lambda: "v1", 2.0, frozenset({"store"}))

    async def decide(call: Call, hop: Hop) -> Call:
        call.decision = await decider.decide(call, hop.remaining())
        if not call.decision.allowed:
            raise refusal_of(call.decision)
        hop.onward = perform_subject(call.performer)
        return call

    await (await _bus(stack, "auth", nats)).station(IDENTIFY, identify, onward=DECIDE)
    await (await _bus(stack, "policy", nats)).station(DECIDE, decide, onward=PERFORM)


async def _gateway(stack: contextlib.AsyncExitStack, nats: engines.Nats) -> str:
    bus = await _bus(stack, "gateway", nats)
    assert bus.recorder is not None
    port = free_port()
    sock = stack.enter_context(reserve("127.0.0.1", port))
    settings = GatewaySettings(public_url=f"http://127.0.0.1:{port}", rate_limit=1_000_000)
    platforms = Platforms(bus)
    platforms.put(Catalogue(version="1", platforms=(STORE,)))
    limits = RateLimits(bus.tell, replica="g", key=KEY, limit=1_000_000, window_seconds=60.0)
    parts = build_parts(
        settings, submits=bus, records=bus.recorder, platforms=platforms, limits=limits,
        waiters=Waiters(bus.tell, replica="g", key=KEY), verifier=Tokens(), keys=[KEY], sessions=KnownSessions(),
    )  # fmt: skip
    router = build_router(settings, parts, mcp=None, registered=frozenset())
    await stack.enter_async_context(serving(router, sock))
    stack.callback(parts.tails.close)
    return settings.base


def everything(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [event for answer in answers for event in answer.json["events"]]

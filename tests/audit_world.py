"""A ledger with real NATS and PostgreSQL for the tests of audit, and the pieces to drive it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.findings import Report
from wardmesh_audit.guard import read_outside
from wardmesh_audit.ledger import Connection
from wardmesh_audit.migrate import migrate
from wardmesh_audit.note import Signer, Verifier
from wardmesh_audit.outbox import Outbox
from wardmesh_audit.publisher import Publisher
from wardmesh_audit.puller import Puller
from wardmesh_audit.streams import AUDIT_IN, StreamSettings, audit_stream, consumer_of, provision
from wardmesh_audit.verify import Verification
from wardmesh_audit.writer import Writer
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.ending import ended
from wardmesh_common.leaf import status_draft
from wardmesh_common.lean import LeanClient
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.record_seal import lend
from wardmesh_common.recorder import Recorder
from wardmesh_common.stamp import Stamp
from wardmesh_common.vocabulary import Decision, Face, Interaction, Principal, Resource

SMALL = StreamSettings(in_max_bytes=256 * 1024 * 1024)
SEED = bytes(range(32))
# A recorder that shares its event loop with the ledger's roles waits for their first steps too.
PATIENT_SECONDS = 5.0


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    """Polls until the check gives something true."""
    limit = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < limit, "the time limit passed"
        await asyncio.sleep(0.02)


def make_call(number: int = 0, *, interaction: Interaction = Interaction.READ, patient: str = "p1") -> Call:
    return Call(
        id=f"call-{number}",
        reply_to="_INBOX_gateway.x.w.c",
        face=Face.REST,
        tool="fhir_read",
        interaction=interaction,
        platform="store",
        deadline=time.time() + 30,
        received_at=time.time(),
        resource=Resource(type="Patient", id=patient),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        principal=Principal(id="issuer|doctor", roles=("Doctor",)),
        decision=Decision(
            id=f"d-{number}", allowed=True, reason="rule", policy_version="v1", covers="x", expires=0, rule="doctor"
        ),
    )


def make_outcome(*patients: str, status: int = 200) -> Outcome:
    touched = tuple(Touched(patient=f"store/Patient/{p}", type="Patient", ids=(p,), count=1) for p in patients)
    return Outcome(status=status, body=b"{}", touched=touched)


class Keys:
    """Lends keys like the keys role, from memory."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str, bytes]] = {}
        self.questions = 0

    async def lend(self, question: KeyQuestion) -> KeyAnswer:
        self.questions += 1
        keys = [
            self.made.setdefault(p, (os.urandom(16).hex(), os.urandom(16).hex(), os.urandom(32)))
            for p in question.patients
        ]
        return lend(question.public_key, keys)


@dataclass
class World:
    """Engines, a connection of the audit user and the roles to start on it."""

    nats: Nats
    pg: Postgres
    nc: LeanClient
    database: str
    signer: Signer = field(default_factory=lambda: Signer("test/audit/0", SEED))
    verifiers: list[Verifier] = field(default_factory=list[Verifier])  # other keys that are trusted
    statuses: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def url(self, role: str) -> str:
        return self.pg.url(self.database, role)

    async def status(self, reason: str, facts: dict[str, Any]) -> None:
        self.statuses.append((reason, facts))

    def writer(self, wrap: Callable[[Puller], Any] = lambda p: p, **options: Any) -> tuple[Writer, Puller]:
        puller = Puller(self.nc, AUDIT_IN, consumer_of(0))
        outside = lambda: read_outside(self.nc, [])  # noqa: E731
        return Writer(wrap(puller), connector(self.url("audit_writer")), outside, self.status, **options), puller

    def publisher(self, wrap: Callable[[Outbox], Any] = lambda o: o, **options: Any) -> Publisher:
        return Publisher(
            wrap(Outbox(self.nc)),
            connector(self.url("audit_signer")),
            lambda: read_outside(self.nc, [self.signer.verifier, *self.verifiers]),
            self.signer,
            self.status,
            **{"checkpoint_seconds": 0.05, **options},
        )

    @contextlib.asynccontextmanager
    async def writing(self, count: int = 1, **options: Any) -> AsyncGenerator[list[Writer]]:
        made = [self.writer(**options) for _ in range(count)]
        tasks = [asyncio.create_task(writer.run()) for writer, _ in made]
        try:
            yield [writer for writer, _ in made]
        finally:
            await cancel(*tasks)
            for _, puller in made:
                puller.stop()

    @contextlib.asynccontextmanager
    async def publishing(self, **options: Any) -> AsyncGenerator[Publisher]:
        publisher = self.publisher(**options)
        task = asyncio.create_task(publisher.run())
        try:
            yield publisher
        finally:
            await cancel(task)

    async def send(self, *lines: bytes, msg_id: str = "") -> None:
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        answer = await self.nc.request("audit.in.0", b"\n".join(lines), timeout=20, headers=headers)
        assert b'"error"' not in answer.data, answer.data

    async def connect(self, role: str = "postgres") -> Connection:
        return await asyncpg.connect(self.url(role))

    async def query(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        conn = await self.connect()
        try:
            return await conn.fetch(sql, *values)
        finally:
            await conn.close()

    async def tamper(self, *statements: str) -> None:
        """As a superuser who has switched the triggers off."""
        conn = await self.connect()
        try:
            async with conn.transaction():
                for table in ("event", "checkpoint", "tree_state"):
                    await conn.execute(f"alter table {table} disable trigger user")
                for statement in statements:
                    await conn.execute(statement)
                for table, trigger in (("event", "change"), ("checkpoint", "change"), ("tree_state", "shrink")):
                    await conn.execute(f"alter table {table} enable always trigger no_{trigger}")
                    await conn.execute(f"alter table {table} enable always trigger no_truncate")
        finally:
            await conn.close()

    async def size(self) -> int:
        return (await self.query("select size from tree_state where log_id = 0"))[0]["size"]

    async def wait_size(self, size: int, seconds: float = 60.0) -> None:
        async def reached() -> bool:
            return await self.size() >= size

        await until(reached, seconds)

    async def wait_signed(self, size: int, seconds: float = 60.0) -> None:
        async def reached() -> bool:
            rows = await self.query("select max(size) as size from checkpoint")
            return (rows[0]["size"] or 0) >= size

        await until(reached, seconds)

    async def verify(self, **options: Any) -> Report:
        conn = await self.connect("audit_reader")
        try:
            return await Verification(conn, [self.signer.verifier], **options).run()
        finally:
            await conn.close()


@contextlib.contextmanager
def lost_connections_apart() -> Generator[None]:
    """asyncpg leaves a future behind that nobody can await when a server's last words come right before a COPY.

    Its `copy_in` makes the future, then finds that the connection is not idle and raises, before the part that would
    await it or mark it as seen; the lost connection then puts its error there. Nothing of ours can reach that future,
    and a question before every COPY that would find out first costs a round trip for each batch. The writer itself
    gets the error that was raised, and goes on.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    other: list[Any] = []

    def take(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), asyncpg.ConnectionDoesNotExistError):
            other.append(context)

    loop.set_exception_handler(take)
    try:
        yield
        gc.collect()
    finally:
        loop.set_exception_handler(before)
    assert not other


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """For certain (`wardmesh_common.ending`); what a task has raised is raised here."""
    await ended(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


@contextlib.asynccontextmanager
async def world(nats: Nats, pg: Postgres, settings: StreamSettings = SMALL) -> AsyncIterator[World]:
    """A fresh ledger: new database, provisioned streams. The streams are removed at the end."""
    database = f"audit_{os.urandom(4).hex()}"
    await migrate(pg.url(database), logs=settings.logs)
    bus = await Bus.connect("audit", nats.url, "")
    try:
        await provision(bus.nc, settings)
        yield World(nats, pg, bus.nc, database)
    finally:
        await remove_streams(bus.nc, settings.logs)
        await bus.close()


async def remove_streams(nc: LeanClient, logs: int = 1) -> None:
    for stream in ("AUDIT_IN", "AUDIT_CHECKPOINT", *(audit_stream(log) for log in range(logs))):
        await nc.request(f"$JS.API.STREAM.DELETE.{stream}", b"", timeout=20)


@contextlib.asynccontextmanager
async def recorder_on(w: World, **options: Any) -> AsyncGenerator[Recorder]:
    """A recorder of a station with a bus of its own, patient; closed (with its closing event) at the end."""
    bus = await Bus.connect("fhir-proxy", w.nats.url, "")
    named = {"service": "fhir-proxy", "instance": bus.instance, "deadline_seconds": PATIENT_SECONDS}
    recorder = Recorder(BusPublisher(bus), KeyRing(Keys().lend), **{**named, **options})
    try:
        yield recorder
    finally:
        await recorder.close()
        await bus.close()


def leaves_of(count: int, *, stamp: Stamp | None = None, **facts: Any) -> list[bytes]:
    """Valid events of one producer."""
    made = stamp or Stamp("test", "test-0001")
    return [made.leaf(status_draft("probe", "test", {"n": i, **facts}), {})[0] for i in range(count)]


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")

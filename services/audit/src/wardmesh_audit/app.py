"""Composition root of the audit service: which roles run in this process and what each of them is given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

import aiohttp
import asyncpg
from nats.errors import Error as NatsError

from wardmesh_audit.api_role import open_api
from wardmesh_audit.assertions import Unsafe, check_role, check_server
from wardmesh_audit.background import Background
from wardmesh_audit.guard import GuardTripped, Outside, read_outside
from wardmesh_audit.keepers import keepers
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_list_daily import DailyList
from wardmesh_audit.note import Checkpoint, Verifier
from wardmesh_audit.outbox import Outbox
from wardmesh_audit.publisher import Publisher
from wardmesh_audit.puller import Puller
from wardmesh_audit.settings import ROLES, AuditSettings, need, secret
from wardmesh_audit.streams import AUDIT_IN, WrongStream, assert_streams, consumer_of
from wardmesh_audit.subject_keys import KeyBook
from wardmesh_audit.witness_watch import watch
from wardmesh_audit.witnesses import Witnesses
from wardmesh_audit.writer import Status, Writer
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_KEY
from wardmesh_common.ending import ended
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.health import Health
from wardmesh_common.lean import NotConnected
from wardmesh_common.questions import Ask, KeyAnswer, KeyQuestion
from wardmesh_common.recorder import Recorder
from wardmesh_common.settings import BadSettings

_ASSERT_SECONDS = 600.0
_REFUSALS = (GuardTripped, Unsafe, WrongStream)
KEY_REASONS = frozenset({"signing_key_changed"})

_log = logging.getLogger("wardmesh.audit")


class Stopped(Exception):
    """A role refused to go on; the process must end with an error."""


@contextlib.asynccontextmanager
async def create_app(settings: AuditSettings, bus: Bus, health: Health) -> AsyncGenerator[None]:
    """Runs the configured roles until the block ends. Raises Stopped when one of them refused to go on."""
    unknown = set(settings.audit_roles) - set(ROLES)
    if unknown:
        raise BadSettings("WARDMESH_AUDIT_ROLES holds a role that does not exist")
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        # Each log its own: what a witness has seen of one says nothing about another.
        witnesses = {log: Witnesses(settings.witnesses(), settings.verifiers(log), session) for log in settings.logs}
        roles = _Roles(settings, bus, witnesses)
        if "keys" in settings.audit_roles:
            await roles.keys(stack)
        if {"writer", "publisher"} & set(settings.audit_roles):
            try:
                await assert_streams(bus.nc, settings.streams)
            except WrongStream as error:
                raise BadSettings(str(error)) from None
            roles.start(roles.reassert())
        for log_id in settings.logs:
            if "writer" in settings.audit_roles:
                roles.start(roles.writer(stack, health, log_id))
            if "publisher" in settings.audit_roles:
                roles.start(roles.publisher(stack, health, log_id))
            if "verify" in settings.audit_roles:
                roles.start(roles.verifier(health, log_id))
        if "publisher" in settings.audit_roles:
            roles.start(roles.daily_list())
        for role in keepers(settings, bus, connector):
            roles.start(role)
        stack.push_async_callback(roles.stop)
        if "api" in settings.audit_roles:
            await _safe(open_api(stack, settings, bus, health))
        yield
    if roles.failure is not None:
        raise Stopped(in_our_words(roles.failure)) from roles.failure


class _Roles:
    """The running roles of this process. They share the bus and nothing else."""

    def __init__(self, settings: AuditSettings, bus: Bus, witnesses: Mapping[int, Witnesses]) -> None:
        self._settings = settings
        self._bus = bus
        self._witnesses = witnesses
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    async def keys(self, stack: contextlib.AsyncExitStack) -> None:
        url = need("WARDMESH_AUDIT_KEYS_URL", self._settings.audit_keys_url)
        kek = secret("WARDMESH_AUDIT_KEK", self._settings.audit_kek)
        handle_key = secret("WARDMESH_AUDIT_HANDLE_KEY", self._settings.audit_handle_key)
        pool = await asyncpg.create_pool(url, min_size=1, max_size=4, command_timeout=5)
        stack.push_async_callback(pool.close)
        async with pool.acquire() as conn:
            await _safe(check_server(conn))
            await _safe(check_role(conn, "key_owner"))
        book = KeyBook(pool, kek, handle_key)

        async def answer(question: KeyQuestion, _ask: Ask) -> KeyAnswer:
            return await book.lend(question)

        await self._bus.answer(ASK_KEY, KeyQuestion, answer)

    def writer(self, stack: contextlib.AsyncExitStack, health: Health, log_id: int) -> Coroutine[Any, Any, None]:
        url = need("WARDMESH_AUDIT_WRITER_URL", self._settings.audit_writer_url)
        puller = Puller(self._bus.nc, AUDIT_IN, consumer_of(log_id))
        stack.push_async_callback(puller.end)
        status, outside = status_of(self._bus), self._outside([], log_id)
        digest = self._settings.digest
        writer = Writer(puller, connector(url), outside, status, log_id=log_id, configuration=digest)
        state = writer.state
        health.checks[_of_log("writer", log_id)] = lambda: (not state.tripped, state.tripped or f"{state.size}")
        return writer.run()

    def publisher(self, stack: contextlib.AsyncExitStack, health: Health, log_id: int) -> Coroutine[Any, Any, None]:
        url = need("WARDMESH_AUDIT_SIGNER_URL", self._settings.audit_signer_url)
        signer = self._settings.signer(log_id)
        verifiers = self._settings.verifiers(log_id)
        if not set(signer.verifiers) <= set(verifiers):
            raise BadSettings("WARDMESH_AUDIT_SIGNING_KEY does not belong to WARDMESH_AUDIT_PUBLIC_KEY")
        outbox = Outbox(self._bus.nc, log_id=log_id)
        stack.callback(outbox.stop)
        status, outside = status_of(self._bus), self._outside(verifiers, log_id)
        witnesses = self._witnesses[log_id]
        publisher = Publisher(outbox, connector(url), outside, signer, status, log_id=log_id, witnesses=witnesses)
        if len(witnesses):
            self.start(watch(witnesses, status, log_id))
            health.checks[_of_log("witness", log_id)] = lambda: (not witnesses.overdue, witnesses.summary())
        state = publisher.state
        health.checks[_of_log("publisher", log_id)] = lambda: (
            not state.tripped,
            state.tripped or f"signed {state.signed}",
        )
        return publisher.run()

    def daily_list(self) -> Coroutine[Any, Any, None]:
        url = need("WARDMESH_AUDIT_SIGNER_URL", self._settings.audit_signer_url)
        signer, status = self._settings.list_signer(), status_of(self._bus)
        return DailyList(self._bus.nc, connector(url), signer, self._settings.list_verifiers(), status).run()

    def verifier(self, health: Health, log_id: int) -> Coroutine[Any, Any, None]:
        url = need("WARDMESH_AUDIT_DETECT_URL", self._settings.audit_detect_url)
        verifiers = self._settings.verifiers(log_id)
        if not verifiers:
            raise BadSettings("WARDMESH_AUDIT_PUBLIC_KEY is not set: there is nothing to verify with")
        background = Background(
            self._bus.nc,
            connector(url),
            verifiers,
            self._outside(verifiers, log_id),
            log_id=log_id,
            lists=self._settings.list_verifiers() if log_id == 0 else (),
            every_seconds=self._settings.audit_verify_seconds,
            share=self._settings.audit_verify_share,
        )
        standing = background.standing
        health.checks[_of_log("verify", log_id)] = lambda: (standing.healthy, standing.text())
        gauge = self._bus.telemetry.gauge
        gauge("audit_verify_result", lambda: standing.exit_code, log_id)
        gauge("audit_verify_age_seconds", standing.age, log_id)
        return background.run()

    async def reassert(self) -> None:
        """Streams are looked at again every ten minutes: a changed one stops the process."""
        while True:
            await asyncio.sleep(_ASSERT_SECONDS)
            with contextlib.suppress(NatsError, NotConnected):
                await assert_streams(self._bus.nc, self._settings.streams)

    def start(self, role: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(role)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        await ended(*self._tasks)

    def _outside(self, verifiers: list[Verifier], log_id: int) -> Callable[[], Awaitable[Outside]]:
        async def witnessed() -> Checkpoint | None:
            return await self._witnesses[log_id].newest(self._settings.origin_of(log_id))

        return lambda: read_outside(self._bus.nc, verifiers, log_id, witnessed=witnessed)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A role never ends by itself unless it refuses to go on: then the whole process has to stop and say so."""
        if task.cancelled() or self.failure is not None:
            return
        self.failure = task.exception() or RuntimeError("a role ended")
        kind = "refused" if isinstance(self.failure, _REFUSALS) else "failed"
        _log.critical("audit role %s: %s", kind, in_our_words(self.failure), exc_info=self.failure)
        os.kill(os.getpid(), signal.SIGTERM)


def connector(url: str) -> Callable[[], Awaitable[Connection]]:
    """Opens connections to a server and as a role that pass the assertions of section 8; Unsafe ends the role."""

    async def connect() -> Connection:
        conn = await asyncpg.connect(url, timeout=5, command_timeout=60)
        try:
            await check_server(conn)
            await check_role(conn, "audit_owner")
        except BaseException:
            conn.terminate()
            raise
        return conn

    return connect


def status_of(bus: Bus) -> Status:
    """Reports about the ledger as events; never lets a full or missing stream stop the role that reports."""

    async def status(reason: str, facts: dict[str, Any]) -> None:
        recorder = bus.recorder
        if isinstance(recorder, Recorder):
            try:
                await recorder.status(reason, facts, event_class="key" if reason in KEY_REASONS else "audit_status")
            except AuditUnavailable:
                _log.error("audit status %s is queued, not acknowledged", reason)

    return status


def in_our_words(failure: BaseException) -> str:
    """In our own words only: the text of any other error may quote what it stumbled over."""
    name = type(failure).__name__
    return f"{name}: {failure}" if isinstance(failure, _REFUSALS) else name


def _of_log(role: str, log_id: int) -> str:
    return f"{role}-{log_id}" if log_id else role


async def _safe(check: Awaitable[None]) -> None:
    try:
        await check
    except Unsafe as error:
        raise BadSettings(f"the database is not safe to use: {error}") from None

"""The whole mesh on one machine: what `wardmesh up` and `wardmesh demo` start, in order, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from wardmesh_cli import engines, hospital, identity, ready, recipes
from wardmesh_cli.binaries import Binaries
from wardmesh_cli.control import Control
from wardmesh_cli.directory import write_feed
from wardmesh_cli.faults import ProcessFault, StartFault
from wardmesh_cli.layout import DATABASES, Layout, lay_out, write_platforms
from wardmesh_cli.listeners import Listeners
from wardmesh_cli.options import SERVICES, UpOptions
from wardmesh_cli.progress import Terminal
from wardmesh_cli.services import Services
from wardmesh_cli.state import State
from wardmesh_cli.supervisor import Budget, Supervisor

T = TypeVar("T")
START_ORDER = ("audit", "policy", "fhir-proxy", "auth", "gateway")
assert set(START_ORDER) == set(SERVICES)


class Mesh:
    """One start of the mesh in one state directory."""

    def __init__(self, layout: Layout, options: UpOptions, terminal: Terminal) -> None:
        self.layout = layout
        self.tokens: dict[str, str] = {}
        self._options = options
        self._terminal = terminal
        self._binaries = Binaries()
        self._announced = False
        self.supervisor = Supervisor(layout.state.logs, Budget(), self.write_ready_file, self._note)
        self._control = Control(self.supervisor, layout.balancer_admin_port)
        self._listeners = Listeners()
        platforms = write_platforms(layout, options.platforms, hospital.descriptors(layout))
        write_feed(layout)
        self._services = Services(layout, options.settings, platforms, self._listeners)

    def _note(self, text: str) -> None:
        if self._announced:
            self._terminal.warn(text)

    async def _step(self, name: str, note: str, work: Awaitable[T]) -> T:
        begun = time.monotonic()
        result = await work
        self._terminal.step(name, note, time.monotonic() - begun)
        return result

    async def start(self) -> None:
        """Raises StartFault; whatever was started then still runs and must be stopped."""
        layout, start, step = self.layout, self.supervisor.start, self._step
        await self._control.listen(layout.state.control_socket)
        await step("postgres", f"PostgreSQL on port {layout.postgres_port}", self._start_postgres())
        await step("nats", f"NATS JetStream on port {layout.nats_port}", start(engines.nats(layout, self._binaries)))
        await step("cerbos", "Cerbos on a unix socket", start(engines.cerbos(layout, self._binaries)))
        idp = engines.identity_provider(layout, self._binaries)
        await step("identity provider", layout.issuer, start(idp))
        local = hospital.server(layout, self._binaries, self._options.settings.get("hospital", {}))
        await step("hospital", layout.smart_issuer, start(local))
        await step("schemas, streams", "auth, audit, fhir-store", self._prepare())
        await step("fhir-store", layout.store_url, self._start_store())
        await step("witness", f"cosigns checkpoints on port {layout.witness_port}", start(self._services.witness()))
        for service in START_ORDER:
            replicas = layout.of(service)
            count = f"{len(replicas)} replica{'s' if len(replicas) > 1 else ''}"
            await step(service, count, start(*(self._services.unit(replica) for replica in replicas)))
        if layout.balancer_admin_port:
            await step("balancer", f"round robin on port {layout.public_port}", start(self._services.balancer()))
        await step("demo people", "signed in with code and PKCE", self._sign_everyone_in())
        self._announced = True
        self.write_ready_file()

    async def _start_postgres(self) -> None:
        unit = await asyncio.to_thread(engines.postgres, self.layout, self._binaries)
        await self.supervisor.start(unit)
        for name in DATABASES.values():
            await recipes.ensure_database(self.layout.postgres_port, name, owner=name)
        for name in ("wardmesh_audit", "wardmesh_audit_keys"):
            await recipes.ensure_database(self.layout.postgres_port, name)

    async def _prepare(self) -> None:
        tasks = [
            self._services.task("auth-migrate", "auth", "migrate"),
            self._services.task("audit-migrate", "audit", "migrate"),
            self._services.task("audit-provision", "audit", "provision"),
            self._services.task("fhir-store-migrate", "fhir-store", "migrate"),
            self._services.task("fhir-store-provision", "fhir-store", "provision"),
        ]
        await self.supervisor.together([self.supervisor.run(task) for task in tasks])

    async def _start_store(self) -> None:
        await self.supervisor.run(self._services.task("fhir-store-seed", "fhir-store", "seed"))
        await self.supervisor.start(self._services.store())

    async def _sign_everyone_in(self) -> None:
        try:
            for person in identity.people(engines.PEOPLE):
                self.tokens[person.name] = await identity.sign_in(self.layout.issuer, self.layout.audience, person)
        except (identity.SignInFault, aiohttp.ClientError, TimeoutError) as error:
            log = list(self.supervisor.children["idp"].log.tail)
            raise ProcessFault(f"signing in failed: {error}", log) from error

    def describe(self) -> dict[str, Any]:
        return ready.describe(self.layout, self.supervisor, self.tokens)

    def write_ready_file(self) -> None:
        """Again whenever a process has another id."""
        if not self._announced:
            return
        content = self.describe()
        for path in filter(None, (self.layout.state.ready_file, self._options.ready_file)):
            ready.write(path, content)

    async def stop(self) -> None:
        self._announced = False
        forget(self._options, self.layout.state)
        self._control.close(self.layout.state.control_socket)
        self._listeners.close()
        await self.supervisor.stop()


def forget(options: UpOptions, state: State) -> None:
    """A ready file of a run that was killed must not speak for this one."""
    for path in filter(None, (state.ready_file, options.ready_file)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@asynccontextmanager
async def prepared(options: UpOptions, terminal: Terminal) -> AsyncGenerator[Mesh]:
    """A mesh that has its ports and directories but is not started; stopped at the end, whatever happened."""
    os.umask(0o022)
    state = State(options.state)
    state.lock()
    forget(options, state)
    if options.reset:
        state.reset()
    mesh = Mesh(lay_out(state, options), options, terminal)
    try:
        yield mesh
    finally:
        await mesh.stop()
        mesh.layout.ports.release()
        state.unlock()


def explain(fault: StartFault, terminal: Terminal) -> int:
    terminal.fault(str(fault), fault.log if isinstance(fault, ProcessFault) else None)
    return fault.code

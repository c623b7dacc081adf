"""A small mesh for bus tests: one gateway and the three stations on a real broker, in one process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import DECIDE, IDENTIFY, Call, Outcome, Touched, perform_subject
from wardmesh_common.station import Handler, Hop
from wardmesh_common.vocabulary import Face, Interaction, Principal

PATIENT = b'{"resourceType":"Patient","id":"1"}'
Perform = Callable[[Call, Hop], Awaitable[Outcome]]


class MemoryRecorder:
    """Keeps what a station recorded; `broken` makes recording fail like a stalled stream."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Call, Outcome]] = []
        self.intents: list[Call] = []
        self.error: Exception | None = None

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        self.intents.append(call)

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        if self.error is not None:
            raise self.error
        self.outcomes.append((call, outcome))

    def codes(self) -> list[str]:
        return [o.problem.code if o.problem else str(o.status) for _, o in self.outcomes]


async def answer_patient(_call: Call, _hop: Hop) -> Outcome:
    return Outcome(status=200, body=PATIENT)


async def identify(call: Call, _hop: Hop) -> Call:
    call.principal = Principal(id="p")
    return call


async def pass_on(call: Call, _hop: Hop) -> Call:
    return call


class SmallMesh:
    """gateway, auth, policy and any number of performers, each with its own connection and recorder."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.buses: list[Bus] = []
        self._serial = 0

    async def bus(self, service: str) -> Bus:
        bus = await Bus.connect(service, self.url, "")
        bus.recorder = MemoryRecorder()
        self.buses.append(bus)
        return bus

    async def start(self, perform: Perform = answer_patient, limit: int = 256) -> None:
        self.gateway = await self.bus("gateway")
        self.auth = await self.bus("auth")
        self.policy = await self.bus("policy")
        await self.auth.station(IDENTIFY, identify, onward=DECIDE)
        await self.policy.station(DECIDE, pass_on, onward=perform_subject("fhir"))
        self.performer = await self.add_performer(perform, limit)

    async def add_performer(self, perform: Handler, limit: int = 256) -> Bus:
        bus = await self.bus("fhir-proxy")
        await bus.station(perform_subject("fhir"), perform, limit=limit)
        return bus

    def call(
        self,
        *,
        tool: str = "read",
        interaction: Interaction = Interaction.READ,
        seconds: float = 10.0,
        operation: str = "",
    ) -> Call:
        self._serial += 1
        return Call(
            id=f"call-{self._serial}",
            reply_to="",
            face=Face.REST,
            tool=tool,
            interaction=interaction,
            operation=operation,
            platform="store",
            deadline=time.time() + seconds,
        )

    async def remove(self, bus: Bus) -> None:
        self.buses.remove(bus)
        await bus.drain()
        await bus.close()


def records(bus: Bus) -> MemoryRecorder:
    assert isinstance(bus.recorder, MemoryRecorder)
    return bus.recorder


@asynccontextmanager
async def small_mesh(url: str, perform: Perform = answer_patient, limit: int = 256) -> AsyncIterator[SmallMesh]:
    mesh = SmallMesh(url)
    try:
        await mesh.start(perform, limit)
        yield mesh
    finally:
        for bus in mesh.buses:
            await bus.close()

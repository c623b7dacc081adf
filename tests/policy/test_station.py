"""The station on a real bus with a real Cerbos: the decision is stamped, refusals are recorded, replicas are chosen."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest
from msgspec import Struct

import engines
from policy.pdp_stage import OWN, PLATFORMS, call_of, caller
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_CATALOGUE,
    ASK_KINDS,
    ASK_TOOLS,
    DECIDE,
    IDENTIFY,
    USERS,
    Call,
    Outcome,
    Reply,
    Touched,
    decode_call,
    encode,
    perform_subject,
)
from wardmesh_common.errors import WardmeshError
from wardmesh_common.health import Health
from wardmesh_common.questions import Catalogue, KindsAnswer, KindsQuestion, ToolsAnswer, ToolsQuestion
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import Interaction, Principal
from wardmesh_policy.app import create_app
from wardmesh_policy.settings import PolicySettings

pytestmark = pytest.mark.anyio
CONF = Path(__file__).resolve().parents[2] / "deploy" / "nats" / "nats.conf"
DOCTOR = caller("Doctor")


class Records:
    """Keeps what was recorded, encoded as it would leave the process."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Call, Outcome]] = []

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        raise AssertionError("policy writes nothing")

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        self.outcomes.append((decode_call(encode(call)), outcome))


class Question(Struct):
    pass


class Stage:
    """gateway, auth and fhir-proxy are played by the test."""

    def __init__(self, stack: AsyncExitStack, url: str, seeds: dict[str, str]) -> None:
        self._stack, self._url, self._seeds = stack, url, seeds
        self.principal = DOCTOR
        self.records: dict[str, Records] = {}
        self.performed: list[Call] = []
        self.served: Counter[str] = Counter()  # by instance
        self.gateway: Bus

    async def bus(self, service: str) -> Bus:
        bus = await Bus.connect(service, self._url, self._seeds.get(service, ""))
        bus.recorder = self.records.setdefault(service, Records())
        self._stack.push_async_callback(bus.close)
        return bus

    async def performer(self, delay: float = 0.0) -> Bus:
        bus = await self.bus("fhir-proxy")

        async def perform(call: Call, _hop: Hop) -> Outcome:
            self.performed.append(call)
            self.served[bus.instance] += 1
            await asyncio.sleep(delay)
            return Outcome(status=200, body=bus.instance.encode())

        async def catalogue(_question: Question, _ask: object) -> Catalogue:
            return Catalogue(version="1", platforms=tuple(PLATFORMS.values()))

        await bus.answer(ASK_CATALOGUE, Question, catalogue)
        await bus.station(perform_subject("fhir"), perform)
        return bus

    async def submit(self, call: Call) -> tuple[Reply, bytes]:
        delivery = await self.gateway.submit(call)
        return delivery.reply, await delivery.body()


@asynccontextmanager
async def stage(
    target: str, url: str, delays: tuple[float, ...] = (0.0,), seeds: dict[str, str] | None = None
) -> AsyncIterator[tuple[Stage, list[Bus]]]:
    async with AsyncExitStack() as stack:
        scene = Stage(stack, url, seeds or {})
        scene.gateway = await scene.bus("gateway")
        performers = [await scene.performer(delay) for delay in delays]
        auth = await scene.bus("auth")

        async def identify(call: Call, _hop: Hop) -> Call:
            call.principal = scene.principal
            return call

        await auth.station(IDENTIFY, identify, onward=DECIDE)
        policy = await scene.bus("policy")
        settings = PolicySettings(nats_url=url, nats_seed="", cerbos_target=target)
        await stack.enter_async_context(create_app(settings, policy, Health()))
        yield scene, performers


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_allowed_call_goes_on_with_a_decision_that_covers_it(pdp: engines.Cerbos, nats: engines.Nats) -> None:
    async with stage(pdp.target, nats.url) as (scene, _):
        scene.principal = caller("patient")
        reply, _body = await scene.submit(call_of("read", "Observation", "1"))
        assert reply.status == 200
        (call,) = scene.performed
        decision = call.decision
        assert decision is not None
        assert (decision.allowed, decision.covers, decision.rule) == (
            True,
            call.digest(),
            "Observation#patient_reads_own",
        )
        assert decision.obligations.compartment == OWN
        assert len(decision.policy_version) == 16
        assert time.time() < decision.expires < time.time() + 20
        assert scene.records["policy"].outcomes == [], "the performer ends and records it"


async def test_a_refused_call_ends_here_recorded_with_its_decision(pdp: engines.Cerbos, nats: engines.Nats) -> None:
    async with stage(pdp.target, nats.url) as (scene, _):
        scene.principal = caller("Nurse")
        reply, body = await scene.submit(call_of("search", "Patient", query="identifier=CANARY"))
        assert (reply.status, body) == (403, b"")
        assert reply.problem is not None
        assert reply.problem.detail == "Access denied: a search by an element that is hidden from this role"
        ((call, outcome),) = scene.records["policy"].outcomes
        assert call.decision is not None
        assert (call.decision.allowed, call.decision.id) == (False, reply.decision_id)
        assert call.decision.covers == call.digest()
        assert call.decision.reason == "a search by an element that is hidden from this role"
        assert "CANARY" not in call.decision.reason
        assert outcome.status == 403
        assert scene.performed == []


async def test_nothing_is_performed_while_cerbos_is_away(nats: engines.Nats) -> None:
    async with stage("unix:/tmp/there-is-no-such-socket", nats.url) as (scene, _):
        started = time.monotonic()
        reply, _ = await scene.submit(call_of("read", "Patient", "1"))
        assert (reply.status, time.monotonic() - started < 8) == (503, True)
        assert scene.performed == []
        assert {outcome.status for _, outcome in scene.records["policy"].outcomes} == {503}


async def test_without_a_catalogue_a_call_is_put_off_and_not_called_unknown(
    pdp: engines.Cerbos, nats: engines.Nats
) -> None:
    async with stage(pdp.target, nats.url, delays=()) as (scene, _):
        reply, _ = await scene.submit(call_of("read", "Patient", "1"))
        assert reply.status == 503
        await scene.performer()
        async with asyncio.timeout(30):
            while (await scene.submit(call_of("read", "Patient", "1")))[0].status != 200:
                await asyncio.sleep(0.02)
        assert (await scene.submit(call_of("read", "Patient", "1", platform="nowhere")))[0].status == 404


async def test_questions_about_kinds_and_tools_are_answered(pdp: engines.Cerbos, nats: engines.Nats) -> None:
    async with stage(pdp.target, nats.url) as (scene, performers):
        asked = ("Patient", "AuditEvent", "Observation")
        for who, allowed in ((caller("Nurse"), (True, False, True)), (caller("patient"), (True, False, True))):
            question = KindsQuestion(principal=who, platform="store", interaction=Interaction.READ, kinds=asked)
            answer = await performers[0].ask(ASK_KINDS, question, KindsAnswer)
            assert tuple(verdict.decision.allowed for verdict in answer.verdicts) == allowed
            assert tuple(verdict.kind for verdict in answer.verdicts) == asked
            compartment = answer.verdicts[0].decision.obligations.compartment
            assert compartment == (OWN if who.roles == ("patient",) else "")
        for who, may in (("Admin", True), ("owner", True), ("Doctor", False), ("Auditor", False), ("patient", False)):
            question = KindsQuestion(
                principal=caller(who), platform="store", interaction=Interaction.OPERATION, kinds=("System",)
            )
            (verdict,) = (await performers[0].ask(ASK_KINDS, question, KindsAnswer)).verdicts
            assert verdict.decision.allowed is may, "of operations an export is what is asked about"
        for interaction in (Interaction.UPDATE, Interaction.HISTORY, Interaction.BATCH):
            question = KindsQuestion(principal=DOCTOR, platform="store", interaction=interaction, kinds=("Patient",))
            with pytest.raises(WardmeshError):
                await performers[0].ask(ASK_KINDS, question, KindsAnswer)
        tools = ToolsQuestion(principal=caller("Nurse"), tools={"a": Interaction.READ, "b": Interaction.CREATE})
        assert (await scene.gateway.ask(ASK_TOOLS, tools, ToolsAnswer)).allowed == ("a",)


async def serves(scene: Stage, calls: int) -> Counter[str]:
    """Four at a time, each for another id; how many each instance served."""
    room, before = asyncio.Semaphore(4), scene.served.copy()

    async def one(number: int) -> None:
        async with room:
            reply, _ = await scene.submit(call_of("read", "Patient", f"n{number}"))
            assert reply.status == 200

    await asyncio.gather(*(one(number) for number in range(calls)))
    return scene.served - before


@pytest.mark.requirement("NB-10")
async def test_a_slow_replica_is_left_alone(pdp: engines.Cerbos, nats: engines.Nats) -> None:
    # Slower by so much that a busy machine makes nobody else as slow.
    async with stage(pdp.target, nats.url, delays=(0.0, 0.0, 1.0)) as (scene, performers):
        slow = performers[2].instance
        # The choice needs to hear of the slow one; until then the queue group's chance is what callers get.
        async with asyncio.timeout(60):
            while not scene.served[slow]:
                await serves(scene, 8)
            while (await serves(scene, 20))[slow]:
                pass
        shares: list[float] = []
        while len(shares) < 3 and min(shares, default=1.0) > 0.01:  # now and then one is sent there to see
            chosen = await serves(scene, 1000)
            assert chosen.total() == 1000
            shares.append(chosen[slow] / 1000)
        assert min(shares) <= 0.01, "99 of 100 calls wait for none; with the queue group a third of all do"


async def test_a_dead_chosen_replica_costs_no_call(pdp: engines.Cerbos, nats: engines.Nats) -> None:
    async with stage(pdp.target, nats.url, delays=(0.0, 0.0, 0.0)) as (scene, performers):
        await serves(scene, 20)
        await performers[0].close()
        await serves(scene, 100)
        served = {call.id for call in scene.performed}
        assert len(served) == 120


async def test_policy_does_all_its_work_with_the_rights_of_the_broker(
    pdp: engines.Cerbos, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": "127.0.0.1:-1"}
    seeds: dict[str, str] = {}
    for user in USERS:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        seeds[user] = seed.decode()
        environ[f"WARDMESH_NKEY_{user.upper().replace('-', '_')}"] = nkeys.from_seed(seed).public_key.decode()
    with engines.nats(CONF.read_text(), environ) as broker:
        async with stage(pdp.target, broker.url, delays=(0.0, 0.0), seeds=seeds) as (scene, performers):
            await serves(scene, 30)
            scene.principal = Principal(id="i:nobody")
            assert (await scene.submit(call_of("read", "Patient", "1")))[0].status == 403
            question = KindsQuestion(
                principal=DOCTOR, platform="store", interaction=Interaction.READ, kinds=("Patient",)
            )
            assert (await performers[0].ask(ASK_KINDS, question, KindsAnswer)).verdicts[0].decision.allowed
    assert "permission" not in caplog.text.lower()

"""Composition root of policy: Cerbos, the bundle's version, the catalogue, and the station that decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_KINDS,
    ASK_TOOLS,
    DECIDE,
    EVENT_POLICY_CHANGED,
    LOAD,
    PERFORMERS,
    Call,
    perform_subject,
)
from wardmesh_common.errors import BadRequest
from wardmesh_common.health import Health
from wardmesh_common.questions import Ask, Changed, KindsAnswer, KindsQuestion, KindVerdict, ToolsAnswer, ToolsQuestion
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import EXPORT, Interaction
from wardmesh_policy.bundle import Bundle
from wardmesh_policy.cache import VerdictCache
from wardmesh_policy.cerbos_client import CerbosClient
from wardmesh_policy.checks import ACTIONS, Check
from wardmesh_policy.decider import Decider, refusal_of
from wardmesh_policy.offers import Offers
from wardmesh_policy.performers import PerformerChoice
from wardmesh_policy.platforms import Platforms
from wardmesh_policy.settings import PolicySettings

ASK_SECONDS = 1.0
# Content that is a file of an export leaves only to who may export.
ASKED = {
    Interaction.READ: ACTIONS[Interaction.READ],
    Interaction.SEARCH: ACTIONS[Interaction.SEARCH],
    Interaction.OPERATION: f"operation:{EXPORT.lstrip('$')}",
}


@asynccontextmanager
async def create_app(settings: PolicySettings, bus: Bus, health: Health) -> AsyncGenerator[None]:
    bundle = Bundle(settings.bundle)
    cache = VerdictCache()
    cerbos = CerbosClient(settings.cerbos_target)
    platforms = Platforms(bus)
    await platforms.start()
    health.checks["bundle"] = lambda: (True, bundle.summary)
    timeout, home = settings.cerbos_timeout_seconds, frozenset(settings.home_platforms)
    decider = Decider(cerbos, cache, platforms.get, lambda: bundle.version, timeout, home)
    offers = Offers(cerbos, lambda: bundle.kinds, lambda: platforms.all, lambda: bundle.version, timeout)

    async def changed(version: str) -> None:
        cache.policies_changed()
        await bus.tell(EVENT_POLICY_CHANGED, Changed(version=version))

    async def flush(_event: Changed) -> None:
        cache.policies_changed()

    await bus.hear(EVENT_POLICY_CHANGED, Changed, flush)
    watching = asyncio.create_task(bundle.watch(changed))
    try:
        await _serve(bus, decider, offers, platforms, settings.station_limit)
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await platforms.stop()
        await cerbos.close()


async def _serve(bus: Bus, decider: Decider, offers: Offers, platforms: Platforms, limit: int) -> None:
    """Questions first, the station last (NB-8)."""
    choices = {name: PerformerChoice() for name in PERFORMERS}

    async def decide(call: Call, hop: Hop) -> Call:
        if call.performer not in choices:
            raise BadRequest("Nobody carries out such a call.")
        call.decision = await decider.decide(call, hop.remaining())
        if not call.decision.allowed:
            raise refusal_of(call.decision)
        hop.onward = queue = perform_subject(call.performer)
        facts = platforms.get(call.platform) if call.platform else None
        instance = choices[call.performer].choose(call.platform if facts and facts.rate_limited else "")
        if instance:
            hop.onward, hop.fallback = perform_subject(call.performer, instance), queue
        return call

    async def kinds(question: KindsQuestion, _ask: Ask) -> KindsAnswer:
        return await answer_kinds(decider, question)

    async def tools(question: ToolsQuestion, _ask: Ask) -> ToolsAnswer:
        return await offers.answer(question)

    for performer, service in PERFORMERS.items():
        _hear_load(bus, service, choices[performer])
    await bus.answer(ASK_KINDS, KindsQuestion, kinds)
    await bus.answer(ASK_TOOLS, ToolsQuestion, tools)
    await bus.station(DECIDE, decide, limit=limit)


def _hear_load(bus: Bus, service: str, choice: PerformerChoice) -> None:
    def heard(subject: bytes, _reply: bytes, data: bytes, _header: bytes | None) -> None:
        choice.on_load(subject.decode(), data)

    bus.nc.lean_subscribe(f"{LOAD}.{service}.*", heard)


async def answer_kinds(decider: Decider, question: KindsQuestion) -> KindsAnswer:
    """Verdicts for kinds that came along in an answer, or that a search reaches into."""
    action = ASKED.get(question.interaction)
    if action is None:
        raise BadRequest("Kinds are read, searched by or exported; nothing else is asked about them.")
    came_along = question.interaction is Interaction.READ
    checks = [Check(kind=kind, action=action, came_along=came_along) for kind in question.kinds]
    decisions = await decider.judge(question.principal, question.grant, question.platform, checks, ASK_SECONDS)
    pairs = zip(question.kinds, decisions, strict=True)
    return KindsAnswer(verdicts=tuple(KindVerdict(kind=kind, decision=decision) for kind, decision in pairs))

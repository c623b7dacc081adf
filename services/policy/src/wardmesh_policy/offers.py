"""Which tools a caller can use at all, for tools/list: allowed on at least one kind of at least one platform (B-5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable

from wardmesh_common.contracts import PROCEDURE_KINDS
from wardmesh_common.questions import PlatformFacts, ToolsAnswer, ToolsQuestion
from wardmesh_common.vocabulary import (
    COVERAGE_OPERATIONS,
    DATASTORE_OPERATIONS,
    Grant,
    Interaction,
    Principal,
    is_write,
)
from wardmesh_policy.checks import ACTIONS, Check, caller_of
from wardmesh_policy.decider import Asks

SECONDS = 10.0
# Everything an operation tool could be good for; one of them is enough to show the tool.
SIGN_IN = "authorization_code"
_OWN_GRANT = Grant(platform="any", scopes=("patient/*.cruds",), patient="own")
OPERATIONS = ("operation:everything", "operation:validate", "operation:summary")
# A tool that runs one operation of ours is shown to whom that one is allowed.
OWN_OPERATIONS = {name: f"operation:{name.lstrip('$')}" for name in (*COVERAGE_OPERATIONS, *DATASTORE_OPERATIONS)}
_DATASTORE = frozenset(OWN_OPERATIONS[name] for name in DATASTORE_OPERATIONS)


class Offers:
    """Asks Cerbos once per kind of caller and remembers the answer for a few seconds."""

    def __init__(
        self,
        cerbos: Asks,
        kinds: Callable[[], tuple[str, ...]],
        platforms: Callable[[], list[PlatformFacts]],
        version: Callable[[], str],
        timeout_seconds: float,
    ) -> None:
        self._cerbos = cerbos
        self._kinds = kinds
        self._platforms = platforms
        self._version = version
        self._timeout = timeout_seconds
        self._held: dict[Hashable, tuple[float, frozenset[str]]] = {}

    async def answer(self, question: ToolsQuestion) -> ToolsAnswer:
        """Raises Unavailable: a list that nobody decided on is not shown."""
        actions = await self._actions(question.principal)
        wanted = {name: _actions_of(interaction) for name, interaction in question.tools.items()}
        single = {name: OWN_OPERATIONS.get(operation, "") for name, operation in question.operations.items()}
        wanted |= {name: frozenset({action}) for name, action in single.items()}
        allowed = [name for name, needs in wanted.items() if needs & actions]
        return ToolsAnswer(allowed=(*allowed, *await self._procedures(question)))

    async def _procedures(self, question: ToolsQuestion) -> list[str]:
        """Operations of ours: one question each, about the caller's own record where there is one."""
        names = [name for name, performer in question.procedures.items() if performer in PROCEDURE_KINDS]
        if not names:
            return []
        caller = caller_of(question.principal, None, home=True)
        key = (self._version(), caller, question.principal.patient, *names)
        held = self._kept(key)
        if held is not None:
            return [name for name in names if name in held]
        facts = PlatformFacts(id="", name="", type="")
        checks = [
            Check(kind=PROCEDURE_KINDS[question.procedures[name]], action=name, id=question.principal.patient)
            for name in names
        ]
        asked = [(check, check.attributes(facts, None)) for check in checks]
        verdicts = await self._cerbos.ask(caller, asked, self._timeout)
        allowed = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.allowed]
        self._keep(key, frozenset(allowed))
        return allowed

    async def _actions(self, principal: Principal) -> frozenset[str]:
        platforms = self._platforms()
        facts = _any_of(platforms)
        # Where people sign in themselves: what their own sign-in would open is shown before they have done so.
        places = [p for p in platforms if p.auth_method == SIGN_IN] if not principal.anonymous else []
        own = _any_of(places, SIGN_IN)
        who = (principal.roles, bool(principal.patient), bool(principal.practitioner), principal.anonymous)
        key = (self._version(), who, facts.open, facts.writes, bool(places), own.writes)
        held = self._kept(key)
        if held is not None:
            return held
        actions = await self._ask(principal, facts, None)
        if places:
            actions |= await self._ask(principal, own, _OWN_GRANT)
        self._keep(key, actions)
        return actions

    def _kept(self, key: Hashable) -> frozenset[str] | None:
        held = self._held.get(key)
        return held[1] if held is not None and held[0] > time.monotonic() else None

    def _keep(self, key: Hashable, allowed: frozenset[str]) -> None:
        if len(self._held) > 1000:
            self._held.clear()
        self._held[key] = (time.monotonic() + SECONDS, allowed)

    async def _ask(self, principal: Principal, facts: PlatformFacts, grant: Grant | None) -> frozenset[str]:
        caller = caller_of(principal, grant, home=grant is None)

        async def allowed(action: str) -> bool:
            kinds = ("Datastore",) if action in _DATASTORE else self._kinds()
            checks = [_example(kind, action, principal, grant) for kind in kinds]
            asked = [(check, check.attributes(facts, grant)) for check in checks]
            return any(verdict.allowed for verdict in await self._cerbos.ask(caller, asked, self._timeout))

        actions = (*dict.fromkeys(ACTIONS.values()), *OPERATIONS, *OWN_OPERATIONS.values())
        # To the end of all of them: when one fails, the others are not left under way.
        answers = await asyncio.gather(*(allowed(action) for action in actions), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return frozenset(action for action, yes in zip(actions, answers, strict=True) if yes)


def _any_of(platforms: list[PlatformFacts], auth_method: str = "none") -> PlatformFacts:
    """One platform that allows whatever one of these allows."""
    return PlatformFacts(
        id="any",
        name="any",
        type="any",
        open=any(platform.open for platform in platforms),
        writes=any(platform.writes for platform in platforms),
        auth_method=auth_method,
    )


def _example(kind: str, action: str, principal: Principal, grant: Grant | None) -> Check:
    """The resource of this kind that the caller would most likely be allowed to touch: the own one."""
    patient = grant.patient if grant else principal.patient
    own = {"Patient": patient, "Practitioner": principal.practitioner, "Person": principal.practitioner}
    return Check(kind=kind, action=action, id=own.get(kind, ""), subject=patient)


def _actions_of(interaction: Interaction) -> frozenset[str]:
    if interaction is Interaction.OPERATION:
        return frozenset(OPERATIONS)
    if interaction in (Interaction.BATCH, Interaction.TRANSACTION):
        return frozenset(ACTIONS[each] for each in Interaction if each in ACTIONS and is_write(each))
    return frozenset({ACTIONS[interaction]})

"""One decision per call: checks, cache, Cerbos, and the stamp that says what was decided and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, Denied, PlatformUnknown, Unavailable
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Decision, Grant, Interaction, Principal
from wardmesh_policy.cache import VerdictCache
from wardmesh_policy.checks import NAME, PURPOSE, Caller, Check, caller_of, checks_of
from wardmesh_policy.verdicts import Contradiction, Verdict, joined

# A decision is good for its call only; this is how long past the call's budget it may be shown.
GRACE_SECONDS = 5.0
RECORD_SECONDS = 0.4  # kept for recording a refusal
PURPOSE_SECONDS = 0.2  # a refusal waits no longer to learn what was asked for


class Asks(Protocol):
    """CerbosClient, or a fake in tests."""

    async def ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]: ...


class Finding(Struct, frozen=True):
    """What came out for a call, before it is stamped."""

    verdict: Verdict
    denied_entries: tuple[int, ...] = ()


class Decider:
    """Turns calls and questions into decisions."""

    def __init__(
        self,
        cerbos: Asks,
        cache: VerdictCache,
        facts: Callable[[str], PlatformFacts | None],
        version: Callable[[], str],
        timeout_seconds: float,
        home: frozenset[str],
    ) -> None:
        self._home = home
        self._cerbos = cerbos
        self._cache = cache
        self._facts = facts
        self._version = version
        self._timeout = timeout_seconds

    async def decide(self, call: Call, remaining: float) -> Decision:
        """The decision, allowed or not. Raises Unavailable when none could be made, PlatformUnknown, BadRequest."""
        assert call.principal is not None, "auth stamps the principal before policy is asked"
        platform = self._platform(call)
        checks = checks_of(call)
        if not checks:
            raise BadRequest("The bundle has no entries to decide on.")
        grant = call.grant if call.grant and call.grant.platform == call.platform else None
        caller = caller_of(call.principal, grant, home=platform.id in self._home)
        verdicts = await self._verdicts(caller, checks, platform, grant, remaining)
        finding = _weigh(call.interaction, checks, verdicts)
        if not finding.verdict.allowed:
            purpose = await self._asked_for(call, caller, platform, remaining)
            finding = Finding(msgspec.structs.replace(finding.verdict, purpose=purpose))
        known_as = f"Practitioner/{caller.practitioner}" if caller.practitioner else ""
        seconds = max(0.0, remaining) + GRACE_SECONDS
        return self._stamp(finding, covers=call.digest(), seconds=seconds, known_as=known_as)

    async def judge(
        self, principal: Principal, grant: Grant | None, platform_id: str, checks: list[Check], remaining: float
    ) -> list[Decision]:
        """One decision per check, for kinds that came along in an answer."""
        platform = self._known(platform_id)
        caller = caller_of(principal, grant, home=platform.id in self._home)
        verdicts = await self._verdicts(caller, checks, platform, grant, remaining)
        return [self._stamp(Finding(verdict), covers="", seconds=GRACE_SECONDS) for verdict in verdicts]

    async def _asked_for(self, call: Call, caller: Caller, platform: PlatformFacts, remaining: float) -> str:
        """What a refused call was for, for the record: the refusal stands whether or not anybody can say."""
        if call.procedure:
            return ""
        if call.emergency is not None:
            return "BTG"
        budget = min(remaining, RECORD_SECONDS + PURPOSE_SECONDS)
        try:
            named = await self._verdicts(caller, [Check(kind=PURPOSE, action=NAME)], platform, None, budget)
        except Unavailable:
            return ""
        return named[0].purpose

    def _platform(self, call: Call) -> PlatformFacts:
        """An operation of ours need not concern a platform, or concerns one that is gone by now."""
        if call.procedure:
            return self._facts(call.platform) or PlatformFacts(id=call.platform, name="", type="")
        return self._known(call.platform)

    def _known(self, name: str) -> PlatformFacts:
        platform = self._facts(name)
        if platform is None:
            raise PlatformUnknown("The platform is not in the catalogue.")
        return platform

    async def _verdicts(
        self, caller: Caller, checks: list[Check], platform: PlatformFacts, grant: Grant | None, remaining: float
    ) -> list[Verdict]:
        found: list[Verdict | None] = [_switched_off(check, platform) for check in checks]
        version = self._version()
        keys = [self._cache.key(version, caller, check, platform, grant) for check in checks]
        for number, check in enumerate(checks):
            if found[number] is None and not check.write:
                found[number] = self._cache.get(keys[number])
        # A transaction that creates a thousand resources asks the same few questions again and again.
        missing = {keys[number]: check for number, check in enumerate(checks) if found[number] is None}
        if missing:

            async def ask(wanted: Sequence[Hashable], seconds: float) -> list[Verdict]:
                asked = [(missing[key], missing[key].attributes(platform, grant)) for key in wanted]
                return await self._cerbos.ask(caller, asked, seconds)

            writes = frozenset(key for key, check in missing.items() if check.write)
            timeout = min(self._timeout, remaining - RECORD_SECONDS)
            fresh = await self._cache.flights.verdicts(list(missing), ask, timeout, writes)
            for key in fresh.keys() - writes:
                self._cache.put(key, fresh[key])
            found = [fresh[keys[number]] if verdict is None else verdict for number, verdict in enumerate(found)]
        answered = [verdict for verdict in found if verdict is not None]
        return [_unprobed(check, verdict) for check, verdict in zip(checks, answered, strict=True)]

    def _stamp(self, finding: Finding, *, covers: str, seconds: float, known_as: str = "") -> Decision:
        verdict = finding.verdict
        obligations = verdict.obligations
        if finding.denied_entries:
            obligations = joined([obligations], finding.denied_entries)
        return Decision(
            id=os.urandom(16).hex(),
            allowed=verdict.allowed,
            reason=verdict.reason,
            rule=verdict.rule,
            policy_version=self._version(),
            purpose=verdict.purpose,
            known_as=known_as,
            covers=covers,
            expires=time.time() + seconds,
            obligations=obligations,
        )


def _switched_off(check: Check, platform: PlatformFacts) -> Verdict | None:
    """Writes are off unless a platform's descriptor turns them on (B-17)."""
    if check.write and not platform.writes:
        return Verdict(allowed=False, reason="writes are switched off for this platform")
    return None


def _unprobed(check: Check, verdict: Verdict) -> Verdict:
    """Who is shown a masked copy may not bring out what it hides by patching it."""
    shown = (mask.type in (check.kind, "*") for mask in verdict.obligations.masks)
    if check.probing and verdict.allowed and any(shown):
        return Verdict(allowed=False, rule=verdict.rule, reason="a patch that tests or copies hidden elements")
    return verdict


def _weigh(interaction: Interaction, checks: list[Check], verdicts: list[Verdict]) -> Finding:
    """All must be allowed; in a batch the denied entries stay behind and the others go (PX-10)."""
    denied = [(check, verdict) for check, verdict in zip(checks, verdicts, strict=True) if not verdict.allowed]
    allowed = [verdict for verdict in verdicts if verdict.allowed]
    entries = tuple(sorted({check.entry for check, _ in denied}))
    every_entry_denied = len(entries) == len({check.entry for check in checks})
    if denied and (interaction is not Interaction.BATCH or every_entry_denied):
        check, verdict = denied[0]
        where = f"entry {check.entry}: " if check.entry >= 0 else ""
        return Finding(Verdict(allowed=False, rule=verdict.rule, reason=where + verdict.reason))
    try:
        obligations = joined(verdict.obligations for verdict in allowed)
    except Contradiction:
        return Finding(Verdict(allowed=False, reason="parts of the call are limited to different patients"))
    first = allowed[0]
    whole = Verdict(allowed=True, rule=first.rule, reason="allowed", obligations=obligations, purpose=first.purpose)
    return Finding(whole, entries)


def refusal_of(decision: Decision) -> Denied:
    return Denied(f"Access denied: {decision.reason}")

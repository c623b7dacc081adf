"""The platforms as this replica knows them: a snapshot of the catalogue, and look-ups by every name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

from wardmesh_common.catalogue import AsksCatalogue, KeptCatalogue
from wardmesh_common.contracts import ASK_DIRECTORY, ASK_ORGANISATION
from wardmesh_common.errors import BadRequest, Unavailable
from wardmesh_common.organisations import facts_behind, may_stand_behind, vendor_of
from wardmesh_common.questions import (
    Catalogue,
    DirectoryAnswer,
    DirectoryQuestion,
    OrganisationQuestion,
    PlatformFacts,
)
from wardmesh_gateway.rules import is_platform_id


class Ambiguous(BadRequest):
    """A name that fits several platforms; the text lists our ids, never the name."""


class Snapshot:
    """One catalogue with its look-up tables. Order of a look-up: id, alias, payer id, name pattern."""

    def __init__(self, platforms: Iterable[PlatformFacts]) -> None:
        self.platforms = tuple(sorted(platforms, key=lambda facts: (facts.name.lower(), facts.id)))
        self._ids = {facts.id.lower(): facts for facts in self.platforms}
        self._aliases: dict[str, list[PlatformFacts]] = {}
        self._payers: dict[str, list[PlatformFacts]] = {}
        self._patterns: list[tuple[re.Pattern[str], PlatformFacts]] = []
        for facts in self.platforms:
            for alias in facts.aliases:
                self._aliases.setdefault(alias.lower(), []).append(facts)
            for payer in facts.payer_ids:
                self._payers.setdefault(payer.lower(), []).append(facts)
            for pattern in facts.name_patterns:
                with contextlib.suppress(re.error):  # data of a deployment: a bad pattern matches nothing
                    self._patterns.append((re.compile(pattern, re.IGNORECASE), facts))

    def find(self, name: str) -> PlatformFacts | None:
        """The platform of that name, or None. Raises Ambiguous when several have equal right to it."""
        exact = self._ids.get(name)
        if exact is not None:
            return exact
        vendor = self._ids.get(vendor_of(name))
        if vendor is not None and may_stand_behind(vendor, name):
            return facts_behind(vendor, name)
        lowered = name.strip().lower()
        exact = self._ids.get(lowered)
        if exact is not None:
            return exact
        named, paid = self._aliases.get(lowered, []), self._payers.get(lowered, [])
        # A row may list its payer id among its aliases too: that gives it no right over the others with this id.
        candidates = [*named, *(facts for facts in paid if facts not in named)] if paid else named
        return _one_of(candidates or self._by_pattern(name, lowered))

    def by_id(self, platform_id: str) -> PlatformFacts | None:
        return self._ids.get(platform_id)

    def _by_pattern(self, name: str, lowered: str) -> list[PlatformFacts]:
        """A name of a payer may hold more words than the pattern; a mistyped id must not land elsewhere."""
        whole = is_platform_id(name)
        found: dict[str, PlatformFacts] = {}
        for pattern, facts in self._patterns:
            if pattern.fullmatch(lowered) if whole else pattern.search(lowered):
                found[facts.id] = facts
        return list(found.values())


def _one_of(candidates: list[PlatformFacts]) -> PlatformFacts | None:
    if len(candidates) > 1:
        candidates = [facts for facts in candidates if facts.live] or candidates
    if len(candidates) > 1:
        ids = ", ".join(sorted(facts.id for facts in candidates))
        raise Ambiguous(f"Several platforms go by this name: {ids}. Use one of these ids.")
    return candidates[0] if candidates else None


class Platforms:
    """The newest snapshot, and what is asked beside it; the old one is served while fhir-proxy is away."""

    def __init__(self, bus: AsksCatalogue) -> None:
        self._bus = bus
        self._snapshot: Snapshot | None = None
        self._kept = KeptCatalogue(bus, self.put)

    @property
    def snapshot(self) -> Snapshot:
        """Raises Unavailable until the first catalogue has arrived."""
        if self._snapshot is None:
            raise Unavailable("The platform catalogue is not available yet.", retry_after=1)
        return self._snapshot

    @property
    def count(self) -> int:
        return len(self._snapshot.platforms) if self._snapshot else 0

    @property
    def known(self) -> bool:
        return self._snapshot is not None

    def platform(self, platform_id: str) -> PlatformFacts | None:
        """By id or any other name; None also for a name that fits several."""
        try:
            return self._snapshot.find(platform_id) if self._snapshot else None
        except Ambiguous:
            return None

    async def details(self, name: str) -> PlatformFacts | None:
        """As `snapshot.find`, with the address of an organisation. Raises PlatformUnknown for one nobody lists."""
        facts = self.snapshot.find(name)
        if facts is None or not facts.vendor:
            return facts
        return await self._bus.ask(ASK_ORGANISATION, OrganisationQuestion(platform=facts.id), PlatformFacts)

    async def search(self, question: DirectoryQuestion) -> DirectoryAnswer:
        """Platforms and organisations that fit a name or place. Raises BadRequest, Unavailable."""
        return await self._bus.ask(ASK_DIRECTORY, question, DirectoryAnswer)

    def put(self, catalogue: Catalogue) -> None:
        self._snapshot = Snapshot(catalogue.platforms)

    async def start(self) -> None:
        """In the background: the gateway comes up without fhir-proxy."""
        await self._kept.start()

    async def stop(self) -> None:
        await self._kept.stop()

"""What auth knows of the platforms: a snapshot of the catalogue, and organisations asked for one by one."""

from __future__ import annotations

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_common.catalogue import AsksCatalogue, KeptCatalogue
from wardmesh_common.contracts import ASK_ORGANISATION
from wardmesh_common.errors import PlatformUnknown, Unavailable
from wardmesh_common.organisations import vendor_of
from wardmesh_common.questions import Catalogue, OrganisationQuestion, PlatformFacts

_FRESH_SECONDS = 60.0  # in case the event that told of a change was missed
_MAX_ORGANISATIONS = 4096


class Platforms:
    """Ids are exact here: the gateway has resolved aliases before the call was sent."""

    def __init__(self, bus: AsksCatalogue) -> None:
        self._bus = bus
        self._organisations: Bounded[str, PlatformFacts] = Bounded(_MAX_ORGANISATIONS)
        self._asking: SingleFlight[str, PlatformFacts] = SingleFlight()
        self._platforms: dict[str, PlatformFacts] | None = None
        self._kept = KeptCatalogue(bus, self._take)

    async def serving(self, platform: str) -> PlatformFacts:
        """The facts of the platform that answers for this id (FG-27). Raises PlatformUnknown, Unavailable."""
        if vendor_of(platform):
            return await self._listed(platform)
        known = self._known()
        facts = known.get(platform)
        if facts is not None and facts.served_by and not facts.fhir_base_url:
            facts = known.get(facts.served_by)
        if facts is None:
            raise PlatformUnknown("there is no such platform")
        return facts

    def all(self) -> tuple[PlatformFacts, ...]:
        """Raises Unavailable."""
        return tuple(self._known().values())

    async def start(self, seconds: float) -> bool:
        """Waits for the first catalogue, but not longer than this; True when it is here."""
        await self._kept.start()
        return await self._kept.first(seconds)

    async def stop(self) -> None:
        await self._kept.stop()
        await self._asking.close()

    async def _listed(self, platform: str) -> PlatformFacts:
        """An organisation of a directory: there are too many to keep them all. Raises PlatformUnknown, Unavailable."""
        known = self._organisations.get(platform)
        if known is None:
            known = await self._asking.run(platform, lambda: self._ask(platform))
            self._organisations.put(platform, known, _FRESH_SECONDS)
        return known

    async def _ask(self, platform: str) -> PlatformFacts:
        return await self._bus.ask(ASK_ORGANISATION, OrganisationQuestion(platform=platform), PlatformFacts)

    def _known(self) -> dict[str, PlatformFacts]:
        if self._platforms is None:
            raise Unavailable("the platform catalogue is not available yet", retry_after=1)
        return self._platforms

    def _take(self, catalogue: Catalogue) -> None:
        self._platforms = {facts.id: facts for facts in catalogue.platforms}
        # A list may have been imported again: whoever is called next is asked for anew.
        self._organisations.drop_keys(lambda _: True)

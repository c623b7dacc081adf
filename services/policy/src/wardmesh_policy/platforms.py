"""The catalogue as policy needs it: which platforms are open, and which take writes."""

from __future__ import annotations

from wardmesh_common.catalogue import AsksCatalogue, KeptCatalogue
from wardmesh_common.errors import Unavailable
from wardmesh_common.organisations import facts_behind, may_stand_behind, vendor_of
from wardmesh_common.questions import Catalogue, PlatformFacts

REFRESH_SECONDS = 30.0


class Platforms:
    """The newest snapshot by id."""

    def __init__(self, bus: AsksCatalogue) -> None:
        self._facts: dict[str, PlatformFacts] = {}
        self._kept = KeptCatalogue(bus, self._take, refresh_seconds=REFRESH_SECONDS)

    @property
    def all(self) -> list[PlatformFacts]:
        return list(self._facts.values())

    def get(self, name: str) -> PlatformFacts | None:
        """None for a platform that does not exist. Raises Unavailable while nobody told which ones do."""
        if not self._facts:
            raise Unavailable("The catalogue of platforms is not there yet.", retry_after=1)
        facts = self._facts.get(name)
        vendor = self._facts.get(vendor_of(name)) if facts is None else None
        return facts_behind(vendor, name) if vendor is not None and may_stand_behind(vendor, name) else facts

    async def start(self) -> None:
        """A replica that joins a running mesh knows the catalogue before it takes calls."""
        await self._kept.start()
        await self._kept.first()

    async def stop(self) -> None:
        await self._kept.stop()

    def _take(self, catalogue: Catalogue) -> None:
        self._facts = {platform.id: platform for platform in catalogue.platforms}

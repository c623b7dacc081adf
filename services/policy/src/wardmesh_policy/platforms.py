"""The catalogue as policy needs it: which platforms are open, and which take writes."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from msgspec import Struct

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_CATALOGUE, EVENT_CATALOGUE_CHANGED
from wardmesh_common.errors import Unavailable, WardmeshError
from wardmesh_common.organisations import facts_behind, may_stand_behind, vendor_of
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts

RETRY_SECONDS = 0.5
REFRESH_SECONDS = 30.0

_log = logging.getLogger("wardmesh.policy")


class CatalogueQuestion(Struct, kw_only=True):
    pass


class Platforms:
    """A snapshot, refreshed when fhir-proxy says so and now and then anyway; events may get lost."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._facts: dict[str, PlatformFacts] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

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
        async def changed(_event: Changed) -> None:
            self._wake.set()

        await self._bus.hear(EVENT_CATALOGUE_CHANGED, Changed, changed)
        await self._fetch()  # a replica that joins a running mesh knows the catalogue before it takes calls
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            known = await self._fetch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS if known else RETRY_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def _fetch(self) -> bool:
        try:
            catalogue = await self._bus.ask(ASK_CATALOGUE, CatalogueQuestion(), Catalogue)
        except WardmeshError as error:
            _log.info("the catalogue is not there yet: %s", error.problem.code)
            return bool(self._facts)
        self._facts = {platform.id: platform for platform in catalogue.platforms}
        return True

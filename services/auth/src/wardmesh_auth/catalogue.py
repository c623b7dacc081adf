"""What auth knows of the platforms: asked from fhir-proxy, kept, asked again when it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_common.errors import PlatformUnknown, Unavailable, WardmeshError
from wardmesh_common.organisations import vendor_of
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts

_FRESH_SECONDS = 60.0  # in case the event that told of a change was missed
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = 0.25
_MAX_ORGANISATIONS = 4096

log = logging.getLogger("wardmesh.auth")


class Platforms:
    """Ids are exact here: the gateway has resolved aliases before the call was sent."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Catalogue]],
        organisation: Callable[[str], Awaitable[PlatformFacts]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._organisation, self._clock = ask, organisation, clock
        self._organisations: Bounded[str, PlatformFacts] = Bounded(_MAX_ORGANISATIONS)
        self._asking: SingleFlight[str, PlatformFacts] = SingleFlight()
        self._platforms: dict[str, PlatformFacts] | None = None
        self._version = ""
        self._stale_at = self._tried_at = float("-inf")
        self._flight: SingleFlight[str, None] = SingleFlight()

    async def serving(self, platform: str) -> PlatformFacts:
        """The facts of the platform that answers for this id (FG-27). Raises PlatformUnknown, Unavailable."""
        if vendor_of(platform):
            return await self._listed(platform)
        known = await self._known()
        facts = known.get(platform)
        if facts is not None and facts.served_by and not facts.fhir_base_url:
            facts = known.get(facts.served_by)
        if facts is None:
            raise PlatformUnknown("there is no such platform")
        return facts

    async def _listed(self, platform: str) -> PlatformFacts:
        """An organisation of a directory: there are too many to keep them all. Raises PlatformUnknown, Unavailable."""
        known = self._organisations.get(platform)
        if known is None:
            known = await self._asking.run(platform, lambda: self._organisation(platform))
            self._organisations.put(platform, known, _FRESH_SECONDS)
        return known

    async def all(self) -> tuple[PlatformFacts, ...]:
        """Raises Unavailable."""
        return tuple((await self._known()).values())

    async def _known(self) -> dict[str, PlatformFacts]:
        now = self._clock()
        if self._platforms is None:
            await self._flight.run("", self._fetch)
        elif now >= self._stale_at and now - self._tried_at >= _PAUSE_SECONDS:
            self._flight.start("", self._fetch_quietly)
        if self._platforms is None:
            raise Unavailable("the platform catalogue is not available yet", retry_after=1)
        return self._platforms

    async def first(self, seconds: float) -> bool:
        """Wait for the first catalogue, but not longer than this; True when it is here."""
        limit = time.monotonic() + seconds
        while self._platforms is None:
            await self._flight.run("", self._fetch_quietly)
            if self._platforms is None:
                if time.monotonic() + _RETRY_SECONDS > limit:
                    return False
                await asyncio.sleep(_RETRY_SECONDS)
        return True

    async def changed(self, event: Changed) -> None:
        if event.version != self._version:
            # A list may have been imported again: whoever is called next is asked for anew.
            self._organisations.drop_keys(lambda _: True)
            self._stale_at = float("-inf")
            # An older answer may be on its way: wait for it, then ask again.
            await self._flight.run("", self._fetch_quietly)
            if event.version != self._version:
                await self._flight.run("", self._fetch_quietly)

    async def close(self) -> None:
        await self._flight.close()
        await self._asking.close()

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            catalogue = await self._ask()
        except msgspec.DecodeError:
            raise Unavailable("the platform catalogue cannot be read") from None
        self._platforms = {facts.id: facts for facts in catalogue.platforms}
        self._version = catalogue.version
        self._stale_at = self._clock() + _FRESH_SECONDS

    async def _fetch_quietly(self) -> None:
        try:
            await self._fetch()
        except WardmeshError as error:
            log.info("platform catalogue not refreshed: %s", error.problem.code)

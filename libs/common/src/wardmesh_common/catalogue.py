"""The platform catalogue as a service keeps it: asked of fhir-proxy, asked again when told to and now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import DecodeError, Struct

from wardmesh_common.contracts import ASK_CATALOGUE, EVENT_CATALOGUE_CHANGED
from wardmesh_common.ending import ended
from wardmesh_common.errors import WardmeshError
from wardmesh_common.questions import Catalogue, CatalogueQuestion, Changed

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
# A change event can get lost with the connection: look again now and then.
REFRESH_SECONDS = 60.0

log = logging.getLogger("wardmesh.catalogue")


class AsksCatalogue(Protocol):
    """The part of the bus that the catalogue needs."""

    async def ask(
        self, subject: str, question: Struct, answer_type: type[Any], *, timeout_seconds: float = 2.0
    ) -> Any: ...

    async def hear(self, subject: str, event_type: type[Any], handler: Any) -> None: ...


class KeptCatalogue:
    """Gives every new catalogue to `taken`; while fhir-proxy is away the last one stays good."""

    def __init__(
        self,
        bus: AsksCatalogue,
        taken: Callable[[Catalogue], None],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._bus, self._taken, self._refresh = bus, taken, refresh_seconds
        self._version: str | None = None
        self._stale, self._tried, self._here = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens for changes and fetches in the background; who must not begin without it waits for `first`."""
        await self._bus.hear(EVENT_CATALOGUE_CHANGED, Changed, self._told)
        self._task = asyncio.create_task(self._keep(), name="catalogue")

    async def first(self, seconds: float = 0.0) -> bool:
        """Waits for the first attempt, then so long at most for the first catalogue; True when it is here."""
        await self._tried.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._here.wait()
        return self._here.is_set()

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)

    async def _told(self, event: Changed) -> None:
        if event.version != self._version:
            self._stale.set()

    async def _keep(self) -> None:
        pause = FIRST_RETRY_SECONDS
        while True:
            self._stale.clear()  # before the question: a change told while the answer comes is asked about again
            if await self._fetch():
                wait, pause = self._refresh, FIRST_RETRY_SECONDS
            else:
                wait, pause = pause, min(pause * 2, LAST_RETRY_SECONDS)
            self._tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stale.wait()

    async def _fetch(self) -> bool:
        try:
            catalogue: Catalogue = await self._bus.ask(ASK_CATALOGUE, CatalogueQuestion(), Catalogue)
        except WardmeshError as error:
            log.info("catalogue not fetched: %s", error.problem.code)
            return False
        except DecodeError:
            log.warning("the catalogue cannot be read")
            return False
        if catalogue.version != self._version:
            self._taken(catalogue)
            self._version = catalogue.version
            log.info("catalogue: %d platforms", len(catalogue.platforms))
        self._here.set()
        return True

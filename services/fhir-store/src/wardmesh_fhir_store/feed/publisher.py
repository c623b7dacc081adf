"""The loop that empties the outbox into the stream: at least once, in order, while broker and database come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
from nats.errors import Error as NatsError

from wardmesh_common.ending import ended
from wardmesh_fhir_store.feed.queue import Queue, queue_at
from wardmesh_fhir_store.feed.sender import Sender, Unsent
from wardmesh_fhir_store.feed.stream import connection
from wardmesh_fhir_store.settings import StoreSettings

_LOG = logging.getLogger("wardmesh.fhir-store")
_DATABASE_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
USER = "fhir-store"


class Publisher:
    """Of all replicas the one whose turn it is publishes; the others look whether it is theirs."""

    def __init__(self, settings: StoreSettings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._told = False  # an outage is logged once

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._connected()
            except (NatsError, OSError, TimeoutError) as error:  # a key that the broker does not know
                self._warn(type(error).__name__)
            except Exception:  # noqa: BLE001 - the edge: the events stay in the outbox and are tried again
                _LOG.exception("publishing change events failed unexpectedly")
            await asyncio.sleep(self._settings.feed_poll_seconds)

    async def _connected(self) -> None:
        settings = self._settings
        async with connection(USER, settings.nats_url, settings.nats_seed, patient=True) as nc:
            sender = Sender(nc)
            while True:
                try:
                    async with queue_at(settings.database_url, self._key) as queue:
                        await self._in_turn(queue, sender)
                except Unsent as unsent:  # the turn goes back: another replica may have a broker
                    self._warn(str(unsent))
                except _DATABASE_AWAY as error:
                    self._warn(type(error).__name__)
                await asyncio.sleep(settings.feed_poll_seconds)

    async def _in_turn(self, queue: Queue, sender: Sender) -> None:
        while not await queue.take_turn():  # noqa: ASYNC110 - of other processes: nobody tells us
            await asyncio.sleep(self._settings.feed_poll_seconds)
        while True:
            sequences, messages = await queue.next()
            if not messages:
                await asyncio.sleep(self._settings.feed_poll_seconds)
                continue
            await sender.send(messages)
            await queue.remove(sequences)
            self._told = False

    def _warn(self, why: str) -> None:
        if not self._told:
            _LOG.warning("change events wait in the outbox: %s", why)
            self._told = True


@asynccontextmanager
async def published(settings: StoreSettings, key: bytes) -> AsyncGenerator[None]:
    """Beside the requests, when there is a bus."""
    task = asyncio.create_task(Publisher(settings, key).run()) if settings.nats_url else None
    try:
        yield
    finally:
        if task is not None:
            await ended(task)

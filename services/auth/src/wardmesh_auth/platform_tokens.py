"""Platform tokens in use: cached in process, shared through PostgreSQL, renewed once for all replicas (FG-15, X-16)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_auth.grant_store import DEPLOYMENT, GrantKey, GrantStore, principal_digest
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_common.errors import Internal, Unavailable, WardmeshError
from wardmesh_common.questions import GrantChanged, PlatformFacts

_CACHE_SECONDS = 30.0  # a principal's grant: at most this long after another replica ended it
_REFUSED_SECONDS = 2.0  # a failed exchange is not repeated by every waiting call
_MAX_RENEWALS = 3  # each holds a database connection while the platform answers

log = logging.getLogger("wardmesh.auth")


class Obtains(Protocol):
    async def obtain(self, facts: PlatformFacts, client: PlatformClient) -> PlatformToken: ...


class PlatformTokens:
    """A token is used until `margin` seconds before its end; later callers share the new one or its failure."""

    def __init__(
        self,
        store: GrantStore | None,
        exchange: Obtains,
        *,
        cache_size: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._exchange, self._clock = store, exchange, clock
        self._cache: Bounded[GrantKey, PlatformToken] = Bounded(cache_size, clock)
        self._failed: Bounded[GrantKey, WardmeshError] = Bounded(1000, clock)
        self._flights: SingleFlight[GrantKey, PlatformToken | None] = SingleFlight()
        self._renewals = asyncio.Semaphore(_MAX_RENEWALS)

    async def deployment(self, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        """The token of the deployment's own client credentials. Raises PlatformUnconfigured, PlatformDown."""
        key = GrantKey("default", DEPLOYMENT, facts.id)
        token = self._cache.get(key)
        if token is not None and self._fresh(token):
            if token.expires_at - self._clock() <= 2 * token.margin and self._failed.get(key) is None:
                # Ahead of time and on the side: nobody waits while the old token still serves.
                self._flights.start(key, lambda: self._renew(key, facts, client))
            return token
        failure = self._failed.get(key)
        if failure is not None:
            raise failure
        token = await self._flights.run(key, lambda: self._renew(key, facts, client))
        assert token is not None
        return token

    async def granted(self, tenant: str, principal_id: str, platform: str) -> PlatformToken | None:
        """What this very principal was granted on this platform, or None: then they have to sign in."""
        if self._store is None:
            return None
        key = GrantKey(tenant, principal_id, platform)
        store = self._store
        token = self._cache.get(key) or await self._flights.run(key, lambda: store.load(key))
        if token is None or not self._fresh(token):
            return None
        self._cache.put(key, token, min(_CACHE_SECONDS, token.expires_at - self._clock()))
        return token

    def forget(self, principal_id: str) -> None:
        """Read this principal's grants again at the next call."""
        self._cache.drop_keys(lambda key: key.principal_id == principal_id)

    def changed(self, event: GrantChanged) -> None:
        """Read this grant again at the next call."""
        self._cache.drop_keys(lambda key: key.platform == event.platform and principal_digest(key) == event.principal)

    async def close(self) -> None:
        await self._flights.close()

    def _fresh(self, token: PlatformToken) -> bool:
        return token.expires_at - self._clock() > token.margin

    async def _renew(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        try:
            async with self._renewals:
                token = await self._shared(key, facts, client)
        except WardmeshError as error:
            self._failed.put(key, error, _REFUSED_SECONDS)
            raise
        self._cache.put(key, token, token.expires_at - self._clock())
        return token

    async def _shared(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        """Under the lock: another replica's fresh token, else a new one, stored for the others."""
        if self._store is None:
            return await self._exchange.obtain(facts, client)
        obtained: PlatformToken | None = None
        try:
            async with self._store.exclusively(key) as connection:
                stored = await self._readable(self._store, connection, key)
                if stored is not None and stored.expires_at - self._clock() > 2 * stored.margin:
                    return stored
                obtained = await self._exchange.obtain(facts, client)
                await self._store.write(connection, key, obtained)
                return obtained
        except Unavailable as error:
            if type(error) is not Unavailable:
                raise  # the platform's own trouble, not the database's
        # Sharing is a courtesy to the platform; without a database each replica asks for itself.
        log.warning("a platform token could not be shared with the other replicas")
        return obtained or await self._exchange.obtain(facts, client)

    async def _readable(self, store: GrantStore, connection: AsyncConnection, key: GrantKey) -> PlatformToken | None:
        """A stored token that no longer opens is replaced: the deployment can always ask for another."""
        try:
            return await store.read(connection, key)
        except Internal as error:
            log.warning("stored token not usable: %s", error.problem.detail)
            return None

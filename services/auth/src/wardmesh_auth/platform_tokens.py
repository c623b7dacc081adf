"""Platform tokens in use: cached in process, shared through PostgreSQL, renewed ahead of their end (FG-15, X-16)."""

from __future__ import annotations

import time
from collections.abc import Callable

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_auth.grant_store import DEPLOYMENT, GrantKey, deployment_key, principal_digest
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.refusals import TokenExpired
from wardmesh_auth.renewals import Renewals
from wardmesh_auth.settings import PlatformClient
from wardmesh_common.errors import WardmeshError
from wardmesh_common.questions import GrantChanged, PlatformFacts

_CACHE_SECONDS = 30.0  # a principal's grant: at most this long after another replica ended it
_REFUSED_SECONDS = 2.0  # a failed exchange is not repeated by every waiting call
_LAST_SECONDS = 5.0  # a token that cannot be renewed is used until shortly before its end


class PlatformTokens:
    """A token is used until `margin` seconds before its end; later callers share the new one or its failure."""

    def __init__(self, renewals: Renewals, *, cache_size: int = 20_000, clock: Callable[[], float] = time.time) -> None:
        self._renewals, self._clock = renewals, clock
        self._cache: Bounded[GrantKey, PlatformToken] = Bounded(cache_size, clock)
        self._failed: Bounded[GrantKey, WardmeshError] = Bounded(1000, clock)
        self._loads: SingleFlight[GrantKey, PlatformToken | None] = SingleFlight()
        self._flights: SingleFlight[GrantKey, PlatformToken] = SingleFlight()
        self._told = 0  # how often a grant came, changed or went
        self._after_refusals: SingleFlight[tuple[GrantKey, str], PlatformToken] = SingleFlight()

    async def deployment(self, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        """The token of the deployment's own client credentials. Raises PlatformUnconfigured, PlatformDown."""
        key = deployment_key(facts.id)
        token = self._cache.get(key)
        if token is None or not self._fresh(token):
            return await self._renewed(key, facts, client)
        self._renew_early(token, key, facts, client)
        return token

    async def granted(
        self, tenant: str, principal_id: str, facts: PlatformFacts, client: PlatformClient | None
    ) -> PlatformToken | None:
        """What this very principal was granted on this platform, or None: then they have to sign in.

        Raises TokenExpired, and SignInRequired when the platform does not renew it: a token that is about to end is
        not used instead.
        """
        key = GrantKey(tenant, principal_id, facts.id)
        told = self._told
        token = self._cache.get(key) or await self._loads.run(key, lambda: self._renewals.stored(key))
        if token is None:
            return None
        if client is None or not token.refresh_token or facts.sign_in.refresh == "none":
            if token.expires_at - self._clock() <= _LAST_SECONDS:
                raise TokenExpired("the sign-in at this platform is over: sign in again")
            return self._keep(key, token, told)
        if not self._fresh(token):
            return await self._renewed(key, facts, client)
        self._renew_early(token, key, facts, client)
        return self._keep(key, token, told)

    async def after_refusal(
        self, key: GrantKey, facts: PlatformFacts, client: PlatformClient, refused: str
    ) -> PlatformToken:
        """The platform answered 401 to `refused`: one new token for all who heard that (PX-9)."""
        self._cache.drop(key)
        told, flight = self._told, (key, refused)
        token = await self._after_refusals.run(
            flight, lambda: self._renewals.after_refusal(key, facts, client, refused)
        )
        return self._keep(key, token, told)

    def forget(self, principal_id: str) -> None:
        """Read this principal's grants again at the next call."""
        self._told += 1
        self._cache.drop_keys(lambda key: key.principal_id == principal_id)

    def changed(self, event: GrantChanged) -> None:
        """Read this grant again at the next call."""
        self._told += 1
        self._cache.drop_keys(lambda key: key.platform == event.platform and principal_digest(key) == event.principal)

    async def close(self) -> None:
        await self._loads.close()
        await self._flights.close()
        await self._after_refusals.close()

    def _keep(self, key: GrantKey, token: PlatformToken, told: int) -> PlatformToken:
        """Not when a grant ended since `told`: what was read before may be this one, and nobody says so again."""
        left = token.expires_at - self._clock()
        if left > 0 and (told == self._told or key.principal_id == DEPLOYMENT):
            self._cache.put(key, token, left if key.principal_id == DEPLOYMENT else min(_CACHE_SECONDS, left))
        return token

    def _fresh(self, token: PlatformToken) -> bool:
        return token.expires_at - self._clock() > token.margin

    def _renew_early(self, token: PlatformToken, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> None:
        """Ahead of time and on the side: nobody waits while the old token still serves."""
        if token.expires_at - self._clock() <= 2 * token.margin and self._failed.get(key) is None:
            self._flights.start(key, lambda: self._renew(key, facts, client))

    async def _renewed(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        failure = self._failed.get(key)
        if failure is not None:
            raise failure
        return await self._flights.run(key, lambda: self._renew(key, facts, client))

    async def _renew(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        told = self._told
        try:
            return self._keep(key, await self._renewals.due(key, facts, client), told)
        except WardmeshError as error:
            self._failed.put(key, error, _REFUSED_SECONDS)
            raise

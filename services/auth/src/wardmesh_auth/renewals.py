"""Renewals of platform tokens: one at a time over all replicas, stored for the others, recorded (X-16, B-2)."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.grant_store import DEPLOYMENT, GrantKey, GrantStore
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_common.errors import BadUpstream, Denied, Internal, SignInRequired, Unavailable, WardmeshError
from wardmesh_common.questions import PlatformFacts

_NEW_SECONDS = 10.0  # a platform that refuses a token so young would refuse the next one as well

log = logging.getLogger("wardmesh.auth")

# What a renewal came to, for the record and for the other replicas; None = it worked.
Notes = Callable[[GrantKey, WardmeshError | None], Awaitable[None]]


class Exchanges(Protocol):
    """The part of the SMART client that renews."""

    async def backend(
        self, facts: PlatformFacts, client: PlatformClient, scopes: tuple[str, ...] = ()
    ) -> PlatformToken: ...

    async def refresh(self, facts: PlatformFacts, client: PlatformClient, token: PlatformToken) -> PlatformToken: ...


class Renewals:
    def __init__(
        self, store: GrantStore, exchange: Exchanges, note: Notes, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._exchange, self._note, self._clock = store, exchange, note, clock

    async def stored(self, key: GrantKey) -> PlatformToken | None:
        return await self._store.load(key)

    async def due(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        """Another replica's fresh token, else a new one.

        Raises SignInRequired for a person's grant that is not renewed, the platform's error for the deployment's own.
        """
        if key.principal_id == DEPLOYMENT:
            return await self._of_deployment(key, facts, client)
        return await self._of_person(key, facts, client, self._still_good)

    async def after_refusal(
        self, key: GrantKey, facts: PlatformFacts, client: PlatformClient, refused: str
    ) -> PlatformToken:
        """Whoever asks shows the token that was refused: nobody learns the token of a grant they never held."""

        async def replaced(connection: AsyncConnection, stored: PlatformToken) -> bool:
            if stored.access_token != refused:
                if not await self._store.preceded_by(connection, key, refused):
                    raise Denied("this token does not belong to the grant")
                return True
            if self._clock() - stored.issued_at < _NEW_SECONDS:
                raise SignInRequired("the platform refuses even a new token: sign in again")
            return False

        if key.principal_id == DEPLOYMENT:
            return await self._obtained(key, facts, client, replaced)
        return await self._of_person(key, facts, client, replaced)

    async def _still_good(self, _connection: AsyncConnection, stored: PlatformToken) -> bool:
        return stored.expires_at - self._clock() > 2 * stored.margin

    async def _of_person(
        self,
        key: GrantKey,
        facts: PlatformFacts,
        client: PlatformClient,
        good: Callable[[AsyncConnection, PlatformToken], Awaitable[bool]],
    ) -> PlatformToken:
        failure: WardmeshError | None = None
        async with self._store.exclusively(key) as connection:
            stored = await self._store.read(connection, key)
            if stored is None:
                raise SignInRequired("sign in at this platform first")
            if await good(connection, stored):
                return stored
            try:
                token = await self._exchange.refresh(facts, client, stored)
            except (SignInRequired, BadUpstream, Unavailable) as error:
                failure, token = error, stored
                if isinstance(error, SignInRequired):
                    await self._store.forget(connection, key)  # the platform has ended it
            else:
                await self._store.write(connection, key, token, replaced=stored)
        await self._note(key, failure)
        if failure is not None:
            raise _over(failure)
        return token

    async def _of_deployment(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        try:
            return await self._obtained(key, facts, client, self._still_good)
        except Unavailable as error:
            if type(error) is not Unavailable:
                raise  # the platform's own trouble, not the database's
        # Sharing is a courtesy to the platform; without a database each replica asks for itself.
        log.warning("a platform token could not be shared with the other replicas")
        return await self._exchange.backend(facts, client)

    async def _obtained(
        self,
        key: GrantKey,
        facts: PlatformFacts,
        client: PlatformClient,
        good: Callable[[AsyncConnection, PlatformToken], Awaitable[bool]],
    ) -> PlatformToken:
        async with self._store.exclusively(key) as connection:
            stored = await self._readable(connection, key)
            if stored is not None and await good(connection, stored):
                return stored
            token = await self._exchange.backend(facts, client)
            await self._store.write(connection, key, token, replaced=stored)
        await self._note(key, None)
        return token

    async def _readable(self, connection: AsyncConnection, key: GrantKey) -> PlatformToken | None:
        """A stored token that no longer opens is replaced: the deployment can always ask for another."""
        try:
            return await self._store.read(connection, key)
        except Internal as error:
            log.warning("stored token not usable: %s", error.problem.detail)
            return None


def _over(error: WardmeshError) -> SignInRequired:
    """To the caller every failed renewal is a matter of authentication; the record holds what it was (X-16)."""
    if isinstance(error, SignInRequired):
        return SignInRequired("the sign-in at this platform is over: sign in again")
    return SignInRequired("the platform did not renew the sign-in: try again soon, or sign in again", retry_after=5)

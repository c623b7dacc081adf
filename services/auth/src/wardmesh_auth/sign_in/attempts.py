"""Begins sign-ins: the address at the platform, and the record from which any replica finishes them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from msgspec import Struct

from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.refusals import OAuthNotConfigured
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.sign_in.arguments import Start
from wardmesh_auth.sign_in.consents import Consent, Consents
from wardmesh_auth.sign_in.pending import PLATFORM, Pending, PendingSignIns, Secrets
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.one_time import new_nonce, new_state, new_verifier
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Principal


class Site(Struct, frozen=True):
    """A platform that people sign in at, and our registration there."""

    facts: PlatformFacts
    client: PlatformClient


class Begun(Struct, frozen=True):
    consent: Consent
    pending: Pending
    ticket: str  # one-time value of the link; "" when the browser is sent on at once

    def __repr__(self) -> str:
        return "Begun(...)"


class Attempts:
    def __init__(
        self,
        database: Database,
        pending: PendingSignIns,
        consents: Consents,
        platforms: Platforms,
        client_at: Callable[[PlatformFacts], PlatformClient | None],
        smart: SmartClient,
        redirect_uri: str,
    ) -> None:
        self._database, self._pending, self._consents = database, pending, consents
        self._platforms, self._client_at = platforms, client_at
        self._smart, self._redirect_uri = smart, redirect_uri

    @property
    def redirect_uri(self) -> str:
        """Where every platform sends the browser back to."""
        return self._redirect_uri

    async def site(self, platform: str) -> Site:
        """Raises PlatformUnknown, OAuthNotConfigured."""
        facts = await self._platforms.serving(platform)
        client = self._client_at(facts)
        if facts.auth_method != "authorization_code" or client is None:
            raise OAuthNotConfigured(f"Platform '{facts.id}' does not have OAuth configured")
        return Site(facts, client)

    async def serving(self, platform: str) -> str:
        """The id of the platform that answers for this one. Raises PlatformUnknown."""
        return (await self._platforms.serving(platform)).id

    async def begin(
        self, site: Site, principal: Principal, asked: Start, *, session: str = "", link: bool = False
    ) -> Begun:
        """Raises BadRequest for scopes or a launch that do not fit, PlatformDown, PlatformUnconfigured."""
        one_time = {"state": new_state(), "verifier": new_verifier(), "nonce": new_nonce()}
        location = await self._smart.authorization(
            site.facts,
            site.client,
            redirect_uri=self._redirect_uri,
            scopes=asked.scopes,
            launch=asked.launch,
            iss=asked.iss,
            **one_time,
        )
        key = GrantKey(principal.tenant, principal.id, site.facts.id)
        pending = Pending(
            purpose=PLATFORM,
            tenant=key.tenant,
            principal_id=key.principal_id,
            platform=key.platform,
            session=session,
            secrets=Secrets(**one_time, redirect_uri=self._redirect_uri, scopes=asked.scopes, location=location),
        )
        ticket = secrets.token_urlsafe(32) if link else ""
        async with self._database.transaction() as connection:
            consent = await self._consents.begin(connection, key)
            await self._pending.begin(connection, pending, ticket)
        return Begun(consent, pending, ticket)

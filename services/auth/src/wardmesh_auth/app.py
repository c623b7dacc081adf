"""Composition root of auth: verifier, sessions, grants and the station on `call.identify`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from msgspec import Struct

from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.fetch import fetching
from wardmesh_auth.grant_store import GrantStore
from wardmesh_auth.grants import Grants
from wardmesh_auth.identify import Identifier, Roles
from wardmesh_auth.platform_token import ClientCredentials
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_auth.revocations import Revocations
from wardmesh_auth.sessions import Sessions
from wardmesh_auth.settings import AuthSettings, PlatformClients, master_ring
from wardmesh_auth.vault import Vault
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_CATALOGUE, DECIDE, EVENT_CATALOGUE_CHANGED, EVENT_SESSION_REVOKED, IDENTIFY
from wardmesh_common.errors import Unavailable, WardmeshError
from wardmesh_common.health import Health
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.questions import Catalogue, Changed, SessionRevoked
from wardmesh_common.token_seal import parse_key
from wardmesh_common.tokens import KEPT_CLAIMS, TokenVerifier

_REFRESH_SECONDS = 15.0
_SWEEP_SECONDS = 300.0  # FG-15

log = logging.getLogger("wardmesh.auth")


class _Nothing(Struct):
    """A question without arguments."""


class App:
    """The parts of a running auth that others (sign-in, operations, tests) use."""

    def __init__(self, settings: AuthSettings, bus: Bus, http: aiohttp.ClientSession, environ: Mapping[str, str]):
        self._bus = bus
        self.database = Database(engine_for(settings.database_url))
        self.revocations = Revocations(self.database)
        self.sessions = Sessions(
            self.database,
            self.revocations,
            self.tell_revoked,
            max_age_seconds=settings.session_max_age,
            idle_seconds=settings.session_idle_seconds,
        )
        ring = master_ring(settings)
        if not ring:
            log.warning("no master key is set: platform tokens are kept in memory only, nothing is stored")
        self.store = GrantStore(self.database, Vault(ring)) if ring else None
        self.tokens = PlatformTokens(self.store, ClientCredentials())
        self.platforms = Platforms(lambda: bus.ask(ASK_CATALOGUE, _Nothing(), Catalogue))
        self.keys = IssuerKeys(settings.issuer, fetching(http), jwks_uri=settings.jwks_uri)
        roles = Roles(settings.role_claims, settings.role_map)
        self.verifier = TokenVerifier(
            self.keys,
            issuer=settings.issuer,
            audiences=settings.all_audiences,
            token_types=settings.token_types,
            kept_claims=tuple({*KEPT_CLAIMS, *roles.claims}),
            skew_seconds=settings.clock_skew_seconds,
        )
        clients = PlatformClients(environ)
        grants = Grants(
            self.platforms,
            self.tokens,
            clients.of,
            parse_key(settings.token_seal_key),
            anonymous_open=settings.anonymous_open_platforms,
        )
        self.identifier = Identifier(
            self.verifier, self.sessions, self.revocations, grants, roles, settings.client_agents
        )

    async def tell_revoked(self, event: SessionRevoked) -> None:
        await self._bus.tell(EVENT_SESSION_REVOKED, event)

    async def revoke_token(self, digest: str, keep_seconds: float) -> None:
        """Refuse one access token from now on, on every replica."""
        async with self.database.transaction() as connection:
            told = SessionRevoked(token_digest=digest)
            event = await self.revocations.write(connection, told, keep_seconds)
        await self.heard_revoked(event)
        await self.tell_revoked(event)

    async def heard_revoked(self, event: SessionRevoked) -> None:
        self.revocations.heard(event)
        self.sessions.heard(event)
        self.verifier.forget(digest=event.token_digest, subject=event.principal)
        if event.principal:
            self.tokens.forget(event.principal)

    async def sweep(self) -> None:
        gone = await self.sessions.sweep()
        await self.revocations.sweep()
        if gone:
            log.info("removed %d sessions that were over", gone)

    async def close(self) -> None:
        await self.tokens.close()
        await self.platforms.close()
        await self.keys.close()
        await self.database.close()


@asynccontextmanager
async def create_app(
    settings: AuthSettings, bus: Bus, health: Health, *, environ: Mapping[str, str]
) -> AsyncGenerator[App]:
    """Ready only when it knows revocations, issuer keys and platforms; then their sources may go away for a while."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4, connect=2)) as http:
        app = App(settings, bus, http, environ)
        tasks: list[asyncio.Task[None]] = []
        try:
            await bus.hear(EVENT_SESSION_REVOKED, SessionRevoked, app.heard_revoked)
            await bus.hear(EVENT_CATALOGUE_CHANGED, Changed, app.platforms.changed)
            await _until_read(app.revocations)
            if not await app.keys.first(settings.issuer_wait_seconds):
                log.warning("the token issuer does not answer: no bearer token is good until it does")
            if not await app.platforms.first(settings.catalogue_wait_seconds):
                log.warning("the platform catalogue cannot be had yet: calls are refused until it can")
            health.checks["database"] = lambda: (app.database.up, "up" if app.database.up else "away")
            tasks = [
                asyncio.create_task(_every(_REFRESH_SECONDS, app.revocations.refresh)),
                asyncio.create_task(_every(_SWEEP_SECONDS, app.sweep)),
            ]
            await bus.station(IDENTIFY, app.identifier, onward=DECIDE, limit=settings.station_limit)
            yield app
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await app.close()


async def _until_read(revocations: Revocations) -> None:
    """Without the list of what was revoked nobody is let in."""
    while True:
        try:
            await revocations.refresh()
        except Unavailable:
            await asyncio.sleep(0.5)
        else:
            return


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except WardmeshError as error:
            log.info("postponed: %s", error.problem.detail)

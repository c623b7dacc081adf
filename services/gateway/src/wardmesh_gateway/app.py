"""Composition root of the gateway: every dependency is made here and handed on as an argument."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from msgspec import Struct

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import EVENT_SESSION_REVOKED, GW_RATE, GW_WAIT
from wardmesh_common.health import Health
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.listening import reserve
from wardmesh_common.questions import RateReport, SessionRevoked, WaitReport
from wardmesh_common.tokens import TokenVerifier
from wardmesh_gateway.audit_door import AuditDoor
from wardmesh_gateway.audit_tail import Tails
from wardmesh_gateway.break_glass import BreakGlassRoutes
from wardmesh_gateway.browser import Browser
from wardmesh_gateway.callback import Callback
from wardmesh_gateway.caller import Callers, TrustedProxies, Verifies
from wardmesh_gateway.calls import Door, Records, Submits
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.catalogue_api import create_catalogue_api
from wardmesh_gateway.cookies import CookieWords
from wardmesh_gateway.coverage_face import CoverageFace
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.fhir import FhirFace
from wardmesh_gateway.headers import Dressing
from wardmesh_gateway.healthlake_server import HealthLakeServerTools
from wardmesh_gateway.healthlake_tools import HealthLakeTools
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.ledger_face import LedgerFace
from wardmesh_gateway.local_accounts import LocalAccounts
from wardmesh_gateway.mcp import McpFace, build_mcp
from wardmesh_gateway.mcp_door import McpSettings
from wardmesh_gateway.opaque_tokens import BearerTokens, OpaqueTokens
from wardmesh_gateway.person_routes import PersonRoutes
from wardmesh_gateway.platform_routes import PlatformRoutes
from wardmesh_gateway.problem import Challenges
from wardmesh_gateway.procedures import Procedures
from wardmesh_gateway.ratelimit import RateLimits
from wardmesh_gateway.rest import RestFace
from wardmesh_gateway.router import OwnsPaths, Router
from wardmesh_gateway.same_site import SameSite
from wardmesh_gateway.security_records import SecurityRecords
from wardmesh_gateway.server import serving
from wardmesh_gateway.settings import GatewaySettings, registered_platforms
from wardmesh_gateway.sign_in import SignIn
from wardmesh_gateway.sign_in_face import SignInFace
from wardmesh_gateway.sign_in_steps import McpSignInSteps
from wardmesh_gateway.smedrec_tools import SmedrecTools
from wardmesh_gateway.tool_door import ToolArguments, ToolCalls
from wardmesh_gateway.tool_family import Family
from wardmesh_gateway.tool_mcp import McpDoor
from wardmesh_gateway.tool_rest import ToolFace
from wardmesh_gateway.tools_healthlake_server import PROFILE as SERVER
from wardmesh_gateway.waiting import Waiters

FETCH_SECONDS = 5.0

_log = logging.getLogger("wardmesh.gateway")


class Parts(Struct, frozen=True, kw_only=True):
    """What the faces are made of; tests build it with fakes."""

    platforms: Platforms
    callers: Callers
    limits: RateLimits
    door: Door
    calls: ToolCalls
    procedures: Procedures
    sign_in: SignIn
    security: SecurityRecords
    waiters: Waiters
    keys: Sequence[bytes]
    audit: AuditDoor
    tails: Tails


def build_parts(
    settings: GatewaySettings,
    *,
    submits: Submits,
    records: Records,
    platforms: Platforms,
    limits: RateLimits,
    waiters: Waiters,
    verifier: Verifies | None,
    keys: Sequence[bytes],
    sessions: KnownSessions,
) -> Parts:
    callers = Callers(verifier, TrustedProxies(settings.proxies), sessions)
    door = Door(
        submits,
        records,
        platforms,
        public_url=settings.base,
        deadline_seconds=settings.deadline_seconds,
        anonymous_open=settings.anonymous_open_platforms,
        max_in_flight=settings.max_in_flight,
        sessions=sessions,
    )
    procedures = Procedures(door)
    sign_in = SignIn(door, procedures)
    audit = AuditDoor(door, home_platform=settings.home_platform)
    return Parts(
        platforms=platforms,
        callers=callers,
        limits=limits,
        door=door,
        calls=ToolCalls(door, platforms, procedures, sign_in, _families(settings, door, platforms)),
        procedures=procedures,
        sign_in=sign_in,
        security=SecurityRecords(records),
        waiters=waiters,
        keys=keys,
        audit=audit,
        tails=Tails(audit),
    )


def _families(settings: GatewaySettings, door: Door, platforms: Platforms) -> dict[str, Family]:
    smedrec = SmedrecTools(
        door,
        platforms,
        issuer=settings.smart_issuer,
        platform=settings.smart_platform,
        public_url=settings.base,
    )
    lake = HealthLakeTools(door)
    return {"healthlake": lake, SERVER: HealthLakeServerTools(lake), "smedrec": smedrec}


def build_router(
    settings: GatewaySettings, parts: Parts, *, mcp: OwnsPaths | None, registered: frozenset[str]
) -> Router:
    """The whole HTTP application."""
    same_site = SameSite(settings.base, settings.origins)
    entrance = Entrance(parts.callers, parts.limits, Challenges(settings.base), same_site, parts.security)

    def has_client(platform_id: str) -> bool:
        return platform_id.upper().replace("-", "_") in registered

    return Router(
        rest_face=RestFace(parts.door, entrance),
        fhir_face=FhirFace(parts.door, entrance),
        tool_face=ToolFace(parts.calls, ToolArguments(), entrance),
        sign_in=_sign_in(settings, parts, entrance, same_site),
        ledger=LedgerFace(parts.audit, entrance, parts.tails, parts.keys[0]),
        coverage=CoverageFace(parts.door, entrance),
        catalogue=create_catalogue_api(parts.platforms, registered=has_client, public_url=settings.base),
        mcp=mcp,
        entrance=entrance,
        dressing=Dressing(public_url=settings.base, origins=settings.origins),
        max_body_bytes=settings.max_body_bytes,
    )


def _sign_in(settings: GatewaySettings, parts: Parts, entrance: Entrance, same_site: SameSite) -> SignInFace:
    browser = Browser(parts.sign_in, CookieWords(settings.session_cookie_secure))
    return SignInFace(
        entrance,
        browser,
        PlatformRoutes(entrance, browser, parts.sign_in, parts.waiters),
        PersonRoutes(entrance, browser, parts.platforms, same_site, parts.keys),
        Callback(entrance, browser, parts.keys, limit=settings.callback_limit),
        LocalAccounts(entrance, browser),
        BreakGlassRoutes(entrance, browser, parts.sign_in),
    )


@asynccontextmanager
async def create_app(
    settings: GatewaySettings, bus: Bus, health: Health, *, environ: Mapping[str, str]
) -> AsyncGenerator[None]:
    """Everything up, the port last (NB-8); down in the opposite order."""
    keys = settings.ring()
    assert bus.recorder is not None, "the gateway records calls that get lost"
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(reserve(settings.host, settings.port, settings.listen_fds))
        sessions = KnownSessions()
        verifier = await _verifier(settings, bus, stack, sessions)
        if settings.redis_url:
            _log.info("sessions are kept in PostgreSQL by the auth service; the Redis URL is not used")
        platforms = Platforms(bus)
        await platforms.start()
        stack.push_async_callback(platforms.stop)
        health.checks["catalogue"] = lambda: (platforms.known, f"{platforms.count} platforms")
        limits, waiters = await _shared(settings, bus, stack, keys[0])
        parts = build_parts(
            settings,
            submits=bus,
            records=bus.recorder,
            platforms=platforms,
            limits=limits,
            waiters=waiters,
            verifier=verifier,
            keys=keys,
            sessions=sessions,
        )
        stack.push_async_callback(parts.security.close)
        mcp = _mcp(settings, parts, bus, keys)
        await stack.enter_async_context(mcp.lifespan())
        router = build_router(settings, parts, mcp=mcp, registered=registered_platforms(environ))
        if settings.conformance_port:
            await stack.enter_async_context(_conformance(settings, bus, keys))
        await stack.enter_async_context(serving(router, sock))
        stack.callback(mcp.drain)
        stack.callback(parts.sign_in.close)
        stack.callback(parts.tails.close)
        yield


async def _shared(settings: GatewaySettings, bus: Bus, stack: AsyncExitStack, key: bytes) -> tuple[RateLimits, Waiters]:
    """What the replicas of the gateway tell one another: requests admitted, and who waits for a sign-in."""
    limits = RateLimits(
        bus.tell,
        replica=bus.instance,
        key=key,
        limit=settings.rate_limit,
        window_seconds=settings.rate_window_seconds,
    )
    await bus.hear(GW_RATE, RateReport, limits.on_report)
    limits.start()
    stack.push_async_callback(limits.stop)
    waiters = Waiters(bus.tell, replica=bus.instance, key=key)
    await bus.hear(GW_WAIT, WaitReport, waiters.on_report)
    return limits, waiters


def _conformance(settings: GatewaySettings, bus: Bus, keys: list[bytes]) -> AbstractAsyncContextManager[None]:
    """Fixtures without health data for protocol tests; never loaded otherwise."""
    from wardmesh_gateway.fixtures.pack import conformance_listener  # noqa: PLC0415

    return conformance_listener(port=settings.conformance_port, keys=keys, bus=bus, inherited=settings.listen_fds)


async def _verifier(
    settings: GatewaySettings, bus: Bus, stack: AsyncExitStack, sessions: KnownSessions
) -> BearerTokens | None:
    """Without an issuer no token is good: only open platforms can be read then."""
    if not settings.issuer:
        return None
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))

    async def fetch(url: str) -> bytes | None:
        try:
            async with http.get(url, allow_redirects=False) as response:
                return await response.read() if response.status == 200 else None
        except aiohttp.ClientError as error:
            raise OSError(type(error).__name__) from None

    keys = IssuerKeys(settings.issuer, fetch)
    stack.push_async_callback(keys.close)
    await keys.first(settings.issuer_wait_seconds)  # without them only open platforms are served
    signed = TokenVerifier(
        keys,
        issuer=settings.issuer,
        audiences=(settings.resource, *settings.audiences),
        token_types=settings.token_types,
    )
    verifier = BearerTokens(signed, OpaqueTokens(bus) if settings.ask_about_tokens else None)

    async def revoked(event: SessionRevoked) -> None:
        verifier.forget(digest=event.token_digest, subject=event.principal)
        sessions.forget(event.session)

    await bus.hear(EVENT_SESSION_REVOKED, SessionRevoked, revoked)
    return verifier


def _mcp(settings: GatewaySettings, parts: Parts, bus: Any, keys: list[bytes]) -> McpFace:
    return build_mcp(
        door=McpDoor(parts.calls, parts.callers, bus),
        sign_ins=McpSignInSteps(parts.sign_in, parts.callers),
        catalogue=parts.platforms,
        verifier=parts.callers,
        limiter=parts.limits,
        settings=McpSettings(
            public_url=settings.base,
            issuer=settings.issuer,
            audience=settings.resource,
            allowed_hosts=settings.hosts,
            allowed_origins=settings.origins,
            max_body_bytes=settings.max_body_bytes,
        ),
        keys=keys,
        bus=bus,
        hears=bus,
        security=parts.security,
    )

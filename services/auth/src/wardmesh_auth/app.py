"""Runs auth: learns what it has to know, then takes the stations, questions and events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from wardmesh_auth.background import every, until_read
from wardmesh_auth.settings import AuthSettings
from wardmesh_auth.wiring import App
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_RENEWAL,
    ASK_TOKEN,
    DECIDE,
    EVENT_GRANT_CHANGED,
    EVENT_SESSION_REVOKED,
    IDENTIFY,
    perform_subject,
)
from wardmesh_common.health import Health
from wardmesh_common.questions import (
    GrantChanged,
    RenewalQuestion,
    SessionRevoked,
    TokenQuestion,
)

_REFRESH_SECONDS = 15.0
_SWEEP_SECONDS = 300.0  # FG-15
_KEYS_SECONDS = 60.0

log = logging.getLogger("wardmesh.auth")


@asynccontextmanager
async def create_app(
    settings: AuthSettings, bus: Bus, health: Health, *, environ: Mapping[str, str]
) -> AsyncGenerator[App]:
    """Ready only when it knows revocations, issuer keys and platforms; then their sources may go away for a while."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4, connect=2)) as http:
        assert bus.recorder is not None, "the service sets the recorder before the application"
        app = App(settings, bus, http, environ, bus.recorder)
        tasks: list[asyncio.Task[None]] = []
        try:
            await bus.hear(EVENT_SESSION_REVOKED, SessionRevoked, app.heard_revoked)
            await bus.hear(EVENT_GRANT_CHANGED, GrantChanged, app.heard_grant)
            await until_read(app.revocations)
            await app.client_keys.refresh()
            await app.log_ins.seed(settings.accounts)
            if not await app.keys.first(settings.issuer_wait_seconds):
                log.warning("the token issuer does not answer: no bearer token is good until it does")
            if not await app.platforms.start(settings.catalogue_wait_seconds):
                log.warning("the platform catalogue cannot be had yet: calls are refused until it can")
            health.checks["database"] = lambda: (app.database.up, "up" if app.database.up else "away")
            tasks = [
                asyncio.create_task(every(_REFRESH_SECONDS, app.revocations.refresh)),
                asyncio.create_task(every(_SWEEP_SECONDS, app.sweep)),
                asyncio.create_task(every(_KEYS_SECONDS, app.client_keys.refresh)),
            ]
            await bus.answer(ASK_RENEWAL, RenewalQuestion, app.renewal)
            await bus.answer(ASK_TOKEN, TokenQuestion, app.checked)
            await bus.station(perform_subject("auth"), app.procedures, limit=settings.station_limit)
            await bus.station(IDENTIFY, app.identifier, onward=DECIDE, limit=settings.station_limit)
            yield app
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await app.close()

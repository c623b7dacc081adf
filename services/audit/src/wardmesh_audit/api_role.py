"""The role `api`: opens its database sessions and answers calls to the performer `audit`."""

from __future__ import annotations

import contextlib

import asyncpg

from wardmesh_audit.api import Api
from wardmesh_audit.api_holds import Holds
from wardmesh_audit.api_office import Office
from wardmesh_audit.assertions import check_role, check_server
from wardmesh_audit.growth import Growth
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.settings import AuditSettings, need, secret
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call, Touched, perform_subject
from wardmesh_common.health import Health

_LIMIT = 96
_QUERY_SECONDS = 15


async def open_api(stack: contextlib.AsyncExitStack, settings: AuditSettings, bus: Bus, health: Health) -> None:
    """Raises Unsafe, BadSettings. The station comes last (NB-8)."""
    report = await _pool(stack, need("WARDMESH_AUDIT_REPORT_URL", settings.audit_report_url), "audit_owner")
    officer = await _pool(stack, need("WARDMESH_AUDIT_OFFICER_URL", settings.audit_officer_url), "audit_owner")
    keys = await _pool(stack, need("WARDMESH_AUDIT_KEYS_URL", settings.audit_keys_url), "key_owner")
    kek = secret("WARDMESH_AUDIT_KEK", settings.audit_kek)
    pseudonyms = Pseudonyms(keys, kek, secret("WARDMESH_AUDIT_HANDLE_KEY", settings.audit_handle_key))
    growth = Growth(report, lambda: health.draining)
    stack.push_async_callback(growth.close)

    async def intent(call: Call, touched: tuple[Touched, ...]) -> None:
        assert bus.recorder is not None, "the service sets the recorder before the application"
        await bus.recorder.intent(call, touched)

    office, holds = Office(officer, pseudonyms, intent), Holds(officer, pseudonyms, intent)
    api = Api(report, growth, pseudonyms, office, holds, health.checks)
    await bus.station(perform_subject("audit"), api.perform, limit=_LIMIT)


async def _pool(stack: contextlib.AsyncExitStack, url: str, owner: str) -> asyncpg.Pool:
    pool = await asyncpg.create_pool(
        url, min_size=1, max_size=6, command_timeout=_QUERY_SECONDS, server_settings={"timezone": "UTC", "jit": "off"}
    )
    stack.push_async_callback(pool.close)
    async with pool.acquire() as conn:
        await check_server(conn)
        await check_role(conn, owner)
    return pool

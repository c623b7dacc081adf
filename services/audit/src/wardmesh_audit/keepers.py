"""The roles beside the ledger: `detect` watches producers and people, `retention` drops what is over, `log` tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from wardmesh_audit.assertions import check_role, check_server
from wardmesh_audit.detect_directory import Directory
from wardmesh_audit.detect_people import BadDirectory
from wardmesh_audit.detect_store import Handles
from wardmesh_audit.detection import Detection
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_role import LogRole, audit_logger
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.retention import Retention
from wardmesh_audit.rule_folder import RuleFolder
from wardmesh_audit.rules import BadRules
from wardmesh_audit.settings import AuditSettings, need, secret
from wardmesh_audit.watch import Watch
from wardmesh_common.bus import Bus
from wardmesh_common.settings import BadSettings

Connector = Callable[[str], Callable[[], Awaitable[Connection]]]


def keepers(settings: AuditSettings, bus: Bus, connector: Connector) -> Iterator[Coroutine[Any, Any, None]]:
    """The configured ones; they share nothing with each other."""
    if "detect" in settings.audit_roles:
        url = need("WARDMESH_AUDIT_DETECT_URL", settings.audit_detect_url)
        watch = Watch(
            bus.nc,
            connector(url),
            settings.logs,
            unterminated_seconds=settings.audit_unterminated_seconds,
            silent_seconds=settings.audit_silent_seconds,
        )
        yield watch.run()
        yield _detection(settings, bus, connector(url)).run()
    if "retention" in settings.audit_roles:
        url = need("WARDMESH_AUDIT_RETENTION_URL", settings.audit_retention_url)
        exports = Path(need("WARDMESH_AUDIT_EXPORT_DIR", settings.audit_export_dir))
        yield Retention(bus.nc, connector(url), exports, settings.logs).run()
    if "log" in settings.audit_roles:
        yield _telling(settings, connector(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)))


async def _telling(settings: AuditSettings, connect: Callable[[], Awaitable[Connection]]) -> None:
    keys_url = need("WARDMESH_AUDIT_KEYS_URL", settings.audit_keys_url)
    kek = secret("WARDMESH_AUDIT_KEK", settings.audit_kek)
    handle_key = secret("WARDMESH_AUDIT_HANDLE_KEY", settings.audit_handle_key)
    async with asyncpg.create_pool(keys_url, min_size=0, max_size=2, command_timeout=5) as pool:
        opens = Pseudonyms(pool, kek, handle_key).open
        await LogRole(connect, opens, settings.logs, audit_logger()).run()


def directory_of(settings: AuditSettings) -> Directory:
    """The directory as hashes; an empty one when there are no feed files. Raises BadSettings."""
    if not settings.audit_directory_dir:
        return Directory(None, b"", b"")
    key = secret("WARDMESH_AUDIT_DIRECTORY_KEY", settings.audit_directory_key)
    handle_key = secret("WARDMESH_AUDIT_HANDLE_KEY", settings.audit_handle_key)
    directory = Directory(Path(settings.audit_directory_dir), key, handle_key)
    try:
        directory.load()
    except BadDirectory as error:
        raise BadSettings(f"WARDMESH_AUDIT_DIRECTORY_DIR: {error}") from None
    return directory


def _detection(settings: AuditSettings, bus: Bus, connect: Callable[[], Awaitable[Connection]]) -> Detection:
    rules = RuleFolder(settings.audit_rules_dir)
    try:
        rules.load()
    except BadRules as error:
        raise BadSettings(f"WARDMESH_AUDIT_RULES_DIR: {error}") from None
    directory = directory_of(settings)
    handles: Handles | None = None
    if directory.watched:
        keys_url = need("WARDMESH_AUDIT_KEYS_URL", settings.audit_keys_url)

        async def connect_keys() -> Connection:
            conn = await asyncpg.connect(keys_url, timeout=5, command_timeout=10)
            await check_server(conn)
            await check_role(conn, "key_owner")
            return conn

        handles = Handles(connect_keys)
    return Detection(bus.nc, connect, rules, directory, handles, settings.logs)

"""The roles that look after the ledger: `detect` watches producers, `retention` drops what is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from wardmesh_audit.ledger import Connection
from wardmesh_audit.retention import Retention
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.watch import Watch
from wardmesh_common.bus import Bus

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
    if "retention" in settings.audit_roles:
        url = need("WARDMESH_AUDIT_RETENTION_URL", settings.audit_retention_url)
        exports = Path(need("WARDMESH_AUDIT_EXPORT_DIR", settings.audit_export_dir))
        yield Retention(bus.nc, connector(url), exports, settings.logs).run()

"""Everything the gateway shows of the ledger, by path: the HTTP API and the console for compliance."""

from __future__ import annotations

from wardmesh_gateway.asgi import Request, Send
from wardmesh_gateway.audit_door import AuditDoor
from wardmesh_gateway.audit_face import PREFIXES, AuditFace
from wardmesh_gateway.audit_tail import Tails
from wardmesh_gateway.console import Console
from wardmesh_gateway.console_page import HOME, ROOT, STATIC
from wardmesh_gateway.entrance import Entrance


class LedgerFace:
    def __init__(self, door: AuditDoor, entrance: Entrance, tails: Tails, key: bytes) -> None:
        self._api = AuditFace(door, entrance, tails)
        self._console = Console(door, entrance, tails, key)

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIXES) or _console(path)

    async def __call__(self, request: Request, send: Send) -> None:
        face = self._console if _console(request.path) else self._api
        await face(request, send)


def _console(path: str) -> bool:
    return path.rstrip("/") in (HOME, ROOT) or path.startswith((f"{ROOT}/", f"{STATIC}/"))

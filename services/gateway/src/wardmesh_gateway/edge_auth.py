"""The OAuth resource server side of /mcp: bearer check, challenges, step-up and RFC 9728 metadata (mcp.md §4.1)."""

from __future__ import annotations

import msgspec

from wardmesh_common.errors import Unauthenticated, WardmeshError
from wardmesh_gateway.asgi import Header, Send, respond
from wardmesh_gateway.edge_answers import JSON, NO_STORE, Refusal
from wardmesh_gateway.mcp_door import Credential, Credentials, McpSettings

WELL_KNOWN = "/.well-known/oauth-protected-resource"
MINIMAL_SCOPES = ("fhir.read",)


class BearerGate:
    """Nothing passes without a token that holds; decided before method and body (OA-2)."""

    def __init__(self, credentials: Credentials, settings: McpSettings) -> None:
        self._credentials = credentials
        self._base = settings.public_url.rstrip("/")

    async def enter(self, authorization: str, path: str) -> tuple[str, Credential]:
        """The token and what it says. Raises the 401 challenge, or 503 when keys cannot be had."""
        kind, _, token = authorization.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise self._challenge(path, "Authentication required", error="")
        try:
            return token, await self._credentials.check(token)
        except Unauthenticated:
            raise self._challenge(path, "The access token is not valid", error="invalid_token") from None
        except WardmeshError as problem:
            status = problem.problem.status
            raise Refusal(status, "The access token cannot be checked now", headers=_retry(problem)) from None

    def step_up(self, path: str, needed: tuple[str, ...], request: int | str | None) -> Refusal:
        """403 with all scopes that this operation needs: a JSON-RPC error inside 200 would trigger nothing (OA-6)."""
        header = self._header(path, needed, error="insufficient_scope")
        message = "The access token does not carry the scope that this tool needs"
        return Refusal(403, message, request=request, headers=(header,), event="security.scope_violation")

    def _challenge(self, path: str, message: str, *, error: str) -> Refusal:
        # Clients come without a token to find out where to get one: that is nobody's attack.
        event = "security.invalid_token" if error else ""
        return Refusal(401, message, headers=(self._header(path, MINIMAL_SCOPES, error=error),), event=event)

    def _header(self, path: str, scopes: tuple[str, ...], *, error: str) -> Header:
        parts = [f'error="{error}"'] if error else []
        parts.append(f'resource_metadata="{self._base}{WELL_KNOWN}{path.rstrip("/")}"')
        parts.append(f'scope="{" ".join(scopes)}"')
        return (b"www-authenticate", f"Bearer {', '.join(parts)}".encode())


def _retry(problem: WardmeshError) -> tuple[Header, ...]:
    seconds = problem.problem.retry_after or 1
    return ((b"retry-after", str(seconds).encode()),)


class ProtectedResource:
    """RFC 9728 metadata: one resource for every path, because there is one audience."""

    def __init__(self, settings: McpSettings) -> None:
        document = {
            "resource": settings.resource,
            "authorization_servers": [settings.issuer],
            "scopes_supported": list(MINIMAL_SCOPES),
            "bearer_methods_supported": ["header"],
            "resource_name": "Wardmesh",
        }
        self._document = msgspec.json.encode(document)

    async def answer(self, send: Send, method: str) -> None:
        if method not in ("GET", "HEAD"):
            raise Refusal(405, "Method not allowed", headers=((b"allow", b"GET, HEAD"),))
        await respond(send, 200, [JSON, NO_STORE], self._document, head=method == "HEAD")

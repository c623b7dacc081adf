"""What the MCP face asks of the rest of the gateway: tools, the one door, credentials, rate limit, catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Caller
from wardmesh_common.questions import Changed, PlatformFacts

# `await progress(done, total, message)`; total None = unknown. Present only when the client asked for progress.
Progress = Callable[[float, float | None, str | None], Awaitable[None]]
RawHandler = Callable[[Any], Awaitable[None]]


class McpTool(Struct, frozen=True, kw_only=True):
    """One tool as MCP shows it; made from a ToolSpec."""

    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    read_only: bool = True
    destructive: bool = False
    idempotent: bool = True
    open_world: bool = True
    scopes: tuple[str, ...] = ("fhir.read",)  # all scopes a token needs for it (OA-6)
    quick: bool = True  # False: may take seconds, is always answered on a stream (mcp.md §3.4)
    profiles: tuple[str, ...] = ("gateway",)  # `/mcp/<profile>` paths that offer it
    shown_as: str = ""  # its name inside its one profile; nowhere else is it offered
    typed_errors: bool = False  # failures have the form of tool_family.typed_error


class ToolResult:
    """A tool's answer. `structured` is the object of the contract, `{"error", "message"}` when it failed (C-7).

    `text` is the same as exact JSON text: FHIR decimals survive only as text. Each is made from the other when it is
    wanted, because most answers are only ever needed as text.
    """

    __slots__ = ("_structured", "_text", "call_id", "instead_of", "is_error", "platform", "sign_in")

    def __init__(
        self,
        *,
        structured: dict[str, Any] | None = None,
        text: str = "",
        is_error: bool = False,
        call_id: str = "",
        platform: str = "",
        instead_of: str = "",
        sign_in: bool = False,
    ) -> None:
        self._structured = structured
        self._text = text
        self.is_error = is_error
        self.call_id = call_id  # what the ledger calls it
        self.platform = platform  # which one answered
        self.instead_of = instead_of  # the one that was asked, when a stand-in answered (FG-27)
        self.sign_in = sign_in  # refused because the person has not signed in at the platform

    @property
    def structured(self) -> dict[str, Any]:
        if self._structured is None:
            self._structured = msgspec.json.decode(self._text, type=dict[str, Any])
        return self._structured

    @property
    def text(self) -> str:
        if not self._text:
            self._text = msgspec.json.encode(self._structured).decode()
        return self._text

    @property
    def meta(self) -> dict[str, str]:
        """What belongs to the answer and not into it: a FHIR resource stays what the platform sent."""
        named = (("wardmesh/requestId", self.call_id), ("wardmesh/platform", self.platform))
        return {name: value for name, value in named if value}

    @property
    def note(self) -> str:
        """What a model should know about the answer beside it."""
        if not self.instead_of:
            return ""
        return f"Answered by '{self.platform}', which stands in for '{self.instead_of}' in this deployment."


class Seen(Struct, frozen=True, kw_only=True):
    """How far a sign-in is. No result: it is under way, or cannot be told just now."""

    result: ToolResult | None = None
    cancelled: bool = False


class SignInSteps(Protocol):
    """A sign-in watched and called off without a call that waits for it."""

    async def look(self, platform: str, handle: str, caller: Caller) -> Seen: ...

    async def cancel(self, platform: str, handle: str, caller: Caller) -> None:
        """Whoever has the link can do nothing with it afterwards. Raises MCPError."""
        ...


class Door(Protocol):
    """The one door (AR-1). Refusals and failures are results, never exceptions; cancelling cancels the Call."""

    def tools(self) -> tuple[McpTool, ...]:
        """Every tool there is; the same tuple object until the registry changes."""
        ...

    async def allowed_tools(self, caller: Caller) -> frozenset[str]:
        """Names that this caller may use at all, by policy (ask.policy.tools.check)."""
        ...

    async def call_tool(
        self, name: str, arguments: dict[str, Any], caller: Caller, *, progress: Progress | None = None
    ) -> ToolResult:
        """Submit one Call. The arguments have passed the tool's input schema."""
        ...


class PlatformCatalogue(Protocol):
    """The platforms as the gateway holds them in memory."""

    def platform(self, platform_id: str) -> PlatformFacts | None:
        """By id or alias."""
        ...


class Credential(Struct, frozen=True, kw_only=True):
    """A bearer token that held: `principal` is a digest of issuer, subject and client, never the subject itself."""

    principal: str
    scopes: frozenset[str]
    expires: float  # unix seconds
    client_id: str = ""


class Credentials(Protocol):
    """caller.py: verified bearer tokens (OA-4, OA-9) and the caller's address (X-38)."""

    async def check(self, bearer: str) -> Credential:
        """Raises Unauthenticated for a token that does not hold, Unavailable when keys cannot be had."""
        ...

    def address(self, scope: Mapping[str, Any]) -> str:
        """The caller's address, from proxy headers only when the peer is a trusted proxy."""
        ...

    def budget(self, caller: Caller) -> str:
        """Whose rate limit counts for a caller without a token."""
        ...


class Limiter(Protocol):
    """The rate limit shared by the replicas, by principal (its digest or the address) and tool."""

    async def admit(self, principal: str, tool: str) -> int:
        """0 = go on, otherwise the seconds to wait. `tool` is "" for everything that is not a tool call."""
        ...


class McpSettings(Struct, frozen=True, kw_only=True):
    """The settings of this face; app.py fills them from the gateway's."""

    public_url: str = "http://localhost:8000"
    issuer: str = ""
    audience: str = ""  # "" = {public_url}/mcp
    allowed_hosts: tuple[str, ...] = ()  # the public URL's host is always allowed
    allowed_origins: tuple[str, ...] = ()  # "*" = any origin, without credentials
    max_body_bytes: int = 10 * 1024 * 1024
    version: str = "0.1.0"

    @property
    def resource(self) -> str:
        """The canonical resource (RFC 8707): one audience for every profile path."""
        return (self.audience or f"{self.public_url.rstrip('/')}/mcp").rstrip("/")


class Nats(Protocol):
    """The verbs of a nats-py client that the gateway-private subjects need."""

    async def publish(self, subject: str, payload: bytes = b"") -> None: ...

    async def subscribe(self, subject: str, *, cb: RawHandler) -> Any: ...

    async def flush(self) -> None: ...


class HearsEvents(Protocol):
    """The part of `wardmesh_common.bus.Bus` that tells of changed catalogues and policies."""

    async def hear(
        self, subject: str, event_type: type[Changed], handler: Callable[[Changed], Awaitable[None]]
    ) -> None:
        """Run the handler for every event."""
        ...


class ReplicaBus(Protocol):
    """The part of `wardmesh_common.bus.Bus` used here: the connection and this replica's name (no dots)."""

    @property
    def nc(self) -> Nats: ...

    @property
    def instance(self) -> str: ...

"""Signed, self-contained MCP session ids: any replica reads what `initialize` said, none keeps it (mcp.md §3.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

LIFETIME_SECONDS = 7 * 24 * 3600  # clients handle a lost session badly: days, not minutes
MAX_LENGTH = 1024  # travels in every request, must stay far below header limits
_KID, _TAG = 4, 32
_LABEL = b"wardmesh mcp session v1"

# What survives of the declared capabilities: known keys only, because the value is client-controlled.
_KNOWN_CAPABILITIES: dict[str, tuple[str, ...]] = {
    "roots": ("listChanged",),
    "sampling": ("context", "tools"),
    "elicitation": ("form", "url"),
    "extensions": (
        "io.modelcontextprotocol/ui",
        "io.modelcontextprotocol/tasks",
        "io.modelcontextprotocol/skills",
    ),
}


class SessionUnknown(Exception):
    """The id was not minted by us, has expired, or belongs to somebody else: all look the same outside."""


class McpSession(Struct, frozen=True, array_like=True, kw_only=True):
    """What one client said in `initialize`, bound to the principal that said it."""

    id: bytes
    principal: bytes  # digest, b"" on the anonymous listener
    expires: int
    version: str
    client_name: str
    client_version: str
    capabilities: dict[str, Any]

    @property
    def client_info(self) -> dict[str, str]:
        return {"name": self.client_name, "version": self.client_version}

    @property
    def digest(self) -> str:
        """Names the session in logs and between replicas; the id itself never leaves this process."""
        return hashlib.sha256(self.id).hexdigest()[:32]


class SessionIds:
    """Mints and opens session ids; `keys[0]` signs, all keys open (mcp.md §3.5). `ended`: digests of what is over."""

    def __init__(
        self, keys: Sequence[bytes], *, ended: Container[str] = frozenset(), clock: Callable[[], float] = time.time
    ) -> None:
        if not keys or any(len(key) < 32 for key in keys):
            raise ValueError("the gateway key ring needs at least one key of 32 bytes")
        derived = [hmac.digest(key, _LABEL, "sha256") for key in keys]
        self._ring = {hashlib.sha256(key).digest()[:_KID]: key for key in derived}
        self._signer = hashlib.sha256(derived[0]).digest()[:_KID]
        self._ended = ended
        self._clock = clock
        self._decoder = msgspec.msgpack.Decoder(McpSession)

    def mint(self, version: str, client_info: Any, capabilities: Any, principal: str) -> str:
        """A new id for a successful `initialize`."""
        name, number = client_words(client_info)
        session = McpSession(
            id=secrets.token_bytes(16),
            principal=principal_bytes(principal),
            expires=int(self._clock()) + LIFETIME_SECONDS,
            version=version,
            client_name=name,
            client_version=number,
            capabilities=known_capabilities(capabilities),
        )
        signed = self._signer + msgspec.msgpack.encode(session)
        tag = hmac.digest(self._ring[self._signer], signed, "sha256")
        return base64.urlsafe_b64encode(signed + tag).rstrip(b"=").decode()

    def open(self, value: str, principal: str) -> McpSession:
        """Raises SessionUnknown unless the id is ours, alive and of this principal."""
        if len(value) > MAX_LENGTH:
            raise SessionUnknown
        try:
            raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise SessionUnknown from None
        signed, tag = raw[:-_TAG], raw[-_TAG:]
        key = self._ring.get(signed[:_KID])
        if key is None or not hmac.compare_digest(hmac.digest(key, signed, "sha256"), tag):
            raise SessionUnknown
        try:
            session = self._decoder.decode(signed[_KID:])
        except msgspec.DecodeError:
            raise SessionUnknown from None
        same = hmac.compare_digest(session.principal, principal_bytes(principal))
        if not same or session.expires <= self._clock() or session.digest in self._ended:
            raise SessionUnknown
        return session


def principal_bytes(principal: str) -> bytes:
    return hashlib.sha256(principal.encode()).digest()[:16] if principal else b""


def client_words(client_info: Any) -> tuple[str, str]:
    """Client name and version as claimed, shortened; anything that is no string counts as not said."""
    if not isinstance(client_info, Mapping):
        return "", ""
    name, version = client_info.get("name"), client_info.get("version")
    return (name[:64] if isinstance(name, str) else "", version[:32] if isinstance(version, str) else "")


def known_capabilities(declared: Any) -> dict[str, Any]:
    """Known keys and known sub-keys only. Absent and null both mean not supported (X-18), `{}` means present."""
    kept: dict[str, Any] = {}
    if not isinstance(declared, Mapping):
        return kept
    for name, inner in _KNOWN_CAPABILITIES.items():
        value = declared.get(name)
        if isinstance(value, Mapping):
            kept[name] = {key: _flat(value[key]) for key in inner if value.get(key) is not None}
    return kept


def _flat(value: Any) -> Any:
    return value if isinstance(value, bool) else {}

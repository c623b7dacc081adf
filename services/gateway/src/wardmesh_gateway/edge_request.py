"""One POST to /mcp as the edge reads it: trimmed headers, one JSON-RPC message, its era (GW-1 to GW-3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from mcp.shared.inbound import decode_header_value, find_duplicated_routing_header
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from wardmesh_gateway.edge_answers import HEADER_MISMATCH, INVALID_REQUEST, PARSE_ERROR, Refusal, request_id

_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    # The SDK leaves these to us (mcp.md §8 trap 13).
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


class Headers:
    """Request headers with blanks around the values cut off: httptools keeps trailing ones (mcp.md §2.3)."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = [(name, value.strip(b" \t")) for name, value in raw]
        self._first: dict[bytes, bytes] = {}
        for name, value in self.raw:
            self._first.setdefault(name, value)

    def get(self, name: bytes) -> str:
        return self._first.get(name, b"").decode("latin-1")

    def duplicated(self) -> str | None:
        """The first header that decides about routing and stands there twice."""
        if len(self._first) == len(self.raw):
            return None
        return find_duplicated_routing_header((n.decode("latin-1"), v.decode("latin-1")) for n, v in self.raw)

    def accepts(self) -> tuple[bool, bool]:
        """Whether the client takes JSON, and whether it takes an event stream."""
        kinds = {kind.split(";")[0].strip().lower() for kind in self.get(b"accept").split(",")}
        anything = "*/*" in kinds
        json = anything or not kinds.isdisjoint(("application/json", "application/*"))
        return json, anything or not kinds.isdisjoint(("text/event-stream", "text/*"))

    def for_sdk(self) -> list[tuple[bytes, bytes]]:
        """The edge has judged Accept already; the SDK would refuse with an empty body (GW-6)."""
        kept = [pair for pair in self.raw if pair[0] != b"accept"]
        return [*kept, (b"accept", b"application/json, text/event-stream")]


class Inbound:
    """A decoded message with the facts that routing, step-up and rate limit need."""

    def __init__(self, body: bytes, headers: Headers) -> None:
        self.message = _decode(body)
        self.id = request_id(self.message.get("id"))
        self.method = self.message.get("method")
        params = self.message.get("params")
        self.params = cast("Mapping[str, Any]", params) if isinstance(params, Mapping) else {}
        meta = self.params.get("_meta")
        self.meta = cast("Mapping[str, Any]", meta) if isinstance(meta, Mapping) else {}
        version = headers.get(b"mcp-protocol-version")
        self.modern = bool(version) and version not in HANDSHAKE_PROTOCOL_VERSIONS
        self.version = version
        self.trusted = not self.modern  # the legacy wire reads the body; the modern one only after GW-2
        _check_envelope(self)
        if self.is_request:
            self._check_era(headers)

    @property
    def is_request(self) -> bool:
        return self.method is not None and "id" in self.message

    @property
    def is_reply(self) -> bool:
        answer = self.message.get("result", self.message.get("error"))
        return self.method is None and isinstance(answer, Mapping)

    @property
    def tool(self) -> str:
        """The called tool; on the modern wire equal to Mcp-Name by now (GW-3)."""
        name = self.params.get("name") if self.trusted and self.method == "tools/call" else None
        return name if isinstance(name, str) else ""

    @property
    def wants_stream(self) -> bool:
        """Progress and log messages can travel only on a stream."""
        return self.meta.get("progressToken") is not None or self.meta.get(LOG_LEVEL_META_KEY) is not None

    @property
    def client_info(self) -> Any:
        if self.method == "initialize":
            return self.params.get("clientInfo")
        return self.meta.get(CLIENT_INFO_META_KEY) if self.modern else None

    @property
    def capabilities(self) -> Any:
        if self.method == "initialize":
            return self.params.get("capabilities")
        return self.meta.get(CLIENT_CAPABILITIES_META_KEY) if self.modern else None

    def _check_era(self, headers: Headers) -> None:
        """GW-2. An unknown version and a missing envelope key are the SDK's to refuse, with its own codes."""
        claimed = self.meta.get(PROTOCOL_VERSION_META_KEY)
        if not self.modern:
            if isinstance(claimed, str) and claimed in MODERN_PROTOCOL_VERSIONS and self.method != "initialize":
                raise self._mismatch("mcp-protocol-version")
            return
        duplicated = headers.duplicated()
        if duplicated is not None:
            raise self._mismatch(duplicated)
        if claimed is None or CLIENT_CAPABILITIES_META_KEY not in self.meta:
            return
        if claimed != self.version:
            raise self._mismatch("mcp-protocol-version")
        if headers.get(b"mcp-method") != self.method:
            raise self._mismatch("mcp-method")
        key = _NAMED.get(str(self.method))
        if key and self.params.get(key) is not None:
            named = decode_header_value(headers.get(b"mcp-name"))
            if named != self.params[key]:
                raise self._mismatch("mcp-name")
        self.trusted = self.version in MODERN_PROTOCOL_VERSIONS

    def _mismatch(self, header: str) -> Refusal:
        message = f"The {header} header does not match the request body"
        return Refusal(400, message, code=HEADER_MISMATCH, request=self.id)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refusal(400, "Parse error", code=PARSE_ERROR) from None
    if not isinstance(decoded, dict):
        # Batches existed in 2025-03-26 only; the SDK refuses them too (mcp.md §8 trap 7).
        raise Refusal(400, "The body must be one JSON-RPC message", code=INVALID_REQUEST)
    return cast("dict[str, Any]", decoded)


def _check_envelope(inbound: Inbound) -> None:
    """Refuse here what the SDK would refuse with the text of its validator, which quotes the body."""
    message = inbound.message
    params = message.get("params")
    wrong = message.get("jsonrpc") != "2.0" or not isinstance(params, Mapping | None)
    if inbound.method is not None:
        wrong = wrong or not isinstance(inbound.method, str) or ("id" in message and inbound.id is None)
    else:
        wrong = wrong or not inbound.is_reply or inbound.id is None
    if wrong:
        raise Refusal(400, "Invalid JSON-RPC message", code=INVALID_REQUEST, request=inbound.id)

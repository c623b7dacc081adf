"""One MCP tool call as a modern client sends it: a single POST without a handshake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

PROTOCOL = "2026-07-28"


@dataclass
class Result:
    refused: bool
    text: str
    status: int


async def call_tool(
    http: httpx.AsyncClient, url: str, token: str, name: str, arguments: dict[str, Any], *, agent: str = "mesh-tests"
) -> Result:
    meta = {
        "io.modelcontextprotocol/protocolVersion": PROTOCOL,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": agent, "version": "1.0.0"},
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    headers = {
        "MCP-Protocol-Version": PROTOCOL,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {token}",
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await http.post(url, json=body, headers=headers)
    events = [line[5:].strip() for line in answer.text.splitlines() if line.startswith("data:")]
    message = json.loads(events[-1] if events else answer.text)
    result = message.get("result", {})
    text = " ".join(block.get("text", "") for block in result.get("content", []))
    return Result(bool(result.get("isError")) or "error" in message, text, answer.status_code)

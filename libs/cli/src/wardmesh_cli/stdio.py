"""`wardmesh stdio`: an MCP server on standard input and output that is a bridge to a running gateway (C-3, HL-18)."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SESSION = "Mcp-Session-Id"
LONGEST_LINE = 16 * 1024 * 1024
WAIT_SECONDS = 600.0
_FAILED = -32000
LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}

log = logging.getLogger("wardmesh.stdio")

Json = dict[str, Any]
Write = Callable[[str], None]


class Bridge:
    """Each message is one POST; what comes back is written as it came. Nothing is kept but the MCP session."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, token: str, write: Write, narrowed: dict[str, str]
    ) -> None:
        self._http = http
        self._narrowed = narrowed
        self._url = url
        self._token = token
        self._write = write
        self._session = ""
        self._version = ""

    async def pass_on(self, line: bytes) -> None:
        """One line of the client. Failures become JSON-RPC errors; their texts name no address and no token."""
        try:
            message = json.loads(line)
        except ValueError:
            self._fail(None, -32700, "Parse error")
            return
        if not isinstance(message, dict):
            self._fail(None, -32600, "Invalid request")
            return
        began = time.monotonic()
        try:
            await self._post(message)
            log.info("%s after %.0f ms", _method(message), (time.monotonic() - began) * 1000)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.error("%s failed: %s", _method(message), type(error).__name__)
            self._fail(message, _FAILED, "The gateway cannot be reached.")

    async def _post(self, message: Json) -> None:
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
        async with self._http.post(self._url, json=message, headers=self._headers(message), timeout=timeout) as answer:
            self._session = answer.headers.get(SESSION, self._session)
            if answer.content_type == "text/event-stream":
                await self._events(answer)
                return
            text = await answer.text()
            if '"jsonrpc"' in text:
                self._said(json.loads(text))
            elif answer.status >= 400:
                self._fail(message, _FAILED, f"The gateway refused the message: {answer.status}.")

    async def _events(self, answer: aiohttp.ClientResponse) -> None:
        """Only `data:` lines matter here; an event without data is a sign of life."""
        data: list[str] = []
        async for raw in answer.content:
            line = raw.decode().rstrip("\r\n")
            if line.startswith("data:"):
                data.append(line[5:].strip())
            elif not line and data:
                if text := "\n".join(data):
                    self._said(json.loads(text))
                data = []

    def _said(self, message: Json) -> None:
        result = message.get("result")
        if isinstance(result, dict) and isinstance(result.get("protocolVersion"), str):
            self._version = result["protocolVersion"]
        self._write(json.dumps(message, separators=(",", ":"), ensure_ascii=False))

    def _headers(self, message: Json) -> dict[str, str]:
        found = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {self._token}"}
        found |= self._narrowed
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        stated = _word(meta.get(VERSION_KEY)) if isinstance(meta, dict) else ""
        if stated:
            # Requests without a handshake say in headers what they are.
            found |= {"MCP-Protocol-Version": stated, "Mcp-Method": _word(message.get("method"))}
            name = _word(params.get("name") or params.get("uri"))
            return found | ({"Mcp-Name": name} if name else {})
        if self._session:
            found[SESSION] = self._session
        return found | ({"MCP-Protocol-Version": self._version} if self._version else {})

    def _fail(self, message: Json | None, code: int, text: str) -> None:
        if message is not None and "id" not in message:
            return  # nobody waits for an answer to a notification
        error = {"code": code, "message": text}
        identity = message.get("id") if message else None
        self._write(json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}))


def narrowing(*, read_only: bool, tools: Sequence[str]) -> dict[str, str]:
    """The headers by which a client takes tools away from itself; the gateway holds it to them (HL-15)."""
    found = {"X-MCP-Readonly": "true"} if read_only else {}
    return found | ({"X-MCP-Tools": ",".join(tools)} if tools else {})


def _word(value: object) -> str:
    """What a header can hold; the gateway says what is wrong with the rest."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def _method(message: Json) -> str:
    """For the log: methods are the protocol's words, arguments stay out."""
    method = message.get("method")
    return method if isinstance(method, str) and method.isascii() and len(method) <= 64 else "answer"


async def serve(url: str, token: str, narrowed: dict[str, str]) -> int:
    """Until the client closes our input; calls that run are finished first."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(trust_env=False) as http:
        bridge = Bridge(http, url, token, _write, narrowed)
        while line := await reader.readline():
            if not line.strip():
                continue
            task = asyncio.create_task(bridge.pass_on(line))
            running.add(task)
            task.add_done_callback(running.discard)
            if b'"initialize"' in line:
                await task  # what follows belongs to the session that this opens
        await asyncio.gather(*running)
    return 0


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def token_of(environ: dict[str, str]) -> str:
    """WARDMESH_TOKEN, or the content of the file that WARDMESH_TOKEN_FILE names; "" when there is none."""
    if "WARDMESH_TOKEN" in environ:
        return environ["WARDMESH_TOKEN"].strip()
    path = environ.get("WARDMESH_TOKEN_FILE", "")
    if not path:
        return ""
    return Path(path).read_text(encoding="utf-8").strip()


def run(url: str, profile: str, environ: dict[str, str], narrowed: dict[str, str]) -> int:
    level = LEVELS.get(environ.get("FASTMCP_LOG_LEVEL", "ERROR").strip().upper())
    if level is None:
        sys.stderr.write(f"FASTMCP_LOG_LEVEL must be one of {', '.join(LEVELS)}\n")
        return 78
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    token = token_of(environ)
    if not token:
        sys.stderr.write("set WARDMESH_TOKEN, or WARDMESH_TOKEN_FILE to a file with an access token of the gateway\n")
        return 78
    address = f"{url.rstrip('/')}/mcp" + (f"/{profile}" if profile else "")
    return asyncio.run(serve(address, token, narrowed))

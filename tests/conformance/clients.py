"""Real MCP clients as child processes: Inspector CLI and the two TypeScript clients, each making one tool call."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from conformance.suites import NODE, ROOT

HERE = Path(__file__).parent
INSPECTOR = (
    ROOT / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
)
SECONDS = 60.0


async def _node(*arguments: str, home: Path) -> str:
    """stdout of a Node program; its failure text when it fails."""
    environ = os.environ | {"HOME": str(home), "PATH": f"{NODE.parent}:{os.environ.get('PATH', '')}"}
    process = await asyncio.create_subprocess_exec(
        str(NODE), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=home, env=environ
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode(errors="replace")[-3000:]
    return out.decode()


async def inspector(url: str, token: str, era: str, tool: str, arguments: dict[str, Any], home: Path) -> dict[str, Any]:
    """The tool's result as Inspector CLI got it."""
    words = [str(INSPECTOR), "--cli", "--server-url", url, "--transport", "http", "--protocol-era", era]
    if token:
        words += ["--header", f"Authorization: Bearer {token}"]
    words += ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
    out = await _node(*words, "--format", "json", "--quiet", home=home)
    answer: dict[str, Any] = json.loads(out)
    return answer.get("result", answer)


async def typescript_v2(
    url: str, token: str, mode: str, tool: str, arguments: dict[str, Any], home: Path
) -> dict[str, Any]:
    """`{tools, version, result}`."""
    out = await _node(str(HERE / "client_v2.mjs"), url, token, mode, tool, json.dumps(arguments), home=home)
    return json.loads(out)


async def typescript_v1(url: str, token: str, tool: str, arguments: dict[str, Any], home: Path) -> dict[str, Any]:
    """`{tools, version, result}`."""
    out = await _node(str(HERE / "client_v1.mjs"), url, token, tool, json.dumps(arguments), home=home)
    return json.loads(out)

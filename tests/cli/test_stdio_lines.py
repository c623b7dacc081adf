"""What a client may write on standard input: every request gets an answer, however odd it is."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from wardmesh_cli.stdio import VERSION_KEY, Bridge

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]
MODERN = {VERSION_KEY: "2026-07-28"}


async def refuse(request: web.Request) -> web.Response:
    """A gateway that understands nothing and says so."""
    message = await request.json()
    error = {"code": -32602, "message": "Invalid params"}
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error}, status=400)


@pytest.mark.parametrize(
    "params",
    [
        {"name": "read\r\nX-Odd: 1", "_meta": MODERN},
        {"uri": "\u00e9", "_meta": MODERN},
        {"name": 7, "_meta": MODERN},
        {"name": "read", "_meta": {VERSION_KEY: "a\nb"}},
        {"name": "read", "_meta": "odd"},
        ["odd"],
    ],
)
async def test_a_request_that_no_header_can_name_is_answered_by_the_gateway(params: Any) -> None:
    app = web.Application()
    app.router.add_post("/mcp", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    written: list[str] = []
    try:
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
            line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
            await Bridge(http, url, "token", written.append, {}).pass_on(line.encode())
    finally:
        await runner.cleanup()
    (answer,) = written
    assert json.loads(answer)["error"]["message"] == "Invalid params"

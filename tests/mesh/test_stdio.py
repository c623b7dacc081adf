"""The stdio command is a bridge to the running gateway: an MCP client starts it as its configuration says (HL-18)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mesh.healthlake import DEMO

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(240)]
CLIENTS = Path(__file__).resolve().parents[2] / "docs" / "clients" / "stdio"
PROGRAM = str(Path(sys.executable).with_name("wardmesh"))


def configured(name: str) -> dict[str, Any]:
    return json.loads((CLIENTS / name).read_text())["mcpServers"]["awslabs.healthlake-mcp-server"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_shipped_configuration_reaches_the_29_tools(mesh: Any, mode: str, tmp_path: Path) -> None:
    given = configured("healthlake.json")
    token = tmp_path / "token"
    token.write_text(mesh.token("demo_doctor") + "\n")
    arguments = [mesh.ready["gateway"] if part.startswith("http") else part for part in given["args"]]
    environ = {**given["env"], "WARDMESH_TOKEN_FILE": str(token)}
    server = StdioServerParameters(command=PROGRAM, args=arguments, env=environ)
    async with Client(stdio_client(server), mode=mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"read_fhir_resource", "list_datastores"} <= names
        result = await client.call_tool("list_datastores", {})
        assert not result.is_error
        assert DEMO in result.content[0].text  # type: ignore[union-attr]
        failed = await client.call_tool("delete_datastore", {"datastore_id": DEMO})
        assert failed.is_error


def test_without_a_token_and_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [PROGRAM, "stdio", "--url", "http://127.0.0.1:1"]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "WARDMESH_TOKEN" in done.stderr) == (78, True)
    asked = (
        '{"jsonrpc":"2.0","id":1,"method":"ping"}\nno json\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    )
    environ = {**bare, "WARDMESH_TOKEN": "secret-token"}
    done = subprocess.run(command, env=environ, input=asked, capture_output=True, text=True, timeout=60, check=False)
    answers = sorted(done.stdout.splitlines())
    assert [json.loads(line)["error"]["code"] for line in answers] == [-32000, -32700]
    assert "secret-token" not in done.stdout + done.stderr
    assert "127.0.0.1" not in done.stdout


def test_the_container_runs_interactively_and_is_thrown_away() -> None:
    given = configured("healthlake-container.json")
    assert (given["command"], given["args"][:3]) == ("docker", ["run", "--rm", "--interactive"])
    assert {"env", "disabled", "autoApprove"} <= given.keys()

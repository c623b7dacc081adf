"""The stdio command is a bridge to the running gateway: an MCP client starts it as its configuration says (HL-18)."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from gateway.healthlake_stage import MORE, TOOLS_OF_HL
from mesh.healthlake import DEMO

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "docs" / "clients" / "stdio"
PROGRAM = str(Path(sys.executable).with_name("wardmesh"))
SERVER = "awslabs.healthlake-mcp-server"
IMAGE = "wardmesh:latest"


def configured(name: str) -> dict[str, Any]:
    document = json.loads((CLIENTS / name).read_text())
    assert set(document) == {"mcpServers"}
    assert set(document["mcpServers"]) == {SERVER}
    given = document["mcpServers"][SERVER]
    assert set(given) == {"command", "args", "env", "disabled", "autoApprove"}
    assert (given["disabled"], given["autoApprove"]) == (False, [])
    assert all(isinstance(value, str) for value in given["env"].values())
    return given


def started(
    mesh: Any, arguments: list[str], environ: dict[str, str], token: Path, *more: str, person: str = "demo_admin"
) -> StdioServerParameters:
    """What a client makes of its file: the command is ours in this environment, the gateway is this run's."""
    token.write_text(mesh.token(person) + "\n")
    here = [mesh.ready["gateway"] if part.startswith("http") else part for part in arguments]
    given = {**environ, "WARDMESH_TOKEN_FILE": str(token)}
    given.pop("WARDMESH_TOKEN", None)
    return StdioServerParameters(command=PROGRAM, args=[*here, *more], env=given)


@pytest.mark.requirement("HL-18")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_shipped_configuration_reaches_the_29_tools(mesh: Any, mode: str, tmp_path: Path) -> None:
    given = configured("healthlake.json")
    assert given["command"] == Path(PROGRAM).name
    server = started(mesh, given["args"], given["env"], tmp_path / "token")
    async with Client(stdio_client(server), mode=mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {*TOOLS_OF_HL, *MORE}
        result = await client.call_tool("list_datastores", {})
        assert not result.is_error
        assert DEMO in result.content[0].text  # type: ignore[union-attr]
        failed = await client.call_tool("describe_datastore", {"datastore_id": "f" * 32})
        assert failed.is_error


@pytest.mark.requirement("HL-18")
async def test_the_container_s_configuration_starts_the_same_program_behind_docker_run(
    mesh: Any, tmp_path: Path
) -> None:
    """No container is started here: what stands behind the image's name is started as the image would start it."""
    given = configured("healthlake-container.json")
    assert (given["command"], given["args"][:3]) == ("docker", ["run", "--rm", "--interactive"])
    assert "--tty" not in given["args"], "a terminal would spoil the messages"
    options, inside = _parted(given["args"])
    passed_on = {options[place + 1] for place, option in enumerate(options) if option == "--env"}
    assert passed_on == set(given["env"]), "docker hands on what the file sets and nothing else"
    scripts = tomllib.loads((ROOT / "libs" / "cli" / "pyproject.toml").read_text())["project"]["scripts"]
    assert inside[0] in scripts
    assert configured("healthlake.json")["args"] == inside[1:]
    server = started(mesh, inside[1:], {}, tmp_path / "token")
    async with Client(stdio_client(server)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} >= TOOLS_OF_HL.keys()


def _parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    place = arguments.index(IMAGE)
    return arguments[3:place], arguments[place + 1 :]


@pytest.mark.requirement("HL-15")
async def test_the_command_takes_tools_away_from_its_client(mesh: Any, tmp_path: Path) -> None:
    given = configured("healthlake.json")
    reading = started(mesh, given["args"], given["env"], tmp_path / "a", "--readonly")
    async with Client(stdio_client(reading)) as client:
        shown = (await client.list_tools()).tools
        assert not {tool.name for tool in shown} & {"create_fhir_resource", "delete_datastore", "tag_resource"}
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in shown)
        person = {"datastore_id": DEMO, "resource_type": "Patient", "resource_data": {"resourceType": "Patient"}}
        refused = await client.call_tool("create_fhir_resource", person)
        assert refused.is_error
        assert "read-only mode" in refused.content[0].text  # type: ignore[union-attr]
        assert not (await client.call_tool("list_datastores", {})).is_error
    some = started(
        mesh, given["args"], given["env"], tmp_path / "b", "--allowed-tools", "list_datastores, tag_resource"
    )
    async with Client(stdio_client(some)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"list_datastores", "tag_resource"}
        refused = await client.call_tool("describe_datastore", {"datastore_id": DEMO})
        assert refused.is_error


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
    assert "127.0.0.1" not in done.stdout + done.stderr


@pytest.mark.requirement("HL-16")
def test_it_logs_errors_only_unless_fastmcp_log_level_says_otherwise(mesh: Any) -> None:
    command = [PROGRAM, "stdio", "--url", mesh.ready["gateway"], "--profile", "healthlake"]
    asked = '{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    logged: dict[str, str] = {}
    for level in ("", "ERROR", "INFO"):
        environ = {"WARDMESH_TOKEN": mesh.token("demo_doctor"), **({"FASTMCP_LOG_LEVEL": level} if level else {})}
        done = subprocess.run(
            command, env=environ, input=asked, capture_output=True, text=True, timeout=60, check=False
        )
        assert json.loads(done.stdout)["result"] == {}
        logged[level] = done.stderr
    assert (logged[""], logged["ERROR"]) == ("", "")
    assert "ping after" in logged["INFO"]
    wrong = subprocess.run(
        command, env={"FASTMCP_LOG_LEVEL": "LOUD"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (wrong.returncode, "FASTMCP_LOG_LEVEL" in wrong.stderr) == (78, True)

"""Real MCP clients read real records through the whole mesh, with a person's token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.clients import inspector, typescript_v1, typescript_v2
from conformance.suites import CURRENT, run_suite

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]


def searching(mesh: Any) -> tuple[str, str, dict[str, Any]]:
    """Endpoint, a doctor's token, and the arguments of a search that finds somebody."""
    arguments = {"platform_id": mesh.ready["store_platform"], "resource_type": "Patient", "params": {"_count": "2"}}
    return mesh.ready["mcp"], mesh.ready["people"]["demo_doctor"]["token"], arguments


def found_patient(result: dict[str, Any]) -> bool:
    """A Bundle with at least one Patient, in the text as well as in the structured content."""
    assert not result.get("isError"), "the search was refused"
    text = json.loads(result["content"][0]["text"])
    assert text == result["structuredContent"]
    return '"Patient"' in json.dumps(text)


@pytest.mark.parametrize("era", ["legacy", "modern", "auto"])
async def test_inspector_searches_patients(mesh: Any, era: str, tmp_path: Path) -> None:
    url, token, arguments = searching(mesh)
    assert found_patient(await inspector(url, token, era, "search", arguments, tmp_path))


@pytest.mark.requirement("C-8", "B-8")
@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_typescript_client_searches_patients(mesh: Any, mode: str, version: str, tmp_path: Path) -> None:
    url, token, arguments = searching(mesh)
    answer = await typescript_v2(url, token, mode, "search", arguments, tmp_path)
    assert found_patient(answer["result"])
    assert answer["version"] == version


async def test_the_first_typescript_sdk_searches_patients(mesh: Any, tmp_path: Path) -> None:
    url, token, arguments = searching(mesh)
    answer = await typescript_v1(url, token, "search", arguments, tmp_path)
    assert found_patient(answer["result"])


async def test_the_listener_of_a_running_mesh_passes_the_suite(mesh: Any, tmp_path: Path) -> None:
    if not mesh.ready["conformance"]:
        pytest.fail("the mesh was started without --conformance")
    options = ("--requirements", "2026-07-28")
    verdict = await run_suite(CURRENT, mesh.ready["conformance"], options, tmp_path, 150.0)
    assert (verdict.passed, verdict.failed) == (196, 0), verdict.output[-4000:]

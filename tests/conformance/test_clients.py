"""Real clients against two replicas of the conformance pack behind a per-request round robin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.clients import inspector, typescript_v1, typescript_v2
from conformance.replicas import listeners

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

TOOL = "test_simple_text"
TEXT = "This is a simple text response for testing."


def words(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


@pytest.mark.parametrize("era", ["legacy", "modern", "auto"])
async def test_inspector_calls_a_tool_in_every_era(era: str, tmp_path: Path) -> None:
    async with listeners(2, tmp_path) as pack:
        assert words(await inspector(pack.url, "", era, TOOL, {}, tmp_path)) == TEXT


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_typescript_client_calls_a_tool(mode: str, version: str, tmp_path: Path) -> None:
    async with listeners(2, tmp_path) as pack:
        answer = await typescript_v2(pack.url, "", mode, TOOL, {}, tmp_path)
    assert words(answer["result"]) == TEXT
    assert answer["version"] == version
    assert TOOL in answer["tools"]


async def test_the_first_typescript_sdk_calls_a_tool(tmp_path: Path) -> None:
    async with listeners(2, tmp_path) as pack:
        answer = await typescript_v1(pack.url, "", TOOL, {}, tmp_path)
    assert words(answer["result"]) == TEXT
    assert answer["version"] == "2025-11-25"

"""Both wire eras end in the same question to policy: who the agent says it is and what it can do (B-8)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engines
from gateway.mcp_stage import Stage, modern_meta, result_of, stage
from policy.pdp_stage import POLICIES, call_of, caller, judging
from wardmesh_common.contracts import Caller

pytestmark = pytest.mark.anyio
CONDITION = '"roots" in P.attr.capabilities && P.attr.agent == "cursor-agent-v1.0.0"'
RULE = "    - name: staff_searches\n      actions: [search]\n      effect: EFFECT_ALLOW\n"


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A policy that lets one agent with one capability search for places."""
    folder = Path(shutil.copytree(POLICIES, tmp_path_factory.mktemp("choosy") / "policies"))
    location = folder / "location.yaml"
    text = location.read_text()
    assert text.count(RULE) == 1
    location.write_text(text.replace(RULE, f"{RULE}      condition: {{match: {{expr: '{CONDITION}'}}}}\n"))
    with engines.cerbos(folder) as engine:
        yield engine.target, folder


async def modern(s: Stage, name: str, capabilities: Any) -> Caller:
    """One call and nothing before it."""
    prefix = "io.modelcontextprotocol/"
    meta = modern_meta(
        **{f"{prefix}clientInfo": {"name": name, "version": "1.0.0"}, f"{prefix}clientCapabilities": capabilities}
    )
    result_of(await s.modern("tools/call", {"name": "read", "arguments": {}, "_meta": meta}))
    return s.door.calls[-1][2]


async def legacy(s: Stage, name: str, capabilities: Any) -> Caller:
    session = await s.initialize(name=name, capabilities=capabilities)
    result_of(await s.legacy("tools/call", {"name": "read", "arguments": {}}, **{"mcp-session-id": session}))
    return s.door.calls[-1][2]


@pytest.mark.requirement("B-8")
@pytest.mark.parametrize("era", [modern, legacy])
async def test_policy_sees_agent_and_capabilities_of_a_call_in_either_era(choosy: tuple[str, Path], era: Any) -> None:
    target, folder = choosy
    clients = {
        ("Cursor", "roots"): ("Cursor", {"roots": {}}),
        ("Cursor", "null"): ("Cursor", {"roots": None}),
        ("Cursor", "none"): ("Cursor", {}),
        ("Other", "roots"): ("Other", {"roots": {}}),
    }
    async with stage() as s, judging(target, folder) as judge:
        found: dict[tuple[str, str], bool] = {}
        for name, (client, capabilities) in clients.items():
            agent = (await era(s, client, capabilities)).agent
            decision = await judge.decide(caller("Doctor", agent=agent), call_of("search", "Location"))
            found[name] = decision.allowed
    assert found == {name: name == ("Cursor", "roots") for name in clients}

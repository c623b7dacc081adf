"""Agent identity: one form for every client, and no more trust than a claim deserves."""

from __future__ import annotations

from typing import Any

import pytest

from wardmesh_gateway.agent import Agents, load_aliases

FORMS = [
    ("Cursor", "1.0.0", "cursor-agent-v1.0.0"),
    ("Cursor Agent", "1.0.0", "cursor-agent-v1.0.0"),
    ("cursor-vscode", "1.0.0", "cursor-agent-v1.0.0"),
    ("Visual Studio Code", "1.115.0", "visual-studio-code-agent-v1.115.0"),
    ("claude-code", "2.1.329", "claude-code-agent-v2.1.329"),
    ("claude-code (via mcp-remote 0.1.37)", "2.1", "claude-code-agent-v2.1"),
    ("Odd//Name__X", "", "odd-name-x-agent"),
    ("  --Trim me--  ", "V 2 beta!", "trim-me-agent-vv-2-beta"),
    ("***", "1", "unknown-agent"),
    ("x" * 60, "1", f"{'x' * 48}-agent-v1"),
]


@pytest.fixture
def agents() -> Agents:
    return Agents(load_aliases())


@pytest.mark.parametrize(("name", "version", "identity"), FORMS)
def test_every_name_gets_the_same_form(agents: Agents, name: str, version: str, identity: str) -> None:
    agent = agents.claimed({"name": name, "version": version}, {}, "meta", "node")
    assert (agent.id, agent.source) == (identity, "meta")


def test_a_user_agent_is_only_a_hint(agents: Agents) -> None:
    agent = agents.claimed(None, None, "meta", "claude-code/2.1.329 (sdk-cli)")
    assert agent.id == "unknown-agent"
    assert (agent.name, agent.version, agent.source) == ("claude-code", "2.1.329", "user-agent")


@pytest.mark.parametrize("info", [None, [], "Cursor", {"name": 7}, {"name": None, "version": "1"}, {"version": "1"}])
def test_nonsense_in_place_of_client_info_is_no_client_info(agents: Agents, info: Any) -> None:
    agent = agents.claimed(info, {}, "initialize", "node")
    assert (agent.id, agent.source) == ("unknown-agent", "")


@pytest.mark.requirement("X-18")
def test_null_and_absent_capabilities_are_not_supported_and_an_empty_object_is(agents: Agents) -> None:
    declared = {"roots": None, "elicitation": {"url": {}, "form": None}, "sampling": {}, "other": {}}
    agent = agents.claimed({"name": "a"}, declared, "meta", "")
    assert agent.capabilities == ("sampling", "elicitation", "elicitation.url")
    assert agents.claimed({"name": "a"}, None, "meta", "").capabilities == ()

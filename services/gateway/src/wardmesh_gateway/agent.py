"""Who the calling software says it is (`cursor-agent-v1.0.0`): evidence for the record, never a ground to allow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.vocabulary import Agent
from wardmesh_gateway.mcp_sessions import client_words, known_capabilities

_OUTSIDE = re.compile(r"[^a-z0-9.]+")
_PRODUCT = re.compile(r"([^\s/()]{1,64})/([^\s()]{1,32})")
_LONGEST = 48


class Aliases(Struct, frozen=True):
    """Data, not code: names that clients use for themselves, and bridges that append theirs."""

    names: dict[str, str]
    bridges: list[str]


def load_aliases() -> Aliases:
    text = resources.files("wardmesh_gateway").joinpath("agent_aliases.json").read_bytes()
    return msgspec.json.decode(text, type=Aliases)


class Agents:
    """Forms agent ids (mcp.md §5): modern `_meta`, then session id, then `initialize`, then User-Agent."""

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases

    def claimed(self, client_info: Any, capabilities: Any, source: str, user_agent: str) -> Agent:
        """The first source that names a client wins; a User-Agent is kept only as a marked hint (IB-7)."""
        declared = capability_names(capabilities)
        name, version = client_words(client_info)
        if name:
            identity = self.form(name, version)
            return Agent(id=identity, name=name, version=version, source=source, capabilities=declared)
        if product := _PRODUCT.match(user_agent):
            name, version = product.groups()
            return Agent(name=name, version=version, source="user-agent", capabilities=declared)
        return Agent(capabilities=declared)

    def form(self, name: str, version: str) -> str:
        """ "Cursor" and "Cursor Agent" with 1.0.0 both give `cursor-agent-v1.0.0`."""
        for bridge in self._aliases.bridges:
            name = name.partition(bridge)[0]
        lowered = name.strip().lower()
        word = _word(self._aliases.names.get(lowered, lowered))
        if not word:
            return "unknown-agent"
        identity = word if word.endswith("-agent") else f"{word}-agent"
        number = _word(version.lower())
        return f"{identity}-v{number}" if number else identity


def _word(text: str) -> str:
    return _OUTSIDE.sub("-", text).strip("-")[:_LONGEST].strip("-")


def capability_names(declared: Any) -> tuple[str, ...]:
    """Declared capabilities as flat names: `elicitation`, `elicitation.url`, `roots` (IB-6)."""
    names: list[str] = []
    for name, inner in known_capabilities(declared).items():
        names.append(name)
        if isinstance(inner, Mapping):
            names.extend(f"{name}.{key}" for key, value in inner.items() if value is not False)
    return tuple(names)

"""The extracts that only $validate needs, read at its first use: invariants and the profiles of US Core."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct


class Rule(Struct, frozen=True, array_like=True):
    """One constraint."""

    key: str
    severity: str
    human: str
    expression: str


class Slicing(Struct, frozen=True):
    by: list[tuple[str, str]]  # discriminators: type and path
    rules: str


class Binding(Struct, frozen=True):
    strength: str
    set: str
    codes: list[str] = []  # `system|code`; empty when the set cannot be listed


class ProfileElement(Struct, frozen=True):
    """What a profile says beyond the base."""

    min: int = 0
    max: str = "*"
    fixed: Any = None
    pattern: Any = None
    slicing: Slicing | None = None
    must: bool = False
    types: list[str] = []
    profile: str = ""
    binding: Binding | None = None
    rules: list[Rule] = []


class Profile(Struct, frozen=True):
    type: str
    elements: dict[str, ProfileElement]


class _Rules(Struct, frozen=True):
    rules: dict[str, list[Rule]]


class _Package(Struct, frozen=True):
    package: str
    versions: dict[str, dict[str, Profile]]


def load_rules() -> dict[str, list[Rule]]:
    """Element path → constraints."""
    return msgspec.json.decode(_text("invariants.json"), type=_Rules).rules


class Profiles:
    """By canonical URL, with or without `|version`; without, the newest."""

    def __init__(self, versions: dict[str, dict[str, Profile]]) -> None:
        self._versions = versions

    def find(self, canonical: str) -> Profile | None:
        url, _, version = canonical.partition("|")
        if version:
            return self._versions.get(version, {}).get(url)
        return next((held[url] for _, held in sorted(self._versions.items(), reverse=True) if url in held), None)


def load_profiles() -> Profiles:
    return Profiles(msgspec.json.decode(_text("us_core.json"), type=_Package).versions)


def _text(name: str) -> bytes:
    return files(__package__ or "").joinpath(name).read_bytes()

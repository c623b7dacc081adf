"""The compiled R4 definitions: types, elements, search parameters, compartments (see tools/ for their making)."""

from __future__ import annotations

import zlib
from functools import cached_property, lru_cache
from importlib.resources import files

import msgspec
from msgspec import Struct


class ValueSet(Struct, frozen=True):
    codes: list[str]
    system: str = ""


class RawParameter(Struct, frozen=True):
    type: str
    paths: list[list[str]]
    targets: list[str] = []
    components: list[list[str | list[str]]] = []


class Extract(Struct, frozen=True):
    """r4.json as it stands."""

    package: str
    sources_sha256: str
    resource_types: list[str]
    types: dict[str, dict[str, str]]
    value_sets: dict[str, ValueSet]
    case_sensitive: list[str]
    search: dict[str, dict[str, RawParameter]]
    compartments: dict[str, dict[str, list[str]]]


class Branch(Struct, frozen=True):
    """One path of a parameter: where, which FHIR type stands there, and the reference target or code system."""

    path: str
    kind: str
    detail: str = ""


class Component(Struct, frozen=True):
    """One part of a composite parameter; a path that starts with `^` begins at the resource."""

    code: str
    branches: tuple[Branch, ...]


class Parameter(Struct, frozen=True):
    """A search parameter of one resource type; `key` names it in the index tables."""

    code: str
    type: str
    key: int
    branches: tuple[Branch, ...]
    targets: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()


INDEXED_TYPES = frozenset({"token", "string", "date", "number", "quantity", "reference", "uri", "composite"})


@lru_cache(maxsize=16384)
def parameter_key(owner: str, code: str) -> int:
    """A number that stays the same for ever; a test asserts that no two parameters share one."""
    unsigned = zlib.crc32(f"{owner}.{code}".encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


class Definitions:
    """Read once at start and passed to whoever needs it."""

    def __init__(self, extract: Extract) -> None:
        self.extract = extract
        self.resource_types = frozenset(extract.resource_types)
        self.types = extract.types
        self.value_sets = extract.value_sets
        self.case_sensitive = frozenset(extract.case_sensitive)
        common = {c: _parameter("Resource", c, raw) for c, raw in extract.search["Resource"].items()}
        self.common = common
        self.parameters: dict[str, dict[str, Parameter]] = {
            name: common
            | {
                code: _parameter(name, code, raw)
                for code, raw in extract.search[name].items()
                if raw.type in INDEXED_TYPES
            }
            for name in extract.resource_types
        }
        self.compartments = extract.compartments

    @cached_property
    def uri_names(self) -> frozenset[str]:
        """Element names that hold uri, url, oid or uuid and never plain text."""
        uris: set[str] = set()
        texts: set[str] = set()
        for elements in self.types.values():
            for name, word in elements.items():
                kinds = {kind.split("(")[0] for kind in word.split(" ", 1)[-1].split("|")}
                if name.endswith("[x]"):
                    continue
                if kinds <= {"uri", "url", "oid", "uuid"}:
                    uris.add(name)
                elif kinds & {"string", "markdown", "code", "id"}:
                    texts.add(name)
        return frozenset(uris - texts) | {"valueUri", "valueUrl", "valueOid", "valueUuid"}


def _parameter(owner: str, code: str, raw: RawParameter) -> Parameter:
    branches = tuple(Branch(*path) for path in raw.paths)
    components = tuple(Component(str(part[0]), tuple(Branch(*path) for path in part[1:])) for part in raw.components)
    return Parameter(code, raw.type, parameter_key(owner, code), branches, tuple(raw.targets), components)


def load_definitions() -> Definitions:
    """About 10 ms."""
    text = files(__package__ or "").joinpath("r4.json").read_bytes()
    return Definitions(msgspec.json.decode(text, type=Extract))

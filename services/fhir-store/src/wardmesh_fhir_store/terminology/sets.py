"""A stored ValueSet as the codes that it holds: what it includes, less what it excludes."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

Codes = dict[str, frozenset[str]]  # code system → codes, in lower case unless its case tells them apart


class Filter(Struct):
    property: str = ""
    op: str = ""
    value: str = ""


class Enumerated(Struct):
    code: str = ""


class Portion(Struct, rename="camel"):
    """One include or exclude."""

    system: str = ""
    version: str = ""
    concept: list[Enumerated] = []
    filter: list[Filter] = []
    value_set: list[str | None] = []


class Compose(Struct, rename="camel"):
    include: list[Portion] = []
    exclude: list[Portion] = []
    inactive: bool = True
    locked_date: str = ""


class Contained(Struct):
    system: str = ""
    code: str = ""
    contains: list[Contained] = []


class Expansion(Struct):
    total: int = -1
    offset: int = 0
    contains: list[Contained] = []

    def flat(self) -> list[Contained]:
        """What has a code; the others are headings."""
        found: list[Contained] = []
        waiting = list(self.contains)
        while waiting:
            one = waiting.pop()
            waiting += one.contains
            if one.system and one.code:
                found.append(one)
        return found


class ValueSetBody(Struct):
    """The members of the resource that say which codes it has."""

    url: str = ""
    version: str = ""
    status: str = ""
    compose: Compose | None = None
    expansion: Expansion | None = None


def united(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> Codes:
    return {system: one.get(system, frozenset()) | other.get(system, frozenset()) for system in {*one, *other}}


def common(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> Codes:
    return {system: one[system] & other[system] for system in {*one} & {*other}}


def without(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> Codes:
    return {system: codes - other.get(system, frozenset()) for system, codes in one.items()}


def size(codes: Mapping[str, frozenset[str]]) -> int:
    return sum(len(each) for each in codes.values())

"""SMART scopes, v1 and v2, as pure functions: does this list of scopes cover this call? (FG-35, X-6)."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from msgspec import Struct

from wardmesh_auth.scope_needs import UNSTATED, Need, needs_of
from wardmesh_common.contracts import Call

# Letters only in the order c, r, u, d, s (SMART 2.2); v1 words instead of letters.
_SCOPE = re.compile(r"(patient|user|system)/([A-Z][A-Za-z]*|\*)\.(read|write|\*|c?r?u?d?s?)(?:\?(.+))?")
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


class SmartScope(Struct, frozen=True):
    """One scope taken apart; `constraints` are the `?category=laboratory` pairs of v2."""

    context: str
    type: str
    letters: frozenset[str]
    constraints: frozenset[tuple[str, str]]


@lru_cache(maxsize=4096)
def parse(scope: str) -> SmartScope | None:
    """None for anything that is not a well-formed SMART resource scope: such a word grants nothing."""
    found = _SCOPE.fullmatch(scope)
    if found is None or not found[3]:
        return None
    pairs = parse_qsl(found[4] or "", keep_blank_values=True)
    if found[4] and not pairs:
        return None
    return SmartScope(found[1], found[2], frozenset(_V1.get(found[3], found[3])), frozenset(pairs))


@lru_cache(maxsize=4096)
def parsed(scopes: tuple[str, ...]) -> tuple[SmartScope, ...]:
    return tuple(scope for scope in map(parse, scopes) if scope is not None)


def smart(scopes: tuple[str, ...]) -> bool:
    """True when at least one of them is a SMART resource scope."""
    return bool(parsed(scopes))


def granted(scopes: tuple[str, ...], call: Call) -> bool:
    """Is this call within what a platform granted? Entry by entry for a batch or transaction (PX-10).

    A constraint counts as kept and a patient context as held: the platform that granted them enforces both.
    """
    held = parsed(scopes)
    return all(_covers(held, need) for need in needs_of(call) if need.type != UNSTATED)


def everywhere(scopes: tuple[str, ...], call: Call) -> bool:
    """Do `user/` scopes without constraint cover the whole of this call, what its query leaves open included?"""
    held = tuple(scope for scope in parsed(scopes) if scope.context == "user" and not scope.constraints)
    return bool(held) and all(_covers(held, need) for need in needs_of(call))


def narrowed(scopes: tuple[str, ...], call: Call, patient: str) -> bool:
    """Is this call within the scopes of the caller's own token, which nobody after us enforces?

    A constrained scope counts only for a search that carries every pair of its constraint, a `patient/` scope only
    while the call names no other patient than the token's. What a query leaves open needs a right on every type.
    """
    held = parsed(scopes)
    return all(_covers(tuple(s for s in held if _kept(s, need, patient)), need) for need in needs_of(call))


def _covers(held: tuple[SmartScope, ...], need: Need) -> bool:
    wanted, missing = need.type or "*", set(need.letters)
    for scope in held:
        if scope.type in ("*", wanted):
            missing -= scope.letters
            if not missing:
                return True
    return not missing


def _kept(scope: SmartScope, need: Need, patient: str) -> bool:
    if scope.context == "patient" and (not patient or need.patient not in ("", patient)):
        return False
    if not scope.constraints:
        return True
    return need.search and scope.constraints <= set(parse_qsl(need.query, keep_blank_values=True))

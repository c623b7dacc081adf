"""Which kinds a query reaches into beyond the type it asks for: chains, _has, conditional criteria (PX-11, PX-12)."""

from __future__ import annotations

import json
from importlib import resources
from urllib.parse import unquote

from wardmesh_common.contracts import Call
from wardmesh_common.errors import Denied
from wardmesh_common.vocabulary import Interaction

# Free expressions over the whole store cannot be mapped to kinds.
UNMAPPABLE = frozenset({"_filter", "_query"})
ANY = "*"
CONDITIONAL_DENIED = "A conditional write needs the right to search this resource type."
CHAIN_DENIED = "The search reaches into a resource type that you may not read."


def _load() -> dict[str, dict[str, list[str]]]:
    text = (resources.files("wardmesh_fhir_proxy") / "data" / "reference_targets.json").read_text("utf-8")
    return json.loads(text)["targets"]


TARGETS = _load()


def kinds_reached(kind: str, query: str) -> set[str]:
    """Kinds whose content decides which resources match; raises Denied for what cannot be mapped."""
    reached: set[str] = set()
    for pair in query.split("&"):
        name = unquote(pair.partition("=")[0])
        if name.partition(":")[0] in UNMAPPABLE:
            raise Denied("This search expression cannot be checked against policy.")
        reached |= _named(kind, name)
    return reached


def _named(kind: str, name: str) -> set[str]:
    """By one parameter of `kind`: a chain may go on with _has, and what _has asks for may be a chain."""
    if name.startswith("_has:"):
        return _has(name)
    chain, goes_on, rest = name.partition("._has:")
    if goes_on:
        return _chain({kind}, f"{chain}._has") | _has(f"_has:{rest}")
    return _chain({kind}, name) if "." in name else set()


def _has(name: str) -> set[str]:
    """`_has:Observation:patient:code`, possibly nested or ending in a chain."""
    parts = name.split(":", 3)
    if len(parts) < 4:
        raise Denied("This search expression cannot be checked against policy.")
    return {parts[1]} | _named(parts[1], parts[3])


def _chain(kinds: set[str], name: str) -> set[str]:
    """`subject:Patient.general-practitioner.name` reaches Patient and then the targets of that."""
    reached: set[str] = set()
    for link in name.split(".")[:-1]:
        code, _, stated = link.partition(":")
        found = {stated} if stated else {t for kind in kinds for t in TARGETS.get(kind, {}).get(code, [ANY])}
        if not found or ANY in found:
            raise Denied("This chained search names no type; write it as parameter:Type.name.")
        reached |= found
        kinds = found
    return reached


def conditional(call: Call) -> bool:
    """True for a write whose effect depends on a search (PX-12)."""
    if "if-none-exist" in call.headers:
        return True
    writes = (Interaction.UPDATE, Interaction.PATCH, Interaction.DELETE)
    return call.interaction in writes and not call.resource.id

"""What Cerbos answered, in our words: allowed or not, by which rule, for what reason, with which obligations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from wardmesh_common.vocabulary import Mask, Obligations


class Verdict(Struct, frozen=True, kw_only=True):
    allowed: bool
    rule: str = ""
    reason: str = ""
    obligations: Obligations = Obligations()
    purpose: str = ""


class Given(Struct, frozen=True, forbid_unknown_fields=True):
    """One output of a rule (answers.yaml). An unknown member makes it unreadable, which is a refusal."""

    masks: str = ""
    compartment: str = ""
    reason: str = ""
    purpose: str = ""
    spool: bool = False


class Unreadable(Exception):
    """A rule gave out something that is not an obligation: nobody may guess what it meant."""


class Contradiction(Exception):
    """Parts of one call are limited to different patients: no answer can keep to both."""


_given = msgspec.json.Decoder(Given)
_ACTIONS = frozenset({"keep", "remove", "redact", "replace", "year"})


def verdict_of(allowed: bool, outputs: Sequence[tuple[str, str]], *, missing: str) -> Verdict:
    """`outputs` are (source, JSON text) of the rules that spoke. Raises Unreadable.

    An allow without any output is a refusal: every allowing rule says what it demands, even if that is nothing.
    """
    given = [(source, _read(text)) for source, text in outputs]
    reasons = [said.reason for _, said in given if said.reason]
    if not allowed:
        return Verdict(allowed=False, reason=reasons[0] if reasons else missing)
    demands = [(source, said) for source, said in given if not said.reason]
    if not demands:
        raise Unreadable
    # Of several rules that allow, one without a compartment suffices for the whole; masks add up.
    compartments = {said.compartment for _, said in demands}
    obligations = Obligations(
        masks=tuple(dict.fromkeys(mask for _, said in demands for mask in masks_of(said.masks))),
        compartment="" if "" in compartments else min(compartments),
        spool=all(said.spool for _, said in demands),
    )
    rule, purpose = rule_of(demands[0][0]), demands[0][1].purpose
    return Verdict(allowed=True, rule=rule, reason="allowed", obligations=obligations, purpose=purpose)


def _read(text: str) -> Given:
    try:
        said = _given.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise Unreadable from None
    if said.reason and (said.masks or said.compartment or said.purpose or said.spool):
        raise Unreadable  # a refusal and a demand at once
    return said


def rule_of(source: str) -> str:
    """`resource.Patient.vdefault#staff_reads` -> `Patient#staff_reads`."""
    policy, _, rule = source.partition("#")
    parts = policy.split(".")
    return f"{parts[1] if len(parts) > 1 else policy}#{rule}"


@lru_cache(maxsize=64)  # one text per set of roles
def masks_of(text: str) -> tuple[Mask, ...]:
    """Lines of masks.yaml: type, path ("." = the resource), action, value, and `if child=value`. Raises Unreadable."""
    return tuple(_mask(line) for line in text.splitlines() if line.strip())


def _mask(line: str) -> Mask:
    body, _, where = line.strip().partition(" if ")
    words = body.split(" ", 3)
    if len(words) < 3 or words[2] not in _ACTIONS or (words[2] in ("keep", "replace") and len(words) < 4):
        raise Unreadable
    return Mask(
        type=words[0],
        path="" if words[1] == "." else words[1],
        action=words[2],
        value=words[3] if len(words) > 3 else "",
        where=where,
    )


def joined(obligations: Iterable[Obligations], denied_entries: tuple[int, ...] = ()) -> Obligations:
    """All of them at once: masks add up, a compartment holds for everything. Raises Contradiction."""
    masks: dict[Mask, None] = {}
    compartments: set[str] = set()
    spool = True
    for each in obligations:
        spool = spool and each.spool
        masks.update(dict.fromkeys(each.masks))
        compartments.add(each.compartment)
    compartments.discard("")
    if len(compartments) > 1:
        raise Contradiction
    return Obligations(
        masks=tuple(masks),
        compartment=min(compartments, default=""),
        spool=spool and not denied_entries,
        denied_entries=denied_entries,
    )

"""Carry out what policy demands of an answer, resource by resource: kinds, compartment, masks; note whom it touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from wardmesh_common.contracts import Call, Touched
from wardmesh_common.errors import BadUpstream
from wardmesh_common.vocabulary import Obligations
from wardmesh_fhir_proxy import faults, json_exact
from wardmesh_fhir_proxy.compartment import BINARY, PATIENT_COMPARTMENT, SHARED, patients_of, peek
from wardmesh_fhir_proxy.contexts import Contexts
from wardmesh_fhir_proxy.kinds import FREE, KindChecks
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.masks import Masks, nested_resources
from wardmesh_fhir_proxy.relations import Relations

CONTAINERS = frozenset({"Bundle", "Parameters"})
_NO_LIMITS = ("", "")


class Tally:
    """What the record needs to know about an answer."""

    def __init__(self, call: Call) -> None:
        self._platform = call.platform
        self._relations = Relations(call)
        self._found: dict[tuple[int, str, str], list[str]] = {}
        self._related: dict[str, str] = {}
        self.masked = 0
        self.withheld = 0
        self.entry = 0  # of a batch or transaction, whose answer is looked at now

    def count(self, seen: Any, address: Address, resource: Raw | bytes, about: Any = None) -> None:
        """`about`: whose references tell the patients, where that is another resource than what is shown."""
        for patient in patients_of(about or seen, address) or ("",):
            self._found.setdefault((self.entry, patient, seen.resourceType), []).append(seen.id)
            if patient not in self._related and (shown := self._relations.to(patient, seen.resourceType, resource)):
                self._related[patient] = shown

    def touched(self) -> tuple[Touched, ...]:
        return tuple(
            Touched(
                patient=f"{self._platform}/Patient/{patient}" if patient else "",
                type=kind,
                ids=tuple(filter(None, ids)),
                count=len(ids),
                relationship=self._related.get(patient, ""),
                entry=entry,
            )
            for (entry, patient, kind), ids in self._found.items()
        )


class Screen:
    """Screens the resources of one answer. Call `learn` with everything first, then `pass_on` one by one."""

    def __init__(self, call: Call, checks: KindChecks, address: Address) -> None:
        self._call = call
        self._checks = checks
        self._address = address
        self._obligations = call.decision.obligations if call.decision else Obligations()
        self.tally = Tally(call)
        self.contexts = Contexts(checks, address)
        self.masks = Masks(self._obligations.masks)

    async def learn(self, seen: Iterable[Any], nested: Iterable[str] = ()) -> None:
        """Ask once about every foreign kind, contained ones included, and take over their masks."""
        kinds = set(nested)
        for item in seen:
            kinds.add(item.resourceType)
            if item.contained:
                kinds.update(c.resourceType for c in item.contained)
            if item.resourceType == BINARY:
                kinds.add(await self.contexts.learn(item))
        if not await self._checks.learn(kinds):
            return
        known = [mask for verdict in self._checks.masks_known() for mask in verdict.obligations.masks]
        if known:
            self.masks = Masks(dict.fromkeys((*self._obligations.masks, *known)))

    def allowed(self, seen: Any) -> bool:
        """May this resource leave at all?"""
        verdict = self._checks.decision(seen.resourceType)
        if verdict is None or (seen.resourceType == BINARY and not self.contexts.allow(seen, self.allowed)):
            return False
        limits = (self._obligations.compartment, verdict.obligations.compartment)
        return limits == _NO_LIMITS or all(self._inside(seen, patient) for patient in {*limits} - {""})

    def _inside(self, seen: Any, patient: str) -> bool:
        kind = seen.resourceType
        if kind in FREE or kind in SHARED:
            return True
        if kind == BINARY:
            return self.contexts.inside(seen, patient)
        return kind in PATIENT_COMPARTMENT and patient in patients_of(seen, self._address)

    def pass_on(self, seen: Any, resource: Raw | bytes) -> Raw | bytes | None:
        """The resource as it may leave: the same bytes, a masked copy, or None when it is withheld."""
        if not self.allowed(seen):
            self.tally.withheld += 1
            return None
        kind = seen.resourceType
        if kind == "OperationOutcome":
            return Raw(faults.clean_outcome(json_exact.decode(resource), (self._address.host,)))
        if kind not in FREE:
            self.note(seen, resource)
        if kind in CONTAINERS:
            return self._container(json_exact.decode(resource), resource)
        contained = [c.resourceType for c in seen.contained] if seen.contained else []
        denied = [each for each in contained if self._checks.decision(each) is None]
        if not denied and not self.masks.concern((kind, *contained)):
            return resource
        return self._changed(json_exact.decode(resource), resource, bool(denied))

    def note(self, seen: Any, resource: Raw | bytes) -> None:
        """For the record: this leaves."""
        about = self.contexts.about(seen) if seen.resourceType == BINARY else seen
        self.tally.count(seen, self._address, resource, about)

    def _changed(self, document: dict[str, Any], resource: Raw | bytes, denied: bool) -> Raw | bytes | None:
        if denied:
            document["contained"] = [
                c for c in document["contained"] if self._checks.decision(str(c.get("resourceType"))) is not None
            ]
            document.pop("text", None)
            document.pop("_text", None)
        if not self.masks.apply(document) and not denied:
            return resource
        self.tally.masked += 1
        return Raw(json_exact.encode(document))

    def _container(self, document: dict[str, Any], resource: Raw | bytes) -> Raw | bytes:
        """A Bundle or Parameters inside an answer: its resources are screened like entries of their own."""
        before = self.tally.withheld
        prune(document, self._permits)
        changed = self.tally.withheld > before
        if changed:
            document.pop("total", None)
        if self.masks.apply(document):
            self.tally.masked += 1
            changed = True
        return Raw(json_exact.encode(document)) if changed else resource

    def _permits(self, nested: dict[str, Any]) -> bool:
        resource = json_exact.encode(nested)
        seen = look(resource)
        if self.allowed(seen):
            if seen.resourceType not in FREE:
                self.note(seen, resource)
            return True
        self.tally.withheld += 1
        return False

    def fingerprint(self, seen: Any) -> str:
        """Names the masks that shaped this copy, for its ETag."""
        kinds = [seen.resourceType, *(c.resourceType for c in seen.contained)]
        marks = self.masks.fingerprint(kinds)
        denied = any(self._checks.decision(kind) is None for kind in kinds)
        return self.masks.fingerprint([*kinds, "*"]) or "0" * 16 if denied else marks


def look(resource: Raw | bytes) -> Any:
    """Peek with the error a caller may see."""
    try:
        return peek(resource)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise BadUpstream("The platform sent a resource that cannot be read.") from None


def nested_kinds(containers: Iterable[Any]) -> set[str]:
    """Types of all resources inside these Bundles and Parameters, at any depth."""
    found: set[str] = set()
    for container in containers:
        found |= _kinds_inside(json_exact.decode(container))
    return found


def _kinds_inside(document: Any) -> set[str]:
    found: set[str] = set()
    for nested in nested_resources(document):
        found.add(str(nested.get("resourceType")))
        found |= _kinds_inside(nested)
    return found


def prune(node: Any, permits: Callable[[dict[str, Any]], bool]) -> bool:
    """Remove nested resources that may not leave, with the entry that held them; False = this node must go."""
    if isinstance(node, list):
        node[:] = [item for item in node if not _refused(item, permits) and prune(item, permits)]
    elif isinstance(node, dict):
        for key in list(node):
            child = node[key]
            if _refused(child, permits):
                return False
            if isinstance(child, dict | list) and not prune(child, permits):
                del node[key]
    return True


def _refused(child: Any, permits: Callable[[dict[str, Any]], bool]) -> bool:
    return isinstance(child, dict) and "resourceType" in child and not permits(child)

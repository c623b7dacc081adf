"""No compartment holds a Binary: what its securityContext refers to stands in for it (R4 binary.html, ADR 36)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from wardmesh_fhir_proxy.compartment import BINARY, SHARED, context_of, patients_of
from wardmesh_fhir_proxy.kinds import FREE, KindChecks
from wardmesh_fhir_proxy.links import Address

Context = tuple[str, str]  # type and id; ("", "") is a context that names nothing at this platform
NOWHERE: Context = ("", "")
NAMES_ITSELF = SHARED | {"Patient", ""}
STANDS_IN_FOR_NOTHING = FREE | {BINARY}  # no policy of their own, or no compartment either
_plain = re.compile(r"[A-Z][A-Za-z]{0,63}/(?!\.+$)[A-Za-z0-9\-.]{1,64}")


class Contexts:
    """Of the Binaries in one answer. Only that of a single one is read; in a Bundle its type has to do."""

    def __init__(self, checks: KindChecks, address: Address) -> None:
        self._checks = checks
        self._address = address
        self._read: dict[Context, Any] = {}  # None: the platform does not show it

    def of(self, seen: Any) -> Context | None:
        context = context_of(seen, self._address)
        if context is None:
            return None
        fits = _plain.fullmatch("/".join(context)) and context[0] not in STANDS_IN_FOR_NOTHING
        return context if fits else NOWHERE

    async def learn(self, seen: Any) -> str:
        """The type that policy has to be asked about as well, "" for none."""
        if in_bulk(seen.contentType):
            await self._checks.learn_export()
        return (self.of(seen) or NOWHERE)[0]

    def wanted(self, seen: Any) -> Context | None:
        """What must be read to know whose this Binary is; None when its reference says it, or it is refused anyway."""
        context = self.of(seen)
        refused = context is None or context[0] in NAMES_ITSELF or self._checks.decision(context[0]) is None
        return None if refused else context

    def found(self, context: Context, seen: Any) -> None:
        self._read[context] = seen

    def allow(self, seen: Any, allowed: Callable[[Any], bool]) -> bool:
        """Who may not read what the context refers to may not read the Binary; a file of an export is for exporters."""
        if in_bulk(seen.contentType) and not self._checks.may_export:
            return False
        context = self.of(seen)
        if context is None:
            return True
        if context in self._read:
            return self._read[context] is not None and allowed(self._read[context])
        verdict = self._checks.decision(context[0]) if context != NOWHERE else None
        limit = verdict.obligations.compartment if verdict is not None else ""
        return verdict is not None and (not limit or self.inside(seen, limit))

    def inside(self, seen: Any, patient: str) -> bool:
        context = self.of(seen)
        return context is not None and (context[0] in SHARED or patient in patients_of(self.about(seen), self._address))

    def about(self, seen: Any) -> Any:
        """The resource whose references tell the patients: what stands in, where it was read."""
        read = self._read.get(self.of(seen) or NOWHERE) if seen.resourceType == BINARY else None
        return read or seen


def in_bulk(content_type: Any) -> bool:
    """NDJSON is what a bulk export writes: resources of whatever patients."""
    return isinstance(content_type, str) and "ndjson" in content_type.lower()

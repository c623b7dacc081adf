"""Reads a person's Coverage and Patient for one call, checks whose they are, notes them for the record."""

from __future__ import annotations

from wardmesh_common.contracts import Call, Touched
from wardmesh_common.errors import NotFound
from wardmesh_fhir_proxy.compartment import patient_id
from wardmesh_fhir_proxy.coverage_payer import Payer
from wardmesh_fhir_proxy.coverage_tree import Tree, child
from wardmesh_fhir_proxy.links import Address


class CoverageRecord:
    """Made for one call; `touched` is what the ledger has to know."""

    def __init__(self, call: Call, address: Address, payer: Payer) -> None:
        self._platform = call.platform
        self._coverage_id = call.resource.id
        self._limit = call.decision.obligations.compartment if call.decision else ""
        self._address = address
        self._payer = payer
        self._touched: list[Touched] = []

    @property
    def touched(self) -> tuple[Touched, ...]:
        return tuple(self._touched)

    async def coverage(self, patient: str = "") -> Tree:
        """One that belongs to somebody else looks like one that does not exist."""
        if self._limit and patient not in ("", self._limit):
            raise NotFound("Resource not found")
        found = await self._payer.resource("Coverage", self._coverage_id)
        owner = patient_id(child(found, "beneficiary").get("reference"), self._address)
        if not owner or patient not in ("", owner) or self._limit not in ("", owner):
            raise NotFound("Resource not found")
        self._note(owner, "Coverage", self._coverage_id)
        return found

    async def patient(self, identity: str) -> Tree:
        found = await self._payer.resource("Patient", identity)
        self._note(identity, "Patient", identity)
        return found

    def _note(self, patient: str, kind: str, identity: str) -> None:
        person = f"{self._platform}/Patient/{patient}"
        self._touched.append(Touched(patient=person, type=kind, ids=(identity,), count=1))

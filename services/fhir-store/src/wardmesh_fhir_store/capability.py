"""The CapabilityStatement, generated from the registries that route and search (ST-64)."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import msgspec

from wardmesh_fhir_store.definitions import Parameter
from wardmesh_fhir_store.searching import LARGEST_COUNT
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response
from wardmesh_fhir_store.writing import JSON_PATCH

INTERACTIONS = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
SYSTEM_INTERACTIONS = ("transaction", "batch", "search-system", "history-system")
EVERYTHING_DEFINITION = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
NATIVE = ({"name": "_id", "type": "token"}, {"name": "_lastUpdated", "type": "date"})
DATE = "2026-01-01"  # of this declaration, not of the answer: the statement is cached by its content


class Capability:
    """Made once; only the base URL differs between installations."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._body = msgspec.json.encode(self._statement())
        self._etag = f'W/"{hashlib.sha256(self._body).hexdigest()[:16]}"'

    def answer(self, request: Request) -> Response:
        headers = [("ETag", self._etag), ("Cache-Control", "max-age=300")]
        if request.headers.get("if-none-match") == self._etag:
            return Response(status=304, headers=headers)
        return Response(body=self._body, headers=headers)

    def _statement(self) -> dict[str, Any]:
        release = version("wardmesh-fhir-store")
        return {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": DATE,
            "kind": "instance",
            "software": {"name": "Wardmesh embedded FHIR store", "version": release},
            "implementation": {"description": "Wardmesh embedded store", "url": self._store.base},
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "json"],
            "patchFormat": [JSON_PATCH],
            "rest": [self._rest()],
        }

    def _rest(self) -> dict[str, Any]:
        definitions = self._store.definitions
        kinds = sorted(definitions.resource_types)
        referring: dict[str, list[str]] = {kind: [] for kind in kinds}
        for kind in kinds:
            for parameter in definitions.parameters[kind].values():
                for target in parameter.targets:
                    referring[target].append(f"{kind}:{parameter.code}")
        return {
            "mode": "server",
            "documentation": f"Pages hold at most {LARGEST_COUNT} matches. Everything that is written is validated "
            "structurally (elements, cardinality, types, formats, required codes, reference targets); invariants and "
            "profiles are not evaluated.",
            "resource": [self._resource(kind, referring[kind]) for kind in kinds],
            "interaction": [{"code": code} for code in SYSTEM_INTERACTIONS],
            "searchParam": [*NATIVE, *(_declared(p) for p in definitions.common.values())],
            "compartment": [
                f"http://hl7.org/fhir/CompartmentDefinition/{name.lower()}" for name in sorted(definitions.compartments)
            ],
        }

    def _resource(self, kind: str, referring: list[str]) -> dict[str, Any]:
        parameters = list(self._store.definitions.parameters[kind].values())
        resource: dict[str, Any] = {
            "type": kind,
            "interaction": [{"code": code} for code in INTERACTIONS],
            "versioning": "versioned",
            "readHistory": True,
            "updateCreate": True,
            "conditionalCreate": True,
            "conditionalRead": "full-support",
            "conditionalUpdate": True,
            "conditionalDelete": "single",
            "referencePolicy": ["literal", "logical", "local"],
            "searchParam": [*NATIVE, *(_declared(p) for p in parameters)],
        }
        includes = sorted(f"{kind}:{p.code}" for p in parameters if p.type == "reference")
        if includes:
            resource["searchInclude"] = ["*", *includes]
        if referring:
            resource["searchRevInclude"] = sorted(referring)
        if kind == "Patient":
            resource["operation"] = [{"name": "everything", "definition": EVERYTHING_DEFINITION}]
        return resource


def _declared(parameter: Parameter) -> dict[str, str]:
    return {"name": parameter.code, "type": parameter.type}

"""The CapabilityStatement, generated from the registries that route and search (ST-64)."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import msgspec

from wardmesh_fhir_store.definitions import Parameter
from wardmesh_fhir_store.operations import Operations
from wardmesh_fhir_store.searching import LARGEST_COUNT
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.terminology.expanding import MOST_CODES
from wardmesh_fhir_store.wire import Request, Response
from wardmesh_fhir_store.writing import FHIR_JSON, JSON_PATCH

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
NATIVE = (
    {"name": "_id", "type": "token"},
    {"name": "_lastUpdated", "type": "date"},
    {"name": "_list", "type": "token", "documentation": "Ids of stored Lists; no functional lists."},
)
WRITING = frozenset({"update", "patch", "delete", "create", "transaction"})
DATE = "2026-01-01"  # of this declaration, not of the answer: the statement is cached by its content


class Capability:
    """Made once; only the base URL differs between installations."""

    def __init__(self, store: Store, operations: Operations) -> None:
        self._store = store
        self._operations = operations.all
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
            "patchFormat": [JSON_PATCH, FHIR_JSON],
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
            "structurally (elements, cardinality, types, formats, required codes, reference targets); $validate also "
            "evaluates invariants and a subset of profiles and names what it did not. $everything is offered on "
            "instances. Tokens take :above, :below, :in and :not-in as far as stored CodeSystems and ValueSets tell, "
            f"up to {MOST_CODES} codes, and :in and :not-in of value sets with required codes; the rest is refused.",
            "resource": [self._resource(kind, referring[kind]) for kind in kinds],
            "interaction": self._interactions(SYSTEM_INTERACTIONS),
            "operation": self._declared_operations("system"),
            "searchParam": [*NATIVE, *(_declared(p) for p in definitions.common.values())],
            "compartment": [
                f"http://hl7.org/fhir/CompartmentDefinition/{name.lower()}" for name in sorted(definitions.compartments)
            ],
        }

    def _resource(self, kind: str, referring: list[str]) -> dict[str, Any]:
        parameters = list(self._store.definitions.parameters[kind].values())
        options = self._store.options
        policy = ["literal", "logical", "local", *(["enforced"] if options.referential_integrity else [])]
        resource: dict[str, Any] = {
            "type": kind,
            "interaction": self._interactions(INTERACTIONS),
            "versioning": "versioned-update" if options.versioned_update else "versioned",
            "readHistory": True,
            "updateCreate": not options.read_only,
            "conditionalCreate": not options.read_only,
            "conditionalRead": "full-support",
            "conditionalUpdate": not options.read_only,
            "conditionalDelete": "not-supported" if options.read_only else "single",
            "referencePolicy": policy,
            "searchParam": [*NATIVE, *(_declared(p) for p in parameters)],
        }
        includes = sorted(f"{kind}:{p.code}" for p in parameters if p.type == "reference")
        if includes:
            resource["searchInclude"] = ["*", *includes]
        if referring:
            resource["searchRevInclude"] = sorted(referring)
        resource["operation"] = self._declared_operations("type", kind)
        return resource

    def _interactions(self, codes: tuple[str, ...]) -> list[dict[str, str]]:
        readonly = self._store.options.read_only
        return [{"code": code} for code in codes if not (readonly and code in WRITING)]

    def _declared_operations(self, level: str, kind: str = "") -> list[dict[str, str]]:
        return [
            {"name": operation.name, "definition": operation.definition}
            for operation in self._operations
            if (level in operation.levels or (kind and "instance" in operation.levels))
            and (not operation.kinds or kind in operation.kinds)
            and not (operation.writes and self._store.options.read_only)
        ]


def _declared(parameter: Parameter) -> dict[str, str]:
    return {"name": parameter.code, "type": parameter.type}

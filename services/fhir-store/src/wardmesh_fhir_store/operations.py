"""The operations that the store offers: one registry that routes, checks levels and fills the CapabilityStatement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from wardmesh_fhir_store.coverage.packages import DEFINITION as PACKAGE
from wardmesh_fhir_store.coverage.packages import Packages
from wardmesh_fhir_store.everything import Everything
from wardmesh_fhir_store.faults import Fault, invalid, not_found
from wardmesh_fhir_store.jsontext import Tree, decode_object
from wardmesh_fhir_store.metas import Metas
from wardmesh_fhir_store.query import query_of
from wardmesh_fhir_store.references import ID
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.validating import Validating
from wardmesh_fhir_store.wire import Request, Response

DEFINITION = "http://hl7.org/fhir/OperationDefinition/"


class Target(Struct, frozen=True):
    """Where an operation was called: nothing, a type, an instance, or one version of it."""

    kind: str = ""
    id: str = ""
    version: str = ""

    @property
    def level(self) -> str:
        return "version" if self.version else "instance" if self.id else "type" if self.kind else "system"


Handler = Callable[[Request, Target], Awaitable[Response]]


class Operation(Struct, frozen=True):
    name: str
    definition: str
    levels: tuple[str, ...]
    handler: Handler
    kinds: tuple[str, ...] = ()  # empty: every type
    writes: bool = False
    by_get: bool = True


class Operations:
    """`all` is what the CapabilityStatement declares; `more` is what this installation offers beside the usual."""

    def __init__(self, store: Store, everything: Everything, more: tuple[Operation, ...]) -> None:
        self._store = store
        self._everything = everything
        metas, validating, packages = Metas(store), Validating(store), Packages(store)
        changes = ("instance", "version")
        self.all = (
            Operation("everything", DEFINITION + "Patient-everything", ("instance",), self._whole, ("Patient",)),
            Operation("everything", DEFINITION + "Encounter-everything", ("instance",), self._whole, ("Encounter",)),
            Operation("validate", DEFINITION + "Resource-validate", ("type", "instance"), self._call(validating)),
            Operation("questionnaire-package", PACKAGE, ("type",), _packer(packages), ("Questionnaire",), by_get=False),
            Operation("meta", DEFINITION + "Resource-meta", ("system", "type", *changes), metas_reader(metas)),
            Operation(
                "meta-add", DEFINITION + "Resource-meta-add", changes, _changer(metas, add=True), (), True, False
            ),
            Operation(
                "meta-delete", DEFINITION + "Resource-meta-delete", changes, _changer(metas, add=False), (), True, False
            ),
            *more,
        )

    async def handle(self, request: Request, parts: list[str]) -> Response:
        """`parts` end with the operation. Raises Fault."""
        target = self._target(parts[:-1])
        name = parts[-1].removeprefix("$")
        for operation in self.all:
            if operation.name != name or target.level not in operation.levels:
                continue
            if operation.kinds and target.kind not in operation.kinds:
                continue
            if request.method != "POST" and not (operation.by_get and request.method in ("GET", "HEAD")):
                allow = "GET, HEAD, POST" if operation.by_get else "POST"
                raise Fault(405, "not-supported", "The method is not offered here.", headers=(("Allow", allow),))
            if operation.writes:
                self._store.check_writable()
            return await operation.handler(request, target)
        raise not_found("There is no such operation here.")

    def _target(self, parts: list[str]) -> Target:
        if not parts:
            return Target()
        kind = self._store.check_type(parts[0])
        if len(parts) == 1:
            return Target(kind)
        version = parts[3] if len(parts) == 4 and parts[2] == "_history" else ""
        if not ID.fullmatch(parts[1]) or (len(parts) > 2 and not (version.isascii() and version.isdigit())):
            raise not_found("There is no such operation here.")
        return Target(kind, parts[1], version[:9])

    async def _whole(self, request: Request, target: Target) -> Response:
        if request.method == "POST":
            query = query_of([*primitive_pairs(request.body)])
            request = Request("GET", request.path, query, request.headers)
        return await self._store.database.read(
            lambda connection: self._everything.everything(connection, request, target.kind, target.id)
        )

    def _call(self, validating: Validating) -> Handler:
        async def handler(request: Request, target: Target) -> Response:
            return await validating.answer(request, target.kind, target.id)

        return handler


def _packer(packages: Packages) -> Handler:
    async def handler(request: Request, target: Target) -> Response:
        return await packages.answer(request)

    return handler


def metas_reader(metas: Metas) -> Handler:
    async def handler(request: Request, target: Target) -> Response:
        return await metas.read(target.kind, target.id, target.version)

    return handler


def _changer(metas: Metas, *, add: bool) -> Handler:
    async def handler(request: Request, target: Target) -> Response:
        return await metas.change(request.body, (target.kind, target.id), target.version, add=add)

    return handler


def primitive_pairs(body: bytes) -> list[tuple[str, str]]:
    """The parameters of an operation called by POST, as a query would have them."""
    if not body:
        return []
    tree = decode_object(body)
    if tree.get("resourceType") != "Parameters":
        raise invalid("An operation takes Parameters.")
    return [_pair(part) for part in parts_of(tree)]


def parts_of(tree: Tree) -> list[Tree]:
    parts: Any = tree.get("parameter", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise invalid("The Parameters do not have the shape of Parameters.", "Parameters.parameter")
    return parts


def _pair(part: Tree) -> tuple[str, str]:
    values = [value for name, value in part.items() if name.startswith("value")]
    if len(values) != 1 or isinstance(values[0], dict | list | bool):
        raise invalid("A parameter of the operation is not a simple value.", "Parameters.parameter")
    return str(part.get("name")), str(values[0])

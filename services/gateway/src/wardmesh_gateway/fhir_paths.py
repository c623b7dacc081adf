"""Which interaction a FHIR request is: method and path below /fhir/{platform} (R4 http.html), as plain data."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_common.errors import BadRequest, NotAllowed, NotFound
from wardmesh_common.vocabulary import EXPORT_STEPS, Interaction, is_write
from wardmesh_gateway.rules import check_id, check_operation, check_type


class Target(Struct, frozen=True, kw_only=True):
    """`form` marks a search whose parameters come in the body; `bundle` a batch or transaction, decided by its type."""

    tool: str
    interaction: Interaction
    type: str = ""
    id: str = ""
    version: str = ""
    operation: str = ""
    form: bool = False
    bundle: bool = False

    @property
    def writes(self) -> bool:
        return is_write(self.interaction, self.operation)


_I = Interaction
_tools = {
    _I.READ: "read",
    _I.VREAD: "read",
    _I.SEARCH: "search",
    _I.CREATE: "create",
    _I.UPDATE: "update",
    _I.PATCH: "patch",
    _I.DELETE: "delete",
    _I.HISTORY: "history",
    _I.OPERATION: "execute_operation",
    _I.CAPABILITIES: "get_capabilities",
    _I.BATCH: "batch",
    _I.TRANSACTION: "transaction",
}

_type_methods = {"GET": _I.SEARCH, "HEAD": _I.SEARCH, "POST": _I.CREATE}
_conditional_methods = {"PUT": _I.UPDATE, "PATCH": _I.PATCH, "DELETE": _I.DELETE}
_instance_methods = {
    "GET": _I.READ,
    "HEAD": _I.READ,
    "PUT": _I.UPDATE,
    "PATCH": _I.PATCH,
    "DELETE": _I.DELETE,
}
_reads = frozenset({"GET", "HEAD"})
_nowhere = "There is nothing at this address."


def target(
    interaction: Interaction,
    kind: str = "",
    resource_id: str = "",
    *,
    version: str = "",
    operation: str = "",
    form: bool = False,
    bundle: bool = False,
) -> Target:
    return Target(
        tool=_tools[interaction],
        interaction=interaction,
        type=kind,
        id=resource_id,
        version=version,
        operation=operation,
        form=form,
        bundle=bundle,
    )


def target_of(method: str, parts: list[str], *, has_query: bool) -> Target:
    """`parts` is the path below the platform. Raises BadRequest, NotFound, NotAllowed."""
    if not parts:
        return _system(method)
    if len(parts) == 1:
        return _one(method, parts[0], has_query=has_query)
    kind = check_type(parts[0])
    if len(parts) == 2:
        return _two(method, kind, parts[1])
    resource_id = check_id(parts[1])
    if len(parts) == 3:
        return _three(method, kind, resource_id, parts[2])
    if len(parts) == 4 and parts[2] == "_history":
        _need(method, _reads)
        return target(_I.VREAD, kind, resource_id, version=check_id(parts[3], "version_id"))
    raise NotFound(_nowhere)


def _system(method: str) -> Target:
    if method == "POST":
        return target(_I.BATCH, bundle=True)
    _need(method, _reads)
    return target(_I.SEARCH)


def _one(method: str, part: str, *, has_query: bool) -> Target:
    if part == "metadata":
        _need(method, _reads)
        return target(_I.CAPABILITIES)
    if part == "_history":
        _need(method, _reads)
        return target(_I.HISTORY)
    if part == "_search":
        _need(method, {"POST"})
        return target(_I.SEARCH, form=True)
    if part.startswith("$"):
        return _operation(method, part)
    kind = check_type(part)
    if method in _type_methods:
        return target(_type_methods[method], kind)
    _need(method, _conditional_methods.keys())
    if not has_query:
        # Without criteria this would mean every resource of the type.
        raise BadRequest("A conditional write needs search criteria.")
    return target(_conditional_methods[method], kind)


def _two(method: str, kind: str, part: str) -> Target:
    if part == "_search":
        _need(method, {"POST"})
        return target(_I.SEARCH, kind, form=True)
    if part == "_history":
        _need(method, _reads)
        return target(_I.HISTORY, kind)
    if part.startswith("$"):
        return _operation(method, part, kind)
    resource_id = check_id(part)
    _need(method, _instance_methods.keys())
    return target(_instance_methods[method], kind, resource_id)


def _three(method: str, kind: str, resource_id: str, part: str) -> Target:
    if part == "_history":
        _need(method, _reads)
        return target(_I.HISTORY, kind, resource_id)
    if part.startswith("$"):
        return _operation(method, part, kind, resource_id)
    # A compartment: Patient/1/Observation, or Patient/1/* for everything in it.
    _need(method, _reads)
    return target(_I.SEARCH, kind, resource_id, operation=part if part == "*" else check_type(part))


def _operation(method: str, name: str, kind: str = "", resource_id: str = "") -> Target:
    # No tool has the steps of an export: their answers come later, and by links.
    operation = name if name in EXPORT_STEPS else check_operation(name)
    if method != "POST":
        _need(method, _reads)
        if is_write(_I.OPERATION, operation):
            raise NotAllowed("This operation can change something: it is called with POST.")
    return target(_I.OPERATION, kind, resource_id, operation=operation)


def _need(method: str, allowed: object) -> None:
    if method not in allowed:  # type: ignore[operator]
        raise NotAllowed("This method is not offered here.")

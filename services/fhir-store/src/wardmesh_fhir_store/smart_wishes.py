"""Which SMART letters a request needs, read from its method, path and parameters alone."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_fhir_store.coverage.hooks import ROOT as HOOKS
from wardmesh_fhir_store.everything import EVERYTHING
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.query import pairs_of
from wardmesh_fhir_store.smart_scopes import ANY
from wardmesh_fhir_store.wire import Request

_FORM = "application/x-www-form-urlencoded"
_WRITES = {"PUT": "cu", "PATCH": "u", "DELETE": "d"}


class Wish(Struct, frozen=True, kw_only=True):
    """`past` reads earlier versions, `beyond` judges resources of other types by a chain."""

    letters: str
    kind: str
    id: str = ""
    search: bool = False
    past: bool = False
    beyond: bool = False
    includes: bool = False


def forbidden(diagnostics: str) -> Fault:
    return Fault(403, "forbidden", diagnostics)


def wish_of(request: Request) -> Wish:
    """Raises Fault for what this base does not offer. A Bundle is read entry by entry, not here."""
    parts = [part for part in request.path.split("/") if part]
    if parts[:1] == [HOOKS]:
        raise forbidden("This base offers no decision support.")
    if any(part.startswith("$") for part in parts):
        return _operation(request, parts)
    if parts[-1:] == ["_search"]:
        return _search(request, parts[0] if len(parts) > 1 else ANY)
    if request.method not in ("GET", "HEAD"):
        return _write(request, parts)
    if "_history" in parts:
        return _history(parts)
    if len(parts) == 2:
        return Wish(letters="r", kind=parts[0], id=parts[1])
    return _search(request, *_searched(parts))


def _searched(parts: list[str]) -> tuple[str, str]:
    """The type that is searched, and the record whose compartment it is searched in."""
    if len(parts) == 3:
        return parts[2], f"{parts[0]}/{parts[1]}"
    return (parts[0] if parts else ANY), ""


def _history(parts: list[str]) -> Wish:
    instance = len(parts) > 2
    return Wish(
        letters="r" if instance else "s",
        kind=parts[0] if len(parts) > 1 else ANY,
        id=parts[1] if instance else "",
        past=True,
    )


def form_of(request: Request) -> str:
    """The parameters of a search by POST, as a query string."""
    media = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if request.method != "POST" or media != _FORM:
        return ""
    return request.body.decode("ascii", "replace")


def _search(request: Request, kind: str, owner: str = "") -> Wish:
    names = [name for name, _ in (*pairs_of(request.query), *pairs_of(form_of(request)))]
    return Wish(
        letters="s",
        kind=kind,
        id=owner,
        search=True,
        beyond=any("." in name or name.startswith("_has") for name in names),
        includes=any(name.partition(":")[0] in ("_include", "_revinclude") for name in names),
    )


def _write(request: Request, parts: list[str]) -> Wish:
    kind = parts[0] if parts else ANY
    if request.method == "POST":
        return Wish(letters="cs" if "if-none-exist" in request.headers else "c", kind=kind)
    letters = _WRITES.get(request.method, "cruds")
    conditional = len(parts) < 2  # the criteria search, whatever is done with what they find
    chained = any("." in name or name.startswith("_has") for name, _ in pairs_of(request.query))
    return Wish(letters=letters + "s" * conditional, kind=kind, id="" if conditional else parts[1], beyond=chained)


def _operation(request: Request, parts: list[str]) -> Wish:
    everything = len(parts) == 3 and parts[0] == "Patient" and parts[2] == EVERYTHING
    if not everything or request.method not in ("GET", "HEAD"):
        raise forbidden("This base offers no operation but Patient/$everything.")
    return Wish(letters="rs", kind=ANY, id=parts[1])

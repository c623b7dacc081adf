"""Reads the entries of a batch or transaction as the requests they stand for."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wardmesh_fhir_store.faults import Fault, invalid
from wardmesh_fhir_store.jsontext import MALFORMED, decode_object
from wardmesh_fhir_store.references import ID
from wardmesh_fhir_store.wire import Request

MOST_ENTRIES = 20_000
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
WITH_RESOURCE = frozenset({"POST", "PUT", "PATCH"})


class InRequest(Struct, frozen=True, rename="camel"):
    method: str = ""
    url: str = ""
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_match: str | None = None
    if_none_exist: str | None = None


class InEntry(Struct, frozen=True, rename="camel"):
    full_url: str = ""
    resource: Raw | UnsetType = UNSET
    request: InRequest | None = None


class InBundle(Struct, frozen=True, rename="camel"):
    resource_type: str = ""
    type: str = ""
    entry: list[InEntry] = []


class EntryCall(Struct, frozen=True, kw_only=True):
    """One entry: `kind` and `id` from its URL, `criteria` its query."""

    index: int
    full_url: str
    method: str
    path: str
    kind: str
    id: str
    criteria: str
    body: bytes
    headers: dict[str, str]

    @property
    def place(self) -> str:
        return f"Bundle.entry[{self.index}]"

    def request(self) -> Request:
        return Request(method=self.method, path=self.path, query=self.criteria, headers=self.headers, body=self.body)


def read_bundle(body: bytes) -> InBundle:
    """Well-formed, no duplicate member anywhere, a Bundle by name; its resources stay raw."""
    if decode_object(body).get("resourceType") != "Bundle":
        raise invalid("The FHIR base takes a Bundle.")
    try:
        bundle = msgspec.json.decode(body, type=InBundle)
    except msgspec.ValidationError:
        raise invalid("The Bundle does not have the shape of a Bundle.") from None
    except (msgspec.MsgspecError, RecursionError):
        raise invalid(MALFORMED) from None
    if len(bundle.entry) > MOST_ENTRIES:
        raise Fault(413, "too-costly", "The Bundle has more entries than the store accepts.")
    return bundle


def call_of(index: int, entry: InEntry, base: str) -> EntryCall:
    """Raises a Fault located at the entry."""
    place = f"Bundle.entry[{index}]"
    request = entry.request
    if request is None or request.method not in METHODS or not request.url:
        raise invalid("An entry needs a request with method and url.", place)
    if request.method in WITH_RESOURCE and entry.resource is UNSET:
        raise invalid("An entry that writes needs a resource.", place)
    path, _, criteria = request.url.removeprefix(base).strip("/").partition("?")
    parts = path.strip("/").split("/")
    given = {
        "if-none-match": request.if_none_match,
        "if-modified-since": request.if_modified_since,
        "if-match": request.if_match,
        "if-none-exist": request.if_none_exist,
    }
    return EntryCall(
        index=index,
        full_url=entry.full_url,
        method=request.method,
        path=path.strip("/"),
        kind=parts[0],
        id=parts[1] if len(parts) > 1 else "",
        criteria=criteria,
        body=bytes(entry.resource) if isinstance(entry.resource, Raw) else b"",
        headers={"accept": "application/fhir+json"} | {name: v for name, v in given.items() if v is not None},
    )


def check_write(call: EntryCall) -> None:
    """The shapes that a transaction can carry out."""
    parts = call.path.split("/")
    if call.method == "POST":
        good = len(parts) == 1 and not call.criteria
    else:
        good = (len(parts) == 2 and bool(ID.fullmatch(call.id))) or (len(parts) == 1 and bool(call.criteria))
    if not good:
        raise invalid("The request of an entry is not one that a transaction offers.", call.place)

"""Vendors publish the endpoints of their customers as FHIR Bundles of Endpoint and Organization: read into rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_fhir_proxy.descriptor import callable_url
from wardmesh_fhir_proxy.directory_files import Organisation

FHIR_REST = "hl7-fhir-rest"


class BundleInvalid(Exception):
    """The file is not a Bundle of endpoints; the message says what was expected."""


class _Coding(Struct):
    code: str = ""


class _Reference(Struct):
    reference: str = ""
    display: str = ""


class _Address(Struct):
    city: str = ""
    state: str = ""
    postalCode: str = ""  # noqa: N815 - FHIR's name


class _Resource(Struct):
    resourceType: str = ""  # noqa: N815
    id: str = ""
    name: str = ""
    status: str = ""
    active: bool = True
    # A string in Endpoint, a list of addresses in Organization.
    address: str | list[_Address] = ""
    alias: list[str] = []
    connectionType: _Coding | list[dict[str, Any]] | None = None  # noqa: N815
    managingOrganization: _Reference | None = None  # noqa: N815
    endpoint: list[_Reference] = []
    partOf: _Reference | None = None  # noqa: N815
    contained: list[_Resource] = []


class _Entry(Struct):
    resource: _Resource | None = None
    fullUrl: str = ""  # noqa: N815


class _Bundle(Struct):
    resourceType: str  # noqa: N815
    entry: list[_Entry] = []


class Read(Struct, frozen=True):
    """The rows, and how many endpoints were left out: switched off, not REST, without a name or a callable address."""

    rows: list[Organisation]
    left_out: int


_bundles = msgspec.json.Decoder(_Bundle)


def read_bundle(data: bytes) -> Read:
    """One row per organisation and address. Endpoint -> managing organisation, or organisation -> endpoint."""
    try:
        bundle = _bundles.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BundleInvalid("a FHIR Bundle of Endpoint and Organization resources is expected") from error
    if bundle.resourceType != "Bundle":
        raise BundleInvalid("a FHIR Bundle of Endpoint and Organization resources is expected")
    known = _by_reference(bundle.entry)
    owners = _owners(bundle.entry)
    rows: dict[tuple[str, str], Organisation] = {}
    left_out = 0
    for entry in bundle.entry:
        endpoint = entry.resource
        if endpoint is None or endpoint.resourceType != "Endpoint":
            continue
        found = [row for owner in _managers(entry, endpoint, known, owners) if (row := _row(endpoint, owner))]
        rows.update({(row.base, row.name): row for row in found})
        left_out += not found
    return Read(sorted(rows.values(), key=lambda row: (row.name.lower(), row.base)), left_out)


def _by_reference(entries: Iterable[_Entry]) -> dict[str, _Resource]:
    known: dict[str, _Resource] = {}
    for entry in entries:
        if entry.resource is not None:
            known[f"{entry.resource.resourceType}/{entry.resource.id}"] = entry.resource
            if entry.fullUrl:
                known[entry.fullUrl] = entry.resource
    return known


def _owners(entries: Iterable[_Entry]) -> dict[str, list[_Resource]]:
    """Organisations that name the endpoint, by the reference they use."""
    owners: dict[str, list[_Resource]] = {}
    for entry in entries:
        if entry.resource is not None and entry.resource.resourceType == "Organization":
            for reference in entry.resource.endpoint:
                owners.setdefault(reference.reference, []).append(entry.resource)
    return owners


def _managers(
    entry: _Entry, endpoint: _Resource, known: dict[str, _Resource], owners: dict[str, list[_Resource]]
) -> list[_Resource]:
    naming = [*owners.get(f"Endpoint/{endpoint.id}", ()), *(owners.get(entry.fullUrl, ()) if entry.fullUrl else ())]
    if naming:
        return naming
    said = endpoint.managingOrganization or _Reference()
    inside = {f"#{each.id}": each for each in endpoint.contained}
    found = inside.get(said.reference) or known.get(said.reference)
    # Some lists name the organisation only in the endpoint itself.
    return [found or _Resource(resourceType="Organization", name=said.display or endpoint.name)]


def _row(endpoint: _Resource, owner: _Resource) -> Organisation | None:
    base = endpoint.address if isinstance(endpoint.address, str) else ""
    kinds = endpoint.connectionType
    code = kinds.code if isinstance(kinds, _Coding) else FHIR_REST
    name = (owner.name or endpoint.name).strip()
    if endpoint.status not in ("", "active") or not owner.active or code not in ("", FHIR_REST):
        return None
    if not name or not callable_url(base):
        return None
    place = owner.address[0] if isinstance(owner.address, list) and owner.address else _Address()
    aliases = tuple(dict.fromkeys(text for text in (*owner.alias, endpoint.name) if text and text != name))
    return Organisation(
        name=name,
        base=base.rstrip("/"),
        city=place.city.strip(),
        state=place.state.strip().upper() if len(place.state.strip()) == 2 else place.state.strip(),
        postal=place.postalCode.strip(),
        aliases=aliases,
    )

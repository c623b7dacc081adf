"""Bundles as files: transactions as they are, collections as writes of their entries."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from wardmesh_fhir_store.entries import EntryCall, InBundle, InEntry, InRequest, call_of, read_bundle
from wardmesh_fhir_store.faults import invalid
from wardmesh_fhir_store.jsontext import Peek
from wardmesh_fhir_store.store import Store


def calls_of(store: Store, body: bytes) -> list[EntryCall]:
    """What the Bundle asks to be written. Raises Fault."""
    return [call_of(index, entry, store.base) for index, entry in enumerate(_requests(read_bundle(body)))]


def _requests(bundle: InBundle) -> Sequence[InEntry]:
    if bundle.type == "transaction":
        return bundle.entry
    if bundle.type != "collection":
        raise invalid("Only transaction and collection Bundles can be loaded.", "Bundle.type")
    return [_as_write(entry) for entry in bundle.entry]


def _as_write(entry: InEntry) -> InEntry:
    """A collection entry with an id is stored under it, one without gets an id."""
    if not isinstance(entry.resource, Raw):
        raise invalid("An entry of a collection has no resource.")
    peek = msgspec.json.decode(entry.resource, type=Peek)
    request = InRequest("PUT", f"{peek.resource_type}/{peek.id}") if peek.id else InRequest("POST", peek.resource_type)
    return InEntry(entry.full_url, entry.resource, request)

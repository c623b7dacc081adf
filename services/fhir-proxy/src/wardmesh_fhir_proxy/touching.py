"""Whom a write is about, for the record: known before the platform answers, and when it answers with nothing."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from wardmesh_common.contracts import Call, Touched
from wardmesh_common.vocabulary import Interaction
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.compartment import patients_of, peek
from wardmesh_fhir_proxy.links import Address

BUNDLES = frozenset({Interaction.BATCH, Interaction.TRANSACTION})
BODIES = frozenset({Interaction.CREATE, Interaction.UPDATE})


def by_write(call: Call, body: bytes, address: Address) -> tuple[Touched, ...]:
    """One item per patient and type; patient "" when the request does not tell."""
    if call.interaction in BUNDLES:
        return _by_bundle(call, body, address)
    kind, ids = call.resource.type, (call.resource.id,) if call.resource.id else ()
    if not kind:
        return ()
    if kind == "Patient" and ids:
        return (Touched(patient=f"{call.platform}/Patient/{ids[0]}", type=kind, ids=ids, count=1),)
    patients = _patients(body, address) if call.interaction in BODIES and body else ()
    names = [f"{call.platform}/Patient/{patient}" for patient in patients] or [""]
    return tuple(Touched(patient=name, type=kind, ids=ids, count=1) for name in names)


def _patients(resource: bytes, address: Address) -> tuple[str, ...]:
    try:
        return patients_of(peek(resource), address)
    except msgspec.DecodeError:
        return ()


def _by_bundle(call: Call, body: bytes, address: Address) -> tuple[Touched, ...]:
    """Per entry, from the resource inside and from the address that it names."""
    found: list[Touched] = []
    entries = json_exact.members(body).get("entry")
    rows = zip(json_exact.raw_list(entries) if entries else (), call.entries, strict=False)
    for position, (raw, asked) in enumerate(rows):
        kind, _, rest = asked.url.partition("?")[0].partition("/")
        identity = rest.partition("/")[0]
        resource = json_exact.members(raw).get("resource")
        patients: Iterable[str] = _patients(bytes(resource), address) if resource is not None else ()
        if kind == "Patient" and identity and not identity.startswith(("$", "_")):
            patients = (identity,)
        found += [
            Touched(
                patient=f"{call.platform}/Patient/{patient}" if patient else "",
                type=kind,
                ids=(identity,) if identity else (),
                count=1,
                entry=position,
            )
            for patient in patients or ("",)
        ]
    return tuple(found)


def completed(answered: tuple[Touched, ...], asked: tuple[Touched, ...]) -> tuple[Touched, ...]:
    """What the answer shows; for entries of which it shows nothing, what the request said."""
    shown = {item.entry for item in answered}
    return (*answered, *(item for item in asked if item.entry not in shown))

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
    """From the resources inside and from the addresses the entries name."""
    found: dict[tuple[str, str], list[str]] = {}
    entries = json_exact.members(body).get("entry")
    for raw, asked in zip(json_exact.raw_list(entries) if entries else (), call.entries, strict=False):
        kind, _, rest = asked.url.partition("?")[0].partition("/")
        identity = rest.partition("/")[0]
        resource = json_exact.members(raw).get("resource")
        patients: Iterable[str] = _patients(bytes(resource), address) if resource is not None else ()
        if kind == "Patient" and identity and not identity.startswith(("$", "_")):
            patients = (identity,)
        for patient in patients or ("",):
            found.setdefault((patient, kind), []).append(identity)
    return tuple(
        Touched(
            patient=f"{call.platform}/Patient/{patient}" if patient else "",
            type=kind,
            ids=tuple(identity for identity in ids if identity),
            count=len(ids),
        )
        for (patient, kind), ids in found.items()
    )

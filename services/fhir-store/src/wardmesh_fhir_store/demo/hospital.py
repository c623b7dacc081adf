"""The whole demo data set: SH-1's numbers, in one order, from one seed."""

from __future__ import annotations

from datetime import datetime
from random import Random

from wardmesh_fhir_store.demo import words
from wardmesh_fhir_store.demo.care import Care
from wardmesh_fhir_store.demo.payer_forms import payer_forms
from wardmesh_fhir_store.demo.payer_rules import payer_rules
from wardmesh_fhir_store.demo.people import DEMO_DOCTOR, HOSPITAL, NAMED, Ids, Resource, patients, staff

SEED = 20_260_101
APPOINTMENTS, RECORDS, ADMISSIONS, SHIFTS, DOCTORS = 100, 80, 25, 50, 12


def demo_resources(today: datetime, patient_count: int) -> list[Resource]:
    """The same list for the same day; every reference inside it resolves inside it."""
    random = Random(SEED)  # noqa: S311 - repeatable on purpose
    taken = {identity for identity, *_ in NAMED} | {DEMO_DOCTOR, HOSPITAL} | {i for i, *_ in words.INSURERS}
    ids = Ids(random, taken)
    found = staff(random, ids, DOCTORS)
    doctors = [r["id"] for r in found if r["resourceType"] == "Practitioner"]
    people = patients(random, ids, doctors, patient_count)
    for patient, coverage in people:
        found += [patient, coverage]
    names = [patient["id"] for patient, _ in people]
    care = Care(random, ids, today, doctors)
    found += _visits(random, care, names, doctors)
    for name in names:
        short = name if len(name) < 30 else "SMITH"
        found += care.observations(name, short)
        if name in ("PT-12345", "FCE57") or random.random() < 0.4:
            found.append(care.allergy(name, short))
    found += [care.schedule(doctor) for doctor in doctors]
    found += [care.shift(doctors[number % len(doctors)]) for number in range(SHIFTS)]
    return [*found, *payer_forms(), *payer_rules()]


def _visits(random: Random, care: Care, names: list[str], doctors: list[str]) -> list[Resource]:
    """Every patient one past and, while they last, one future appointment; records beside the kept ones."""
    found: list[Resource] = []
    kept: list[tuple[str, Resource]] = []
    for number in range(APPOINTMENTS):
        name = names[number % len(names)]
        appointment = care.appointment(name, future=number >= len(names) or name == "PT-12345")
        found.append(appointment)
        if appointment["status"] == "fulfilled":
            kept.append((name, appointment))
    first = [("FCE57", None), ("PT-12345", None), ("DP100", None), (NAMED[3][0], None)]
    rest = [(random.choice(names), None) for _ in range(RECORDS)]
    for name, appointment in [*first, *kept, *rest][:RECORDS]:
        found += care.record(name, appointment)
    for medicine in words.MEDICINES[:2]:
        when = care.when(-60, -5)
        found.append(care.prescription(f"PT-12345-{medicine[0]}", "PT-12345", doctors[0], when, medicine))
    found += [care.admission(random.choice(names)) for _ in range(ADMISSIONS - 1)]
    return [*found, care.admission("FCE57")]

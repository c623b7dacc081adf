"""What happens to demo patients: appointments, visits with diagnosis and treatment, admissions, values, shifts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from wardmesh_fhir_store.demo import words
from wardmesh_fhir_store.demo.people import Ids, Resource, demo_meta

CONDITION = "http://terminology.hl7.org/CodeSystem/condition-"
ALLERGY = "http://terminology.hl7.org/CodeSystem/allergyintolerance-"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
PAST_STATES = ("fulfilled", "fulfilled", "fulfilled", "cancelled", "noshow")


class Care:
    """Makes resources around `today`; every draw comes from the given generator, in one order."""

    def __init__(self, random: Random, ids: Ids, today: datetime, doctors: list[str]) -> None:
        self._random = random
        self._ids = ids
        self._today = today
        self._doctors = doctors

    def when(self, first: int, last: int) -> datetime:
        """A working hour of a day between so many days from today."""
        day = self._today + timedelta(days=self._random.randint(first, last))
        return day.replace(hour=self._random.randint(8, 17), minute=self._random.choice((0, 30)))

    def appointment(self, patient: str, *, future: bool) -> Resource:
        start = self.when(1, 120) if future else self.when(-400, -2)
        doctor = self._random.choice(self._doctors)
        participants = [f"Patient/{patient}", f"Practitioner/{doctor}"]
        return {
            "resourceType": "Appointment",
            "id": self._ids.next(),
            "meta": demo_meta(),
            "status": "booked" if future else self._random.choice(PAST_STATES),
            "description": self._random.choice(words.NOTES),
            "start": stamp(start),
            "end": stamp(start + timedelta(minutes=30)),
            "minutesDuration": 30,
            "participant": [{"actor": {"reference": who}, "status": "accepted"} for who in participants],
        }

    def record(self, patient: str, appointment: Resource | None) -> list[Resource]:
        """One visit with its diagnosis and its treatment."""
        start = self.when(-700, -3)
        doctor = self._random.choice(self._doctors)
        if appointment is not None:
            start = datetime.fromisoformat(appointment["start"])
            doctor = appointment["participant"][1]["actor"]["reference"].split("/")[1]
        visit, code = self._ids.next(), self._random.randrange(len(words.DIAGNOSES))
        encounter = self._encounter(visit, patient, "AMB", start, start + timedelta(minutes=30))
        encounter["participant"] = [{"individual": {"reference": f"Practitioner/{doctor}"}}]
        encounter["diagnosis"] = [{"condition": {"reference": f"Condition/{visit}-dx"}}]
        if appointment is not None:
            encounter["appointment"] = [{"reference": f"Appointment/{appointment['id']}"}]
        return [
            encounter,
            self._condition(visit, patient, start, *words.DIAGNOSES[code]),
            self._treatment(visit, patient, doctor, start),
        ]

    def _encounter(self, identity: str, patient: str, kind: str, start: datetime, end: datetime) -> Resource:
        return {
            "resourceType": "Encounter",
            "id": identity,
            "meta": demo_meta(),
            "status": "finished",
            "class": {"system": ACT, "code": kind},
            "subject": {"reference": f"Patient/{patient}"},
            "period": {"start": stamp(start), "end": stamp(end)},
        }

    def _condition(self, visit: str, patient: str, start: datetime, code: str, name: str) -> Resource:
        return {
            "resourceType": "Condition",
            "id": f"{visit}-dx",
            "meta": demo_meta(),
            "clinicalStatus": coded(CONDITION + "clinical", "active"),
            "verificationStatus": coded(CONDITION + "ver-status", "confirmed"),
            "category": [coded(CONDITION + "category", "encounter-diagnosis")],
            "code": coded(words.ICD10, code, name),
            "subject": {"reference": f"Patient/{patient}"},
            "encounter": {"reference": f"Encounter/{visit}"},
            "recordedDate": stamp(start),
            "note": [{"text": self._random.choice(words.NOTES)}],
        }

    def _treatment(self, visit: str, patient: str, doctor: str, start: datetime) -> Resource:
        if self._random.random() < 0.4:
            return {
                "resourceType": "Procedure",
                "id": f"{visit}-tx",
                "meta": demo_meta(),
                "status": "completed",
                "code": {"text": self._random.choice(words.PROCEDURES)},
                "subject": {"reference": f"Patient/{patient}"},
                "encounter": {"reference": f"Encounter/{visit}"},
                "performedDateTime": stamp(start),
            }
        medicine = self._random.choice(words.MEDICINES)
        return self.prescription(f"{visit}-tx", patient, doctor, start, medicine) | {
            "encounter": {"reference": f"Encounter/{visit}"}
        }

    def prescription(
        self, identity: str, patient: str, doctor: str, start: datetime, medicine: tuple[str, str, str, str]
    ) -> Resource:
        code, name, dose, often = medicine
        return {
            "resourceType": "MedicationRequest",
            "id": identity,
            "meta": demo_meta(),
            "status": "active",
            "intent": "order",
            "medicationCodeableConcept": coded(words.RXNORM, code, name),
            "subject": {"reference": f"Patient/{patient}"},
            "authoredOn": stamp(start),
            "requester": {"reference": f"Practitioner/{doctor}"},
            "dosageInstruction": [{"text": f"{dose} {often}", "timing": {"code": {"text": often}}}],
        }

    def admission(self, patient: str) -> Resource:
        start = self.when(-500, -20)
        stay = self._encounter(
            self._ids.next(), patient, "IMP", start, start + timedelta(days=self._random.randint(1, 9))
        )
        stay["location"] = [{"location": {"reference": f"Location/ROOM{self._random.randint(101, 110)}"}}]
        return stay

    def allergy(self, patient: str, name: str) -> Resource:
        substance, category = self._random.choice(words.ALLERGIES)
        return {
            "resourceType": "AllergyIntolerance",
            "id": f"{name}-al",
            "meta": demo_meta(),
            "clinicalStatus": coded(ALLERGY + "clinical", "active"),
            "verificationStatus": coded(ALLERGY + "verification", "confirmed"),
            "category": [category],
            "code": {"text": substance},
            "patient": {"reference": f"Patient/{patient}"},
        }

    def observations(self, patient: str, name: str) -> list[Resource]:
        """Vital signs with blood pressure, and two laboratory values."""
        start = self.when(-300, -3)
        vitals = [self._value(patient, f"{name}-v{n}", start, "vital-signs", *v) for n, v in enumerate(words.VITALS)]
        labs = self._random.sample(words.LABS, 2)
        found = [self._value(patient, f"{name}-l{n}", start, "laboratory", *lab) for n, lab in enumerate(labs)]
        return [*vitals, *found, self._pressure(patient, f"{name}-bp", start)]

    def _value(
        self, patient: str, identity: str, start: datetime, category: str,
        code: str, name: str, unit: str, low: int, high: int, decimals: int,
    ) -> Resource:  # fmt: skip
        number = round(self._random.uniform(low + 0.5, high), decimals)
        value = number if decimals else int(number)
        return self._observation(patient, identity, start, category, coded(words.LOINC, code, name)) | {
            "valueQuantity": quantity(value, unit)
        }

    def _observation(self, patient: str, identity: str, start: datetime, category: str, code: Resource) -> Resource:
        return {
            "resourceType": "Observation",
            "id": identity,
            "meta": demo_meta(),
            "status": "final",
            "category": [coded(CATEGORY, category)],
            "code": code,
            "subject": {"reference": f"Patient/{patient}"},
            "effectiveDateTime": stamp(start),
        }

    def _pressure(self, patient: str, identity: str, start: datetime) -> Resource:
        panel = coded(words.LOINC, "85354-9", "Blood pressure panel with all children optional")
        parts = (("8480-6", "Systolic blood pressure", 105, 150), ("8462-4", "Diastolic blood pressure", 62, 95))
        return self._observation(patient, identity, start, "vital-signs", panel) | {
            "component": [
                {
                    "code": coded(words.LOINC, code, name),
                    "valueQuantity": quantity(self._random.randint(low, high), "mm[Hg]"),
                }
                for code, name, low, high in parts
            ]
        }

    def schedule(self, doctor: str) -> Resource:
        return {
            "resourceType": "Schedule",
            "id": f"{doctor}-sch",
            "meta": demo_meta(),
            "active": True,
            "actor": [{"reference": f"Practitioner/{doctor}"}],
        }

    def shift(self, doctor: str) -> Resource:
        start = self.when(-10, 20).replace(hour=self._random.choice((6, 14, 22)), minute=0)
        return {
            "resourceType": "Slot",
            "id": self._ids.next(),
            "meta": demo_meta(),
            "schedule": {"reference": f"Schedule/{doctor}-sch"},
            "status": "busy",
            "start": stamp(start),
            "end": stamp(start + timedelta(hours=8)),
        }


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def coded(system: str, code: str, text: str = "") -> Resource:
    coding = {"system": system, "code": code} | ({"display": text} if text else {})
    return {"coding": [coding]} | ({"text": text} if text else {})


def quantity(value: Any, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": words.UCUM, "code": unit}

"""Demo patients with full PHI and insurance, and the hospital's staff."""

from __future__ import annotations

from random import Random
from typing import Any

from wardmesh_fhir_store.demo import words

Resource = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
DEMO_DOCTOR = "DR100"
HOSPITAL = "HOSP1"
NAMED: tuple[tuple[str, str, str, str], ...] = (
    ("FCE57", "Frida", "Castle", "female"),
    ("DP100", "Dana", "Porter", "female"),
    ("PT-12345", "Peter", "Thornton", "male"),
    ("04c704c4-5d2d-4308-9c33-1690a6e47a6b", "John", "Smith", "male"),
)
SHORT_NAMED = 2  # the first two carry ids of the hospital's form and count as its patients


class Ids:
    """Five characters, `A-Z0-9` with at least one digit, each once."""

    def __init__(self, random: Random, taken: set[str]) -> None:
        self._random = random
        self._taken = taken

    def next(self) -> str:
        while True:
            text = "".join(self._random.choices(LETTERS + DIGITS, k=5))
            if any(c in DIGITS for c in text) and text not in self._taken:
                self._taken.add(text)
                return text


def demo_meta() -> Resource:
    return {"tag": [words.DEMO_TAG]}


def staff(random: Random, ids: Ids, count: int) -> list[Resource]:
    """The hospital, its insurers, rooms, practitioners and their departments."""
    found: list[Resource] = [
        {"resourceType": "Organization", "id": HOSPITAL, "meta": demo_meta(), "name": "Secure Hospital"}
    ]
    for identity, name, _ in words.INSURERS:
        found.append({"resourceType": "Organization", "id": identity, "meta": demo_meta(), "name": name})
    rooms = [(f"ROOM{room}", f"Room {room}") for room in range(101, 111)]
    found += [
        {"resourceType": "Location", "id": identity, "meta": demo_meta(), "status": "active", "name": name}
        for identity, name in rooms
    ]
    for number in range(count):
        identity = DEMO_DOCTOR if number == 0 else ids.next()
        gender = random.choice(("female", "male"))
        given = random.choice(words.FEMALE if gender == "female" else words.MALE)
        name = {"use": "official", "family": random.choice(words.FAMILIES), "given": [given], "prefix": ["Dr."]}
        found.append(
            {
                "resourceType": "Practitioner",
                "id": identity,
                "meta": demo_meta(),
                "active": True,
                "name": [name],
                "gender": gender,
                "telecom": [{"system": "email", "value": f"{identity.lower()}@hospital.example.org", "use": "work"}],
            }
        )
        found.append(
            {
                "resourceType": "PractitionerRole",
                "id": f"{identity}-role",
                "meta": demo_meta(),
                "active": True,
                "practitioner": {"reference": f"Practitioner/{identity}"},
                "organization": {"reference": f"Organization/{HOSPITAL}"},
                "specialty": [{"text": words.DEPARTMENTS[number % len(words.DEPARTMENTS)]}],
            }
        )
    return found


def patients(random: Random, ids: Ids, doctors: list[str], count: int) -> list[tuple[Resource, Resource]]:
    """`count` hospital patients, two of them named, and the two demo patients of other systems; with Coverage."""
    people = [*NAMED]
    for number in range(max(count - SHORT_NAMED, 0)):
        gender = ("female", "male")[number % 2]
        given = random.choice(words.FEMALE if gender == "female" else words.MALE)
        people.append((ids.next(), given, random.choice(words.FAMILIES), gender))
    return [
        (_patient(random, number, *person, doctors), _coverage(random, number, person[0]))
        for number, person in enumerate(people, start=1)
    ]


def _patient(
    random: Random, number: int, identity: str, given: str, family: str, gender: str, doctors: list[str]
) -> Resource:
    place = random.choice(words.CITIES)
    street = f"{random.randint(1, 299)} {random.choice(words.STREETS)}"
    phone = f"+1-202-555-{100 + number:04d}"
    telecom = [{"system": "phone", "value": phone, "use": "home"}]
    if identity != NAMED[3][0]:  # the patient of the example sequence has one telecom only
        mail = f"patient{number:03d}@example.org"
        telecom.append({"system": "email", "value": mail, "use": "home"})
    born = f"{random.randint(1938, 2015)}-{random.randint(1, 12):02d}-{random.randint(1, 28):02d}"
    contact_name = {"family": family, "given": [random.choice(words.FEMALE + words.MALE)]}
    return {
        "resourceType": "Patient",
        "id": identity,
        "meta": demo_meta(),
        "identifier": [
            _identifier("MR", "Medical record number", words.MRN, f"MRN{number:07d}"),
            _identifier(
                "SS",
                "Social Security number",
                words.SSN,
                f"9{random.randint(0, 99):02d}-{random.randint(10, 69)}-{number:04d}",
            ),
        ],
        "active": True,
        "name": [{"use": "official", "family": family, "given": [given]}],
        "telecom": telecom,
        "gender": gender,
        "birthDate": born,
        "address": [_address(street, *place)],
        "contact": [_emergency(contact_name, f"+1-202-555-{7000 + number:04d}")],
        "generalPractitioner": [{"reference": f"Practitioner/{random.choice(doctors)}"}],
        "managingOrganization": {"reference": f"Organization/{HOSPITAL}"},
    }


def _address(street: str, city: str, state: str, postal: str) -> Resource:
    where = {"city": city, "state": state, "postalCode": postal, "country": "US"}
    return {"use": "home", "line": [street], **where}


def _emergency(name: Resource, phone: str) -> Resource:
    coding = [{"system": "http://terminology.hl7.org/CodeSystem/v2-0131", "code": "C"}]
    return {
        "relationship": [{"coding": coding, "text": "Emergency contact"}],
        "name": name,
        "telecom": [{"system": "phone", "value": phone}],
    }


def _identifier(code: str, text: str, system: str, value: str) -> Resource:
    return {"type": {"coding": [{"system": words.V2, "code": code}], "text": text}, "system": system, "value": value}


def _coverage(random: Random, number: int, patient: str) -> Resource:
    payer, name, prefix = words.INSURERS[1] if patient == "FCE57" else random.choice(words.INSURERS)
    member = "BC-12345" if patient == "FCE57" else f"{prefix}-{20000 + number}"
    return {
        "resourceType": "Coverage",
        "id": f"{patient}-cov" if len(patient) < 30 else "SMITH-cov",
        "meta": demo_meta(),
        "status": "active",
        "subscriberId": member,
        "beneficiary": {"reference": f"Patient/{patient}"},
        "payor": [{"reference": f"Organization/{payer}", "display": name}],
    }

"""FHIRPath Patch: the official R4 cases, and our own for JSON's peculiarities."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from decimal import Decimal
from typing import Any

import pytest
from official_cases import patch_cases
from store_stage import Fhir, issue_of, observation, patient

from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.fhirpathpatch import FhirPathPatch

ELEMENTS = Elements(load_definitions())
PATCH = FhirPathPatch(ELEMENTS)
FHIR = "{http://hl7.org/fhir}"
NUMBERS = {"integer", "positiveInt", "unsignedInt"}


def from_xml(node: ET.Element, kind: str) -> Any:
    """FHIR XML as JSON, as far as the cases need it."""
    found: dict[str, Any] = {"url": node.attrib["url"]} if "url" in node.attrib else {}
    for child in node:
        name = child.tag.removeprefix(FHIR)
        if name.startswith("{"):
            found["div"] = plain(ET.tostring(child, encoding="unicode"))
            continue
        element = ELEMENTS.find(kind, name)
        assert element is not None, (kind, name)
        if name == "resource":
            inner = child[0].tag.removeprefix(FHIR)
            value: Any = {"resourceType": inner} | from_xml(child[0], inner)
        else:
            value = _primitive(child, element.kind) if "value" in child.attrib else from_xml(child, element.kind)
        beside = from_xml(child, "Element") if "value" in child.attrib and len(child) else None
        if element.many:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
        if beside:
            found[f"_{name}"] = beside if not element.many else [beside]
    return found


def plain(markup: str) -> str:
    """Indentation and the spelling of the name space say nothing."""
    return "".join(markup.split()).replace("<html:", "<").replace("</html:", "</").replace("xmlns:html", "xmlns")


def _primitive(node: ET.Element, kind: str) -> Any:
    text = node.attrib["value"]
    if text.startswith("<div"):
        return plain(text)
    return int(text) if kind in NUMBERS else text == "true" if kind == "boolean" else text


def resource_of(holder: ET.Element | None) -> dict[str, Any]:
    assert holder is not None
    kind = holder[0].tag.removeprefix(FHIR)
    return {"resourceType": kind} | from_xml(holder[0], kind)


@pytest.mark.requirement("ST-20")
@pytest.mark.timeout(300)  # the first run fetches them
def test_the_official_patch_cases_pass() -> None:
    passed = 0
    for case in ET.parse(patch_cases() / "fhir-path-tests.xml").getroot().iter("case"):
        before, parameters = resource_of(case.find("input")), resource_of(case.find("diff"))
        name = case.attrib["name"]
        if case.find("error") is not None:
            with pytest.raises(Fault) as refused:
                PATCH.patched(before, parameters)
            assert refused.value.status == 422, name
        else:
            assert PATCH.patched(before, parameters) == resource_of(case.find("output")), name
        passed += 1
    assert passed > 30


def operation(**parts: Any) -> dict[str, Any]:
    """`path`, `name` … by their names; `value` as a whole part."""
    words = {"type": "valueCode", "path": "valueString", "name": "valueString"}
    made = [
        {"name": name} | (value if name == "value" else {words.get(name, "valueInteger"): value})
        for name, value in parts.items()
    ]
    return {"name": "operation", "part": made}


def document(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(operations)}


@pytest.mark.requirement("ST-20")
@pytest.mark.parametrize(
    ("before", "steps", "after"),
    [
        (
            {"birthDate": "1920-01-01", "_birthDate": {"id": "x"}},
            [operation(type="replace", path="Patient.birthDate", value={"valueDate": "1930-01-01"})],
            {"birthDate": "1930-01-01"},
        ),
        (
            {"deceasedBoolean": True},
            [operation(type="replace", path="Patient.deceased", value={"valueDateTime": "2020-01-01"})],
            {"deceasedDateTime": "2020-01-01"},
        ),
        (
            {},
            [operation(type="add", path="Patient", name="deceased", value={"valueBoolean": False})],
            {"deceasedBoolean": False},
        ),
        (
            {"name": [{"given": ["a", "b"], "_given": [None, {"id": "b"}]}]},
            [operation(type="delete", path="Patient.name[0].given[0]")],
            {"name": [{"given": ["b"], "_given": [{"id": "b"}]}]},
        ),
        (
            {"name": [{"given": ["a", "b"], "_given": [None, {"id": "b"}]}]},
            [operation(type="move", path="Patient.name[0].given", source=1, destination=0)],
            {"name": [{"given": ["b", "a"], "_given": [{"id": "b"}, None]}]},
        ),
        (
            {"name": [{"given": ["a"]}]},
            [operation(type="insert", path="Patient.name[0].given", index=0, value={"valueString": "b"})],
            {"name": [{"given": ["b", "a"]}]},
        ),
        (
            {"identifier": [{"use": "old", "value": "1"}, {"use": "official", "value": "2"}]},
            [operation(type="delete", path="Patient.identifier.where(use = 'old' and value.exists())")],
            {"identifier": [{"use": "official", "value": "2"}]},
        ),
        (
            {"contact": [{"name": {"text": "x"}}]},
            [operation(type="delete", path="Patient.contact.first().name.text")],
            {},
        ),
        (
            {},
            [
                operation(
                    type="add",
                    path="Patient",
                    name="contact",
                    value={"part": [{"name": "gender", "valueCode": "male"}]},
                ),
                operation(type="delete", path="Patient.photo"),
            ],
            {"contact": [{"gender": "male"}]},
        ),
        (
            {"extension": [{"url": "urn:a", "valueInteger": 1}]},
            [operation(type="replace", path="Patient.extension('urn:a').value", value={"valueString": "two"})],
            {"extension": [{"url": "urn:a", "valueString": "two"}]},
        ),
    ],
)
def test_operations_change_json_as_fhir_means_it(
    before: dict[str, Any], steps: list[dict[str, Any]], after: dict[str, Any]
) -> None:
    kind = {"resourceType": "Patient"}
    assert PATCH.patched(kind | before, document(*steps)) == kind | after


BAD: list[tuple[int, Any]] = [
    (400, []),
    (400, {"resourceType": "Parameters", "parameter": [{"name": "other"}]}),
    (400, document(operation(type="grow", path="Patient"))),
    (400, document(operation(type="add", path="Patient", name="active"))),
    (400, document(operation(type="delete", path="Observation.status"))),
    (400, document(operation(type="delete", path="Patient..name"))),
    (400, document(operation(type="delete", path="Patient.name.where(((("))),
    (400, document(operation(type="delete", path="Patient.name.where(use ="))),
    (400, document(operation(type="delete", path="Patient.name.repeat(x)"))),
    (400, document(operation(type="delete", path="Patient.name.where(family.matches('(a+)+b'))"))),
    (400, document(operation(type="delete", path="Patient." + "a" * 600))),
    (422, document(operation(type="delete", path="Patient"))),
    (422, document(operation(type="delete", path="Patient.name"))),
    (422, document(operation(type="replace", path="Patient.name", value={"valueHumanName": {"text": "x"}}))),
    (422, document(operation(type="replace", path="Patient.active", value={"valueBoolean": True}))),
    (422, document(operation(type="add", path="Patient", name="colour", value={"valueString": "x"}))),
    (422, document(operation(type="insert", path="Patient.name", index=9, value={"valueHumanName": {}}))),
    (422, document(operation(type="move", path="Patient.name", source=0, destination=2))),
    (422, document(operation(type="add", path="Patient", name="active", value={"valueString": "yes"}))),
    (422, document(operation(type="replace", path="Patient.id", value={"valueId": "other"}))),
]


@pytest.mark.requirement("ST-20")
def test_a_patch_that_does_not_fit_changes_nothing(fhir: Fhir, mark: str) -> None:
    made = fhir.create(patient(mark, name=[{"family": mark}, {"family": "x"}]))
    path = f"Patient/{made['id']}"
    for status, body in BAD:
        answer = fhir.call("PATCH", path, body)
        assert answer.status_code == status, body
        issue_of(answer)
    assert fhir.get(path).json() == made


@pytest.mark.requirement("ST-21")
def test_a_fhirpath_patch_keeps_decimals_and_obeys_if_match(fhir: Fhir, mark: str) -> None:
    made = fhir.create(observation(valueQuantity={"value": 1, "unit": mark}, note=[{"text": "a"}]))
    path = f"Observation/{made['id']}"
    exact = fhir.put(path, fhir.get(path).content.replace(b'"value":1,', b'"value":1.50,'))
    assert exact.json()["meta"]["versionId"] == "2"
    body = document(operation(type="delete", path="Observation.note[0]"))
    assert fhir.call("PATCH", path, body, If_Match='W/"1"').status_code == 412
    done = fhir.call("PATCH", path, body, If_Match='W/"2"')
    assert (done.status_code, done.headers["etag"]) == (200, 'W/"3"')
    assert b'"value":1.50' in done.content
    assert "note" not in done.json()
    assert Decimal("1.50") == Decimal(str(done.json()["valueQuantity"]["value"]))


@pytest.mark.requirement("ST-15")
def test_a_fhirpath_patch_works_conditionally_and_in_a_transaction(fhir: Fhir, mark: str) -> None:
    made = fhir.create(patient(mark))
    body = document(operation(type="add", path="Patient", name="active", value={"valueBoolean": True}))
    assert fhir.call("PATCH", f"Patient?family={mark}", body).json()["active"] is True
    body = document(operation(type="replace", path="Patient.active", value={"valueBoolean": False}))
    entry = {"resource": body, "request": {"method": "PATCH", "url": f"Patient/{made['id']}"}}
    answer = fhir.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.status_code == 200, answer.text
    assert fhir.get(f"Patient/{made['id']}").json()["active"] is False

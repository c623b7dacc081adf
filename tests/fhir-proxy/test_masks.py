"""B-12, J4: a mask hides its element wherever the resource hides it, and every other digit stays."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wardmesh_common.vocabulary import Mask, Obligations
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.masks import Masks

pytestmark = pytest.mark.anyio

RAW = b"""{"resourceType":"Patient","id":"p1","text":{"status":"additional","div":"<div>SECRET</div>"},
"name":[{"family":"SECRET","given":["SECRET"],"_given":[{"id":"SECRET"}]}],"birthDate":"1970-05-17",
"_birthDate":{"extension":[{"url":"birthTime","valueDateTime":"1970-05-17T01:02:03Z"}]},
"telecom":[{"system":"phone","value":"SECRET"},{"system":"email","value":"kept"}],
"extension":[{"url":"x","valueDecimal":1.00},{"url":"y","valueDecimal":100000000000000000000.5}]}"""


def masked(raw: bytes, *masks: Mask) -> Any:
    document = json_exact.decode(raw)
    Masks(masks).apply(document)
    return document


def test_decimals_stay_exact_through_a_mask() -> None:
    document = json_exact.encode(masked(RAW, Mask(type="Patient", path="name")))
    assert b"1.00" in document and b"100000000000000000000.5" in document


@pytest.mark.parametrize(
    ("mask", "gone", "kept"),
    [
        (Mask(type="Patient", path="name"), '"name"', "birthDate"),
        (Mask(type="Patient", path="name.given"), '"given"', "family"),
        (Mask(type="Patient", path="name", action="redact"), '"family":"SECRET"', "family"),
        (Mask(type="Patient", path="telecom", where="system=phone"), "phone", "email"),
        (Mask(type="Patient", path="birthDate", action="year"), "1970-05", '"birthDate":"1970"'),
        (Mask(type="Patient", path="", action="keep", value="birthDate"), "telecom", "birthDate"),
        (Mask(type="Patient", path="name.family", action="replace", value="X"), '"family":"SECRET"', '"family":"X"'),
        (Mask(type="*", path="extension"), '"url":"x"', "email"),
        (Mask(type="Patient", path="", action="unheard-of"), "telecom", "resourceType"),
        (Mask(type="Patient", path="name", action="unheard-of"), '"name"', "email"),
    ],
)
def test_each_action_hides_and_keeps(mask: Mask, gone: str, kept: str) -> None:
    text = json_exact.encode(masked(RAW, mask)).decode()
    assert gone not in text
    assert kept in text
    assert "<div>" not in text, "narrative repeats the elements"


def test_the_year_of_a_birth_date_loses_its_extension_too() -> None:
    assert b"birthTime" not in json_exact.encode(masked(RAW, Mask(type="Patient", path="birthDate", action="year")))


def test_choice_elements_are_found_under_every_name() -> None:
    for name in ("valueQuantity", "valueString"):
        raw = msgspec.json.encode({"resourceType": "Observation", "id": "1", name: {"value": 1}, "valued": 1})
        document = masked(raw, Mask(type="Observation", path="value[x]"))
        assert name not in document and "valued" in document


async def test_b12_contained_nested_and_referring_copies_are_masked(bench: Any) -> None:
    hidden = Obligations(masks=(Mask(type="Patient", path="name"), Mask(type="Patient", path="telecom")))
    patient = {"resourceType": "Patient", "id": "c", "name": [{"family": "SECRET"}], "telecom": [{"value": "SECRET"}]}
    resource = {
        "resourceType": "Observation",
        "id": "o1",
        "text": {"status": "generated", "div": "<div>SECRET</div>"},
        "contained": [patient],
        "subject": {"reference": "Patient/p1", "display": "SECRET"},
        "focus": [{"type": "Patient", "display": "SECRET"}, {"reference": "#c", "display": "SECRET"}],
        "performer": [{"reference": "Practitioner/1", "display": "Dr. Kept"}],
    }
    bench.policy.kinds = {"Patient": hidden}
    bench.upstream.answer(resource, ETag='W/"1"')
    outcome = await bench.perform("read", "Observation", "o1")
    assert b"SECRET" not in outcome.body
    assert b"Dr. Kept" in outcome.body
    assert outcome.masked == 1
    assert outcome.headers["ETag"] != 'W/"1"'
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": resource}, {"resource": {**patient, "id": "p1"}}],
    }
    bench.upstream.answer(bundle)
    outcome = await bench.perform("search", "Observation")
    assert b"SECRET" not in outcome.body
    stored = {
        "resourceType": "Bundle",
        "id": "b1",
        "type": "document",
        "entry": [
            {"resource": {**patient, "contained": [patient]}},
            {"resource": {"resourceType": "Claim", "id": "x"}},
        ],
    }
    bench.upstream.answer(stored)
    outcome = await bench.perform("read", "Bundle", "b1")
    assert b"SECRET" not in outcome.body and b"Claim" not in outcome.body and b"Patient" in outcome.body


async def test_b12_a_contained_resource_of_a_denied_kind_goes(bench: Any) -> None:
    bench.upstream.answer(
        {
            "resourceType": "Observation",
            "id": "o1",
            "contained": [{"resourceType": "Patient", "id": "c", "name": [{"family": "SECRET"}]}],
        }
    )
    outcome = await bench.perform("read", "Observation", "o1")
    assert b"SECRET" not in outcome.body


@pytest.mark.parametrize(
    ("where", "system", "expected"),
    [
        ("system=ssn", "ssn", "***"),
        ("system=ssn", "mrn", "1"),
        ("system!=ssn", "mrn", "***"),
        ("system!=ssn", "ssn", "1"),
        ("system!=ssn", None, "***"),
    ],
)
def test_a_where_on_a_simple_element_looks_at_the_object_that_holds_it(
    where: str, system: str | None, expected: str
) -> None:
    item = {"value": "1"} if system is None else {"system": system, "value": "1"}
    patient = {"resourceType": "Patient", "identifier": [item]}
    Masks([Mask(type="Patient", path="identifier.value", action="replace", where=where, value="***")]).apply(patient)
    assert patient["identifier"][0]["value"] == expected

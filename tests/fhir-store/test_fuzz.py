"""Whatever is sent, the answer is a FHIR answer and never a crash."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_stage import Fhir, observation, patient

SETTINGS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
SAMPLES = (
    patient("Fuzz", telecom=[{"system": "phone", "value": "1"}], birthDate="2000-01-01", meta={"tag": [{"code": "x"}]}),
    observation("Patient/1", valueQuantity={"value": 1, "unit": "kg"}, effectivePeriod={"start": "2020"}),
    {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/1"}}]},
)
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"
CODES = (
    "name", "birthdate", "identifier", "general-practitioner", "_id", "_lastUpdated", "_sort", "_include",
    "_count", "organization.name", "_elements", "_summary", "_cursor", "gender:not", "_has:Observation:patient:code",
    "_list", "identifier:of-type", "identifier:text", "gender:in", "_type", "_total", "phone:missing",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += places(child, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good resource with one place replaced by anything."""
    resource = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    path = draw(st.sampled_from(places(resource)))
    if not path:
        return draw(JSON)
    target = resource
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = draw(JSON)
    return resource


def check(status: int, body: bytes, media: str | None) -> None:
    assert status < 500, body[:500]
    if status >= 400:
        assert media == "application/fhir+json; charset=utf-8"
        assert json.loads(body)["resourceType"] == "OperationOutcome"


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(body=mutated(), target=st.sampled_from(["Patient", "Observation", "", "Patient/fuzz"]))
def test_mutated_resources_never_crash_the_store(fhir: Fhir, body: Any, target: str) -> None:
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = fhir.call("PUT" if "/" in target else "POST", target, text)
    check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_store(fhir: Fhir, body: bytes) -> None:
    for method, path, kind in (
        ("POST", "Patient", "application/fhir+json"),
        ("POST", "", "application/fhir+json"),
        ("PATCH", "Patient/fuzz", "application/json-patch+json"),
        ("POST", "Patient/_search", "application/x-www-form-urlencoded"),
    ):
        answer = fhir.call(method, path, body, Content_Type=kind)
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(code=st.sampled_from(CODES) | st.text(max_size=12), value=st.text(max_size=24))
def test_arbitrary_parameters_never_crash_the_store(fhir: Fhir, code: str, value: str) -> None:
    query = f"{quote(code.encode('utf-8', 'surrogatepass'))}={quote(value.encode('utf-8', 'surrogatepass'))}"
    for path in (f"Patient?{query}", f"?{query}&_type=Patient", f"Patient/_history?{query}"):
        answer = fhir.get(path)
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(
    path=st.lists(
        st.sampled_from(["Patient", "a", "_history", "1", "$everything", "*", "_search", "..", "%2f", "é"]), max_size=5
    )
)
def test_arbitrary_paths_never_crash_the_store(fhir: Fhir, path: list[str]) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = fhir.call(method, "/".join(path))
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(
    operations=st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.text(max_size=8) | st.sampled_from(["", "/name", "/name/0", "/name/-", "/meta", "/id"]),
                "from": st.sampled_from(["/name", "", "/name/0/given"]),
                "value": JSON,
            }
        ),
        max_size=3,
    )
)
def test_arbitrary_patches_never_crash_the_store(fhir: Fhir, operations: list[Any]) -> None:
    fhir.put("Patient/fuzz-patch", patient("Fuzz") | {"id": "fuzz-patch"})
    body = json.dumps(operations).encode("utf-8", "surrogatepass")
    answer = fhir.call("PATCH", "Patient/fuzz-patch", body, Content_Type="application/json-patch+json")
    check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(value=st.text(max_size=16) | st.sampled_from(["a$b", "$", "a$1|b|c", "a$gt", "|$|", "a\\$b$c", "x$1e9999"]))
def test_arbitrary_composites_never_crash_the_store(fhir: Fhir, value: str) -> None:
    text = quote(value.encode("utf-8", "surrogatepass"))
    for code in ("code-value-quantity", "code-value-date", "code-value-string", "component-code-value-concept"):
        answer = fhir.get(f"Observation?{code}={text}")
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(body=mutated(), profile=st.sampled_from(["", "?profile=urn:x", "?mode=update", f"?profile={US_CORE}"]))
def test_mutated_resources_never_crash_an_operation(fhir: Fhir, body: Any, profile: str) -> None:
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    wrapped = json.dumps(
        {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": body}, body]}
    ).encode("utf-8", "surrogatepass")
    for path, given_body in (
        (f"Patient/$validate{profile}", text),
        (f"Observation/$validate{profile}", text),
        ("Patient/fuzz/$meta-add", wrapped),
        ("Patient/fuzz/$meta-delete", text),
        ("Patient/fuzz/$everything", wrapped),
    ):
        answer = fhir.post(path, given_body)
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


@pytest.mark.requirement("ST-65")
@SETTINGS
@given(
    kind=st.sampled_from(["add", "insert", "delete", "replace", "move"]),
    path=st.text(max_size=12)
    | st.sampled_from(
        ["Patient", "Patient.name", "Patient.name[0].given", "Patient.where(true)", "Patient.name.where(1)"]
    ),
    parts=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["name", "value", "index", "source", "destination"]),
                "valueString": JSON,
            }
        )
        | st.fixed_dictionaries({"name": st.just("value"), "part": JSON}),
        max_size=3,
    ),
)
def test_arbitrary_fhirpath_patches_never_crash_the_store(fhir: Fhir, kind: str, path: str, parts: list[Any]) -> None:
    fhir.put("Patient/fuzz-fhirpath", patient("Fuzz") | {"id": "fuzz-fhirpath"})
    first = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    body = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": first + parts}]}
    answer = fhir.call("PATCH", "Patient/fuzz-fhirpath", json.dumps(body).encode("utf-8", "surrogatepass"))
    check(answer.status_code, answer.content, answer.headers.get("content-type"))

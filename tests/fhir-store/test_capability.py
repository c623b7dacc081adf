"""The CapabilityStatement is true: what it declares is performed, type by type."""

from __future__ import annotations

from typing import Any

import pytest
from store_stage import Fhir, issue_of

from wardmesh_fhir_store.definitions import Definitions, load_definitions

VALUES = {
    "token": "urn:x|1",
    "string": "x",
    "date": "ge2020",
    "number": "gt1",
    "quantity": "gt1||kg",
    "reference": "Patient/x",
    "uri": "urn:x",
}
PRIMITIVES: dict[str, Any] = {
    "boolean": True,
    "integer": 1,
    "unsignedInt": 1,
    "positiveInt": 1,
    "decimal": 1.5,
    "date": "2020-01-01",
    "dateTime": "2020-01-01",
    "instant": "2020-01-01T00:00:00Z",
    "time": "10:00:00",
    "xhtml": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>',
    "base64Binary": "aGVsbG8=",
    "oid": "urn:oid:1.2.3",
    "uuid": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
}


def smallest(definitions: Definitions, kind: str) -> Any:
    """The least that the type demands."""
    if kind.startswith("code!"):
        return definitions.value_sets[kind.removeprefix("code!")].codes[0]
    if kind.startswith("Reference"):
        return {"display": "x"}
    if kind not in definitions.types and not kind.startswith("@"):
        return PRIMITIVES.get(kind, "x")
    if kind == "Resource":
        return {"resourceType": "Basic", "code": {"text": "x"}}
    made: dict[str, Any] = {}
    for name, word in definitions.types[kind.removeprefix("@")].items():
        if name == "$" or word.startswith("0"):
            continue
        cardinality, kinds = word.split(" ", 1)
        chosen = kinds.split("|")[0]
        spelled = name.removesuffix("[x]") + (
            chosen.split("(")[0][0].upper() + chosen.split("(")[0][1:] if "[x]" in name else ""
        )
        value = smallest(definitions, chosen)
        made[spelled] = value if ".1" in cardinality else [value]
    return made or {"id": "x"}


def value_of(definitions: Definitions, kind: str, code: str) -> str:
    """Something to search for; a composite takes one value for each of its parts."""
    if code == "_lastUpdated":
        return VALUES["date"]
    if code == "_list":
        return "x"
    parameter = definitions.parameters[kind][code]
    if parameter.type == "composite":
        return "$".join(value_of(definitions, kind, part.code) for part in parameter.components)
    return VALUES[parameter.type]


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load_definitions()


@pytest.fixture(scope="module")
def statement(fhir: Fhir) -> dict[str, Any]:
    answer = fhir.get("metadata")
    assert answer.status_code == 200
    assert fhir.get("metadata", If_None_Match=answer.headers["etag"]).status_code == 304
    return answer.json()


@pytest.mark.requirement("ST-64")
def test_the_statement_is_itself_valid_and_complete(fhir: Fhir, statement: dict[str, Any]) -> None:
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["implementation"]["url"] == fhir.base
    assert fhir.post("CapabilityStatement", statement).status_code == 201
    assert len(statement["rest"][0]["resource"]) == 146


@pytest.mark.requirement("ST-64")
def test_every_declared_interaction_works_for_every_type(
    fhir: Fhir, statement: dict[str, Any], definitions: Definitions
) -> None:
    for declared in statement["rest"][0]["resource"]:
        kind = declared["type"]
        body = {"resourceType": kind, **smallest(definitions, kind)}
        body.pop("id", None)
        created = fhir.post(kind, body)
        assert created.status_code == 201, (kind, created.text)
        path = f"{kind}/{created.json()['id']}"
        assert fhir.put(path, body | {"id": created.json()["id"]}).status_code == 200
        patch = '[{"op":"add","path":"/language","value":"en"}]'
        patched = fhir.call("PATCH", path, patch, Content_Type="application/json-patch+json")
        performed = {
            "create": 201,
            "update": 200,
            "patch": patched.status_code,
            "read": fhir.get(path).status_code,
            "vread": fhir.get(f"{path}/_history/1").status_code,
            "history-instance": fhir.get(f"{path}/_history?_count=1").status_code,
            "history-type": fhir.get(f"{kind}/_history?_count=1").status_code,
            "search-type": fhir.get(f"{kind}?_count=1").status_code,
            "delete": fhir.call("DELETE", path).status_code,
        }
        assert {i["code"] for i in declared["interaction"]} == performed.keys(), "nothing more, nothing less"
        assert set(performed.values()) <= {200, 201, 204}, (kind, performed)


@pytest.mark.requirement("ST-64")
def test_every_declared_parameter_and_include_is_accepted(
    fhir: Fhir, statement: dict[str, Any], definitions: Definitions
) -> None:
    for declared in statement["rest"][0]["resource"]:
        kind = declared["type"]
        for parameter in declared["searchParam"]:
            value = "x" if parameter["name"] == "_id" else value_of(definitions, kind, parameter["name"])
            path = f"{kind}?{parameter['name']}={value}&_count=1&_total=none"
            answer = fhir.get(path, Prefer="handling=strict")
            assert answer.status_code == 200, (path, answer.text)
        for direction, name in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
            values = declared.get(name, [])
            for start in range(0, len(values), 100):
                many = "&".join(f"{direction}={value}" for value in values[start : start + 100])
                assert fhir.get(f"{kind}?_count=1&{many}").status_code == 200, (kind, direction)


@pytest.mark.requirement("ST-64", "ST-56")
def test_what_is_not_declared_is_refused(fhir: Fhir, statement: dict[str, Any]) -> None:
    names = {p["name"] for r in statement["rest"][0]["resource"] for p in r["searchParam"]}
    for absent in ("_filter", "_query", "_contained", "_score", "_text", "_content", "near"):
        assert absent not in names
        kind = "Location" if absent == "near" else "Observation"
        refused = fhir.get(f"{kind}?{absent}=x", Prefer="handling=strict")
        assert refused.status_code == 400, absent
        issue_of(refused)
    for operation in ("$export", "$expand", "$document"):
        assert fhir.get(f"Patient/{operation}").status_code == 404
        assert fhir.post(f"Patient/x/{operation}", {}).status_code == 404
    missing = fhir.get(".well-known/smart-configuration")
    assert missing.status_code == 404
    issue_of(missing)


@pytest.mark.requirement("ST-64")
def test_every_declared_operation_is_performed_and_no_other_level_answers(
    fhir: Fhir, statement: dict[str, Any], definitions: Definitions
) -> None:
    rest = statement["rest"][0]
    assert {o["name"] for o in rest["operation"]} == {"meta"}
    assert fhir.get("$meta").status_code == 200
    for declared in rest["resource"]:
        kind = declared["type"]
        names = {operation["name"] for operation in declared["operation"]}
        own = {"Patient": "everything", "Encounter": "everything", "Questionnaire": "questionnaire-package"}
        assert names == {"validate", "meta", "meta-add", "meta-delete", own.get(kind, "meta")}
    package = {
        "resourceType": "Parameters",
        "parameter": [{"name": "coverage", "resource": {"resourceType": "Coverage"}}],
    }
    assert fhir.post("Questionnaire/$questionnaire-package", package).status_code == 200
    assert fhir.post("Questionnaire/x/$questionnaire-package", package).status_code == 404
    meta = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"profile": ["urn:x"]}}]}
    for kind in ("Patient", "Encounter", "Basic"):
        made = fhir.create({"resourceType": kind} | smallest(definitions, kind))
        path = f"{kind}/{made['id']}"
        assert fhir.post(f"{kind}/$validate", made).status_code == 200
        for operation in ("validate", "meta", *(["everything"] if kind != "Basic" else [])):
            assert fhir.get(f"{path}/${operation}").status_code == 200, (kind, operation)
        for operation in ("meta-add", "meta-delete"):
            assert fhir.post(f"{path}/${operation}", meta).status_code == 200
            assert fhir.post(f"{kind}/${operation}", meta).status_code == 404
    assert fhir.get("Basic/x/$everything").status_code == 404

"""JSON Patch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from official_cases import patch_cases
from store_stage import Fhir, issue_of, patient

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jsonpatch import patched

KIND = "application/json-patch+json"
EXACT = '{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.00}}'


def patch(fhir: Fhir, path: str, operations: Any, **headers: str) -> Any:
    body = operations if isinstance(operations, str) else json.dumps(operations)
    return fhir.call("PATCH", path, body, Content_Type=KIND, **headers)


@pytest.mark.requirement("ST-19")
@pytest.mark.timeout(300)  # the first run fetches them
def test_the_official_cases_pass() -> None:
    cases = json.loads((patch_cases() / "json-patch-tests.json").read_text())
    for case in cases:
        before = json.dumps(case["doc"])
        if "error" in case:
            with pytest.raises(Fault) as refused:
                patched(case["doc"], case["patch"])
            assert refused.value.status in (400, 422), case["comment"]
        else:
            assert patched(case["doc"], case["patch"]) == case["expected"], case["comment"]
        assert json.dumps(case["doc"]) == before, "the original stays as it was"
    assert len(cases) == 16


@pytest.mark.requirement("ST-19")
def test_every_operation_of_json_patch_applies(fhir: Fhir) -> None:
    path = f"Patient/{fhir.create(patient('Patch', telecom=[{'value': '1'}, {'value': '2'}]))['id']}"
    operations = [
        {"op": "test", "path": "/name/0/family", "value": "Patch"},
        {"op": "add", "path": "/active", "value": True},
        {"op": "add", "path": "/telecom/-", "value": {"value": "3"}},
        {"op": "add", "path": "/telecom/0", "value": {"value": "0"}},
        {"op": "replace", "path": "/telecom/1/value", "value": "one"},
        {"op": "remove", "path": "/telecom/2"},
        {"op": "copy", "from": "/telecom/1", "path": "/telecom/-"},
        {"op": "move", "from": "/name/0/given", "path": "/name/0/suffix"},
    ]
    answer = patch(fhir, path, operations)
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert [t["value"] for t in changed["telecom"]] == ["0", "one", "3", "one"]
    assert changed["name"] == [{"family": "Patch", "suffix": ["Test"]}]
    assert changed["meta"]["versionId"] == "2"


@pytest.mark.requirement("ST-19")
@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ("{}", 400),
        ("[1]", 400),
        ("nonsense", 400),
        ([{"op": "sing", "path": "/active"}], 400),
        ([{"op": "add", "path": "/active"}], 400),
        ([{"op": "add", "path": "active", "value": True}], 400),
        ([{"op": "move", "path": "/active"}], 400),
        ([{"op": "remove", "path": "/photo"}], 422),
        ([{"op": "replace", "path": "/name/7/family", "value": "x"}], 422),
        ([{"op": "test", "path": "/name/0/family", "value": "Other"}], 422),
        ([{"op": "add", "path": "/active", "value": "not a boolean"}], 422),
        ([{"op": "move", "from": "/name", "path": "/name/0"}], 422),
    ],
)
def test_a_patch_that_does_not_fit_changes_nothing(fhir: Fhir, operations: Any, status: int) -> None:
    path = f"Patient/{fhir.create(patient('Patch'))['id']}"
    if isinstance(operations, list) and status == 422:
        operations = [{"op": "add", "path": "/birthDate", "value": "2000-01-01"}, *operations]
    refused = patch(fhir, path, operations)
    assert refused.status_code == status, refused.text
    issue_of(refused)
    after = fhir.get(path).json()
    assert after["meta"]["versionId"] == "1"
    assert "birthDate" not in after


def test_a_patch_cannot_change_identity_or_server_owned_meta(fhir: Fhir) -> None:
    path = f"Patient/{fhir.create(patient('Own'))['id']}"
    for operation in (
        {"op": "replace", "path": "/id", "value": "other"},
        {"op": "replace", "path": "/resourceType", "value": "Person"},
        {"op": "remove", "path": "/id"},
        {"op": "replace", "path": "", "value": []},
    ):
        assert patch(fhir, path, [operation]).status_code == 422
    answer = patch(fhir, path, [{"op": "replace", "path": "/meta/versionId", "value": "99"}])
    assert answer.json()["meta"]["versionId"] == "2"


def test_decimals_survive_a_patch_and_missing_resources_are_told_apart(fhir: Fhir) -> None:
    path = f"Observation/{fhir.call('POST', 'Observation', EXACT).json()['id']}"
    same = [{"op": "test", "path": "/valueQuantity/value", "value": 1}]
    operations = [*same, {"op": "add", "path": "/valueQuantity/unit", "value": "kg"}]
    assert '"value":1.00' in patch(fhir, path, operations).text
    assert patch(fhir, "Patient/never-there", operations).status_code == 404
    fhir.call("DELETE", path)
    assert patch(fhir, path, operations).status_code == 410
    unsupported = fhir.call("PATCH", path, "[]", Content_Type="application/merge-patch+json")
    assert unsupported.status_code == 415
    assert unsupported.headers["accept-patch"] == f"{KIND}, application/fhir+json"

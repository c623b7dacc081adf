"""The store as a payer: CDS Hooks discovery, answers to orders by rules kept in it, questionnaire packages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from store_stage import Fhir

from wardmesh_fhir_store.coverage.catalogue import INFORMATION
from wardmesh_fhir_store.demo.payer_forms import CPAP_FORM, MRI_FORM, REASONS, payer_forms
from wardmesh_fhir_store.demo.payer_rules import CPT, HCPCS, payer_rules
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.smart_wishes import wish_of
from wardmesh_fhir_store.wire import Request

SERVICE = "cds-services/coverage-requirements"
PACKAGE = "Questionnaire/$questionnaire-package"
AETNA: dict[str, Any] = {
    "resourceType": "Coverage",
    "id": "cov",
    "status": "active",
    "beneficiary": {"reference": "Patient/p"},
    "payor": [{"reference": "Organization/AETNA"}],
}
CIGNA = AETNA | {"payor": [{"reference": "Organization/CIGN1"}]}


@pytest.fixture(scope="module")
def payer(fhir: Fhir) -> Iterator[Fhir]:
    for resource in (*payer_forms(), *payer_rules()):
        stored = fhir.call("PUT", f"{resource['resourceType']}/{resource['id']}", resource)
        assert stored.status_code in (200, 201), stored.text
    yield fhir
    for resource in (*payer_rules(), *payer_forms()):
        fhir.call("DELETE", f"{resource['resourceType']}/{resource['id']}")


def order(code: str, system: str = CPT, coverage: Any = AETNA, **more: Any) -> dict[str, Any]:
    request = {
        "resourceType": "ServiceRequest",
        "id": "draft",
        "status": "draft",
        "intent": "order",
        "code": {"coding": [{"system": system, "code": code}]},
        "subject": {"reference": "Patient/p"},
    }
    orders = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": request}]}
    return {
        "hook": "order-sign",
        "hookInstance": "6d7f",
        "context": {"userId": "PractitionerRole/x", "patientId": "p", "draftOrders": orders},
        "prefetch": {"coverage": coverage},
        **more,
    }


def said(answer: dict[str, Any]) -> dict[str, list[Any]]:
    """The coverage information of the one order that came back, by sub-extension."""
    (action,) = answer["systemActions"]
    (information,) = (each for each in action["resource"]["extension"] if each["url"] == INFORMATION)
    found: dict[str, list[Any]] = {}
    for each in information["extension"]:
        found.setdefault(each["url"], []).append(next(v for k, v in each.items() if k.startswith("value")))
    return found


def test_discovery_names_one_service_for_signed_orders(payer: Fhir) -> None:
    answer = payer.get("cds-services", Accept="application/json")
    assert answer.headers["content-type"] == "application/json"
    (service,) = answer.json()["services"]
    assert (service["hook"], service["id"]) == ("order-sign", "coverage-requirements")
    assert set(service["prefetch"]) == {"coverage"}
    assert payer.call("POST", "cds-services", {}).status_code == 405
    assert payer.call("POST", "cds-services/other", order("70551")).status_code == 404
    assert payer.get(SERVICE).status_code == 405


@pytest.mark.parametrize(
    ("code", "system", "needed"),
    [
        ("70551", CPT, "auth-needed"),
        ("99213", CPT, "no-auth"),
        ("97110", CPT, "conditional"),
        ("E0601", HCPCS[0], "auth-needed"),
        ("E0601", HCPCS[1], "auth-needed"),
    ],
)
def test_an_order_comes_back_with_what_its_rule_says(payer: Fhir, code: str, system: str, needed: str) -> None:
    answer = payer.call("POST", SERVICE, order(code, system)).json()
    found = said(answer)
    assert found["pa-needed"] == [needed]
    assert found["coverage"] == [{"reference": "Coverage/cov"}]
    assert found["billingCode"] == [{"system": system, "code": code}]
    assert answer["cards"][0]["summary"]
    if code == "97110":
        assert found["info-needed"] == ["timeframe", "performer"]
    if code == "70551":
        assert found["questionnaire"] == [MRI_FORM]


def test_a_code_without_a_rule_is_not_judged(payer: Fhir) -> None:
    for asked in (order("12345"), order("70551", "http://example.org/other"), order("70551,99213"), order("a|b\\")):
        answer = payer.call("POST", SERVICE, asked)
        assert answer.status_code == 200, answer.text
        assert "systemActions" not in answer.json()


def test_the_rule_of_the_coverages_own_payer_comes_first(payer: Fhir) -> None:
    assert said(payer.call("POST", SERVICE, order("97110", coverage=CIGNA)).json())["pa-needed"] == ["auth-needed"]
    assert said(payer.call("POST", SERVICE, order("97110", coverage=AETNA)).json())["pa-needed"] == ["conditional"]


def test_an_operator_changes_a_rule_by_writing_a_resource(payer: Fhir) -> None:
    rule = payer.get("PlanDefinition/pa-99213").json()
    retired = payer.call("PUT", "PlanDefinition/pa-99213", rule | {"status": "retired"})
    assert retired.status_code == 200
    assert "systemActions" not in payer.call("POST", SERVICE, order("99213")).json()
    later = rule | {"effectivePeriod": {"start": "2999-01-01"}}
    payer.call("PUT", "PlanDefinition/pa-99213", later)
    assert "systemActions" not in payer.call("POST", SERVICE, order("99213")).json()
    payer.call("PUT", "PlanDefinition/pa-99213", rule)
    assert said(payer.call("POST", SERVICE, order("99213")).json())["pa-needed"] == ["no-auth"]


def test_without_an_active_coverage_nothing_is_said(payer: Fhir) -> None:
    assert payer.call("POST", SERVICE, order("70551", coverage={})).status_code == 412
    ended = payer.call("POST", SERVICE, order("70551", coverage=AETNA | {"status": "cancelled"})).json()
    assert "systemActions" not in ended
    searchset = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": AETNA}]}
    assert said(payer.call("POST", SERVICE, order("70551", coverage=searchset)).json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "{",
        order("70551", hook="order-dispatch"),
        order("70551", hookInstance=None),
        order("70551", context={"draftOrders": {"entry": 3}}),
        order("70551", context=[]),
    ],
)
def test_a_request_that_is_none_is_refused(payer: Fhir, body: Any) -> None:
    answer = payer.call("POST", SERVICE, body)
    assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")


def packages(answer: dict[str, Any]) -> list[list[tuple[str, str]]]:
    bundles = [part["resource"] for part in answer["parameter"] if part["name"] == "PackageBundle"]
    return [[(e["resource"]["resourceType"], e["resource"]["url"]) for e in bundle["entry"]] for bundle in bundles]


def ask(*questionnaires: str, coverage: Any = AETNA) -> dict[str, Any]:
    named = [{"name": "questionnaire", "valueCanonical": each} for each in questionnaires]
    return {"resourceType": "Parameters", "parameter": [{"name": "coverage", "resource": coverage}, *named]}


def test_a_package_holds_the_questionnaire_and_all_that_it_names(payer: Fhir) -> None:
    (held,) = packages(payer.call("POST", PACKAGE, ask(f"{MRI_FORM}|1.0.0")).json())
    assert {kind for kind, _ in held} == {"Questionnaire", "Library", "ValueSet"}
    assert (held[0], ("ValueSet", REASONS) in held) == (("Questionnaire", MRI_FORM), True)


def test_without_a_questionnaire_all_that_the_payers_rules_name_come(payer: Fhir) -> None:
    found = packages(payer.call("POST", PACKAGE, ask()).json())
    assert [held[0][1] for held in found] == [MRI_FORM, CPAP_FORM]


def test_a_questionnaire_that_is_not_kept_is_named_as_missing(payer: Fhir) -> None:
    for wanted in ("http://example.org/none", f"{MRI_FORM}|9.9"):
        answer = payer.call("POST", PACKAGE, ask(wanted)).json()
        assert packages(answer) == []
        (outcome,) = (part["resource"] for part in answer["parameter"])
        assert outcome["issue"][0]["code"] == "not-found"


def test_a_package_needs_parameters_with_a_coverage(payer: Fhir) -> None:
    for body in ({"resourceType": "Patient"}, {"resourceType": "Parameters"}, ask(coverage={"resourceType": "Basic"})):
        assert payer.call("POST", PACKAGE, body).status_code == 400
    assert payer.get(PACKAGE).status_code == 405


def test_the_base_for_smart_tokens_offers_neither() -> None:
    for request in (Request("GET", "cds-services"), Request("POST", SERVICE), Request("POST", PACKAGE)):
        with pytest.raises(Fault) as refused:
            wish_of(request)
        assert refused.value.status == 403

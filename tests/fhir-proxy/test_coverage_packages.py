"""Questionnaire packages and rules of a payer as the coverage desk shows them, whatever shape they come in."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from payer_stage import CPT, DRAFT, FORM, LIBRARY, PLAN, VALUE_SET, Payer, bundle, crd, information, packaged, read
from wardmesh_common.errors import BadUpstream, TooLarge
from wardmesh_common.vocabulary import Mask, Obligations
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.coverage_package import one_bundle, package, package_bundles
from wardmesh_fhir_proxy.coverage_requirement import requirement_in
from wardmesh_fhir_proxy.coverage_rules import rules_in, summary

pytestmark = pytest.mark.anyio


@pytest.fixture
async def payer(bench: Any) -> Payer:
    return Payer(bench)


async def test_a_package_becomes_questionnaires_value_sets_and_libraries(payer: Payer) -> None:
    outcome = await payer.package({"questionnaire_url": FORM["url"]})
    found = read(outcome)
    (form,) = found["questionnaires"]
    group, display, offered = form["items"]
    which, yes_no, why = group["items"]
    assert (form["id"], form["url"], form["title"], form["status"]) == ("f1", FORM["url"], "A form", "active")
    assert (form["item_count"], form["required_count"]) == (4, 1)
    coded = [{"value": "a", "display": "An A", "system": "sys"}]
    assert which["answer_options"] == coded
    assert yes_no["answer_options"] == [{"value": "y", "display": "Yes", "system": "s"}]
    assert offered["answer_options"] == [{"value": "3"}]
    assert (which["required"], yes_no["repeats"], offered["read_only"], display["type"]) == (
        True,
        True,
        True,
        "display",
    )
    assert (why["max_length"], why["initial_value"]) == (10, "start")
    assert why["enable_when"] == "g.1 is An A or g.2 is not answered"
    assert "- Which (choice, required)" in form["markdown"]
    assert "  - [ ] An A" in form["markdown"]
    assert found["value_sets"] == {"http://vs": {"codes": coded}}
    assert found["libraries"] == ["http://lib|2"]
    assert (outcome.event, outcome.withheld) == ("coverage.questionnaire_fetch", 1)
    parameters = payer.sent("Questionnaire/$questionnaire-package")["parameter"]
    assert [part["name"] for part in parameters] == ["coverage", "questionnaire"]


async def test_a_raw_package_has_no_answers_of_a_person_in_it_and_obeys_masks(payer: Payer) -> None:
    masked = Obligations(masks=(Mask(type="*", path="text"),))
    payer.answers["Questionnaire/$questionnaire-package"] = (200, packaged(FORM | {"text": {"div": "x"}}, DRAFT))
    found = read(await payer.package({"raw_format": True}, obligations=masked))
    assert list(found) == ["raw_bundle"]
    (entry,) = found["raw_bundle"]["entry"]
    assert entry["resource"] == FORM


async def test_packages_of_dtr_1_and_several_packages_are_understood(payer: Payer) -> None:
    payer.answers["Questionnaire/$questionnaire-package"] = (200, bundle(FORM))
    assert len(read(await payer.package())["questionnaires"]) == 1
    several = packaged(FORM)
    several["parameter"] += packaged(FORM | {"id": "f2"})["parameter"]
    payer.answers["Questionnaire/$questionnaire-package"] = (200, several)
    assert [each["id"] for each in read(await payer.package())["questionnaires"]] == ["f1", "f2"]
    payer.answers["Questionnaire/$questionnaire-package"] = (200, {"resourceType": "Patient"})
    assert (await payer.package()).status == 502


async def test_rules_are_read_from_plan_definitions_and_only_those_that_name_the_code(payer: Payer) -> None:
    foreign = copy.deepcopy(PLAN) | {"id": "r2", "useContext": []}
    payer.answers["PlanDefinition"] = (200, bundle(PLAN, foreign, PLAN | {"id": "r3", "status": "retired"}))
    outcome = await payer.rules()
    assert read(outcome) == {
        "platform_id": "probe",
        "procedure_code": "70551",
        "code_system": CPT,
        "rules": [
            {
                "id": "r1",
                "title": "Imaging",
                "description": "About  imaging",
                "applies_to_codes": ["70551", "70552"],
                "criteria": "More than one\nFindings",
                "documentation_requirements": ["Notes", FORM["url"]],
                "effective_date": "2025-01-01",
                "source_url": "http://payer.example/PlanDefinition/r1",
            }
        ],
        "markdown_summary": read(outcome)["markdown_summary"],
        "last_updated": "2026-02-03T00:00:00Z",
    }
    assert "# Rules for 70551" in read(outcome)["markdown_summary"]
    assert (outcome.event, outcome.touched) == ("coverage.platform_rules_fetch", ())
    (seen,) = payer.bench.upstream.requests
    assert seen.query == "context=http%3A%2F%2Fwww.ama-assn.org%2Fgo%2Fcpt%7C70551&status=active&_count=50"
    payer.bench.upstream.requests.clear()
    await payer.rules(system="urn:a,b|c$d")
    assert "context=urn%3Aa%5C%2Cb%5C%7Cc%5C%24d%7C70551&" in payer.bench.upstream.requests[0].query


async def test_a_package_without_end_is_refused(payer: Payer) -> None:
    deep: dict[str, Any] = {"linkId": "x", "type": "group"}
    for _ in range(40):
        deep = {"linkId": "x", "type": "group", "item": [deep]}
    for items in ([deep], [{"linkId": "x", "type": "string"}] * 4000):
        payer.answers["Questionnaire/$questionnaire-package"] = (200, packaged(FORM | {"item": items}))
        assert (await payer.package()).status == 413
    payer.answers["Questionnaire/$questionnaire-package"] = (200, b'{"a":"' + b"x" * 5_000_000 + b'"}')
    assert (await payer.package()).status == 413


def mutated(random_: random.Random, node: Any) -> Any:
    """The same document with one member made into something else, at any depth."""
    strange = [None, True, 0, -1, 10**30, 1.5, "", "\u0000", "x" * 300, [], {}, [[]], [None], {"a": {}}]
    if isinstance(node, dict) and node and random_.random() < 0.8:
        key = random_.choice(list(node))
        return {**node, key: mutated(random_, node[key])}
    if isinstance(node, list) and node and random_.random() < 0.8:
        place = random_.randrange(len(node))
        return [mutated(random_, item) if index == place else item for index, item in enumerate(node)]
    return random_.choice(strange)


def mapped_requirement(document: Any) -> Any:
    found = requirement_in(document, "c1", "70551", ("payer.example",))
    assert found.status in ("required", "not-required", "conditional", "unknown")
    return [found.reason, found.questionnaire_url, found.info_needed]


def mapped_package(document: Any) -> Any:
    whole, _ = one_bundle(package_bundles(document))
    return [whole, package(whole)]


def mapped_rules(document: Any) -> Any:
    rules, updated = rules_in(document, CPT, "70551")
    return [rules, updated, summary("70551", rules)]


@pytest.mark.parametrize(
    ("document", "mapper"),
    [
        (crd(information(pa_needed="auth-needed", reason={"text": "r"}, info_needed=["a"])), mapped_requirement),
        (crd(information(pa_needed="no-auth"), actions="cards"), mapped_requirement),
        (packaged(FORM, VALUE_SET, LIBRARY), mapped_package),
        (bundle(PLAN), mapped_rules),
    ],
    ids=["system action", "card", "package", "rules"],
)
def test_documents_of_any_shape_are_understood_or_refused_but_never_break_anything(
    document: Any, mapper: Callable[[Any], Any]
) -> None:
    random_ = random.Random(7)
    for _ in range(1500):
        broken = document
        for _ in range(random_.randint(1, 4)):
            broken = mutated(random_, broken)
        if not isinstance(broken, dict):
            continue
        with contextlib.suppress(BadUpstream, TooLarge):
            json_exact.encode(mapper(json_exact.decode(json.dumps(broken).encode())))

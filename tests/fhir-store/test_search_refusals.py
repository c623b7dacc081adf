"""Searches that cannot be understood are refused, never widened."""

from __future__ import annotations

import pytest
from store_stage import Fhir, issue_of


@pytest.mark.parametrize(
    "query",
    [
        "birthdate=yesterday",
        "birthdate=2024-13-45",
        "_lastUpdated=x",
        "gender=",
        "_id=a_b",
        "name:fuzzy=x",
        "gender:code-text=x",
        "birthdate:not=2020",
        "identifier=a|b|c",
        "name:missing=perhaps",
        "_count=-1",
        "_sort=nonsense",
        "_summary=all",
        "_total=some",
        "_include=Patient",
        "_include=Patient:nonsense",
        "_include=Patient:gender",
        "general-practitioner:Nothing=1",
        "gender.name=x",
        "_has:Observation=x",
        "_text=x",
        "_content=x",
        "_filter=x",
        "_cursor=nonsense",
        "_cursor=",
        "name=%ff",
        "name=%00",
    ],
)
@pytest.mark.requirement("ST-54")
def test_bad_values_and_modifiers_of_known_parameters_are_refused(fhir: Fhir, query: str) -> None:
    answer = fhir.get(f"Patient?{query}", Prefer="handling=strict")
    assert answer.status_code == 400, answer.text
    issue_of(answer)


@pytest.mark.parametrize("value", ["ge1e99999", "nonsense", "1|2", "1e", "--1", "5|a|b|c"])
def test_bad_quantities_are_refused(fhir: Fhir, value: str) -> None:
    assert fhir.get(f"Observation?value-quantity={value}").status_code == 400

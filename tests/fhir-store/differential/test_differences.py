"""The store against independent FHIR engines: whatever differs is listed with its reason, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import RIGHT, compare, listed, reasons, shown, without
from counterparts import hapi, hapi_missing, medplum, medplum_missing
from exchange import Side
from page import PAGE, page
from script import steps

LISTS = Path(__file__).parent / "differences"


def judge(store: Side, base: str, name: str) -> None:
    other = Side(base)
    try:
        found, known = compare(store, other), listed(reasons(LISTS / f"{name}.yaml"))
    finally:
        other.close()
    unlisted, gone = without(found, known), without(known, found)
    assert not unlisted, f"differences to {name} that nobody explained:\n{shown(unlisted)}"
    assert not gone, f"differences to {name} that are listed and no longer there:\n{shown(gone)}"


@pytest.mark.skipif(bool(medplum_missing()), reason=medplum_missing())
def test_every_difference_to_the_in_memory_engine_is_listed_and_explained(store: Side) -> None:
    with medplum() as base:
        judge(store, base, "medplum")


@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(hapi_missing()), reason=hapi_missing())
def test_every_difference_to_hapi_is_listed_and_explained(store: Side) -> None:
    with hapi() as base:
        judge(store, base, "hapi")


@pytest.mark.parametrize("name", ["medplum", "hapi"])
def test_each_reason_names_steps_of_the_script_who_is_right_and_a_section(name: str) -> None:
    names = {step.name for step in steps()}
    for reason in reasons(LISTS / f"{name}.yaml"):
        assert reason.right in RIGHT, reason.title
        assert ".html" in reason.specification, reason.title
        assert reason.because, reason.title
        assert reason.differs.keys() <= names, reason.title
        assert reason.right != "other", f"{reason.title}: where the other is right the store is to be mended"


def test_a_difference_that_is_not_listed_and_one_that_is_gone_are_both_seen() -> None:
    found = {"a step": {"status": [200, 404], "total": [1, 2]}}
    known = {"a step": {"status": [200, 404]}, "another": {"status": [200, 400]}}
    assert without(found, known) == {"a step": {"total": [1, 2]}}
    assert without(known, found) == {"another": {"status": [200, 400]}}
    assert without(found, {"a step": {"status": [200, 410], "total": [1, 2]}}) == {"a step": {"status": [200, 404]}}


def test_the_page_of_differences_says_what_the_lists_say() -> None:
    assert PAGE.read_text() == page(), "python tests/fhir-store/differential/page.py writes it anew"

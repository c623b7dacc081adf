"""Dates that are written have to be days of the calendar."""

from __future__ import annotations

import calendar

import jsonschema_rs
import pytest

from wardmesh_fhir_store.schema import PRIMITIVES

YEARS = (1, 4, 100, 400, 1900, 2000, 2023, 2024)


@pytest.mark.parametrize(("kind", "rest"), [("date", ""), ("dateTime", "T10:00:00Z"), ("instant", "T10:00:00.1+01:00")])
def test_exactly_the_days_of_the_calendar_are_dates(kind: str, rest: str) -> None:
    judge = jsonschema_rs.Draft202012Validator(PRIMITIVES[kind])
    for year in YEARS:
        for month in range(14):
            last = calendar.monthrange(year, month)[1] if 1 <= month <= 12 else 0
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}{rest}"
                assert judge.is_valid(text) == (1 <= day <= last), text


def test_partial_dates_are_dates() -> None:
    judge = jsonschema_rs.Draft202012Validator(PRIMITIVES["date"])
    assert [judge.is_valid(text) for text in ("2024", "2024-02", "0000", "2024-13", "2024-2")] == [True, True] + 3 * [
        False
    ]

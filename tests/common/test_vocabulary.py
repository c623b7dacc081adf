"""Words without I/O: what they mean at their edges."""

from __future__ import annotations

import pytest

from wardmesh_common.vocabulary import Interaction, criteria_of, is_write


@pytest.mark.parametrize(
    ("condition", "criteria"),
    [
        ("identifier=x", "identifier=x"),
        ("Patient?identifier=x", "identifier=x"),
        ("?identifier=x", "identifier=x"),
        ("identifier=a?b&subject:Patient.name=y", "identifier=a?b&subject:Patient.name=y"),
        ("", ""),
    ],
)
def test_a_question_mark_in_a_value_hides_no_criteria(condition: str, criteria: str) -> None:
    assert criteria_of(condition) == criteria


def test_only_operations_that_may_change_something_count_as_writes() -> None:
    assert is_write(Interaction.OPERATION, "$submit-data")
    assert not is_write(Interaction.OPERATION, "$everything")
    assert is_write(Interaction.PATCH)
    assert not is_write(Interaction.HISTORY)

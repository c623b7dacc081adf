"""What an entry of a batch or transaction may stand for."""

from __future__ import annotations

import pytest

from wardmesh_common.contracts import Entry
from wardmesh_common.errors import BadRequest
from wardmesh_common.pieces import piece_of


@pytest.mark.parametrize("place", ["", "Patient/", "Group/g1/"])
@pytest.mark.parametrize("operation", ["$export", "$export-status", "$export-file"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_entry_begins_or_follows_an_export(place: str, operation: str, method: str) -> None:
    """Alone it has an intent in the ledger before it is asked for; an entry of a batch of reads has none."""
    with pytest.raises(BadRequest, match="alone"):
        piece_of(Entry(method=method, url=f"{place}{operation}?_type=Patient"))


def test_another_operation_may_be_an_entry() -> None:
    assert piece_of(Entry(method="GET", url="Patient/p1/$everything")).operation == "$everything"

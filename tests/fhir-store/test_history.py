"""History at its three levels."""

from __future__ import annotations

import pytest
from store_stage import Fhir, issue_of, patient


def lived(fhir: Fhir, mark: str) -> str:
    """A patient with three versions: made, changed, deleted."""
    fhir.put(f"Patient/{mark}", patient("A") | {"id": mark})
    fhir.put(f"Patient/{mark}", patient("B") | {"id": mark})
    fhir.call("DELETE", f"Patient/{mark}")
    return mark


@pytest.mark.requirement("ST-30", "ST-31")
def test_history_survives_deletion_and_tells_every_request(fhir: Fhir, mark: str) -> None:
    answer = fhir.get(f"Patient/{lived(fhir, mark)}/_history")
    assert answer.status_code == 200
    bundle = answer.json()
    assert (bundle["type"], bundle["total"]) == ("history", 3)
    newest, changed, made = bundle["entry"]
    assert newest["request"] == {"method": "DELETE", "url": f"Patient/{mark}"}
    assert "resource" not in newest
    assert newest["response"]["status"].startswith("204")
    assert [e["response"]["etag"] for e in bundle["entry"]] == ['W/"3"', 'W/"2"', 'W/"1"']
    assert (changed["response"]["status"][:3], made["response"]["status"][:3]) == ("200", "201")
    assert changed["resource"]["name"][0]["family"] == "B"
    assert all(e["fullUrl"] == f"{fhir.base}/Patient/{mark}" for e in bundle["entry"])
    times = [e["response"]["lastModified"] for e in bundle["entry"]]
    assert times == sorted(times, reverse=True)
    for path in ("Patient/_history?_count=3", "_history?_count=3"):
        latest = fhir.get(path).json()
        assert [e["fullUrl"] for e in latest["entry"]] == [f"{fhir.base}/Patient/{mark}"] * 3, path
    unknown = fhir.get("Patient/never-there/_history")
    assert unknown.status_code == 404
    issue_of(unknown)


@pytest.mark.requirement("ST-32")
def test_history_is_narrowed_by_count_since_and_at(fhir: Fhir, mark: str) -> None:
    path = f"Patient/{lived(fhir, mark)}/_history"
    times = [e["response"]["lastModified"] for e in fhir.get(path).json()["entry"]]
    since = fhir.get(f"{path}?_since={times[1]}").json()
    assert [e["response"]["etag"] for e in since["entry"]] == ['W/"3"', 'W/"2"']
    at = fhir.get(f"{path}?_at={times[1]}").json()
    assert [e["response"]["etag"] for e in at["entry"]] == ['W/"2"']
    first = fhir.get(f"{path}?_count=2").json()
    assert first["total"] == 3
    assert {link["relation"] for link in first["link"]} == {"self", "next"}
    pages = list(fhir.pages(f"{path}?_count=2"))
    assert [len(page["entry"]) for page in pages] == [2, 1]
    assert fhir.get(f"{path}?_count=0").json() == {
        "resourceType": "Bundle",
        "type": "history",
        "total": 3,
        "link": [{"relation": "self", "url": f"{fhir.base}/{path}?_count=0"}],
    }
    assert fhir.get(f"{path}?_count=many").status_code == 400
    assert fhir.get(f"{path}?_since=yesterday").status_code == 400


@pytest.mark.requirement("ST-33")
def test_history_repeats_itself_and_pages_ignore_later_writes(fhir: Fhir, mark: str) -> None:
    path = f"Patient/{lived(fhir, mark)}/_history"
    assert fhir.get(path).content == fhir.get(path).content
    pages = fhir.pages("Patient/_history?_count=2")
    first = next(pages)
    fhir.put(f"Patient/{mark}", patient("C") | {"id": mark})
    second = next(pages)
    seen = [(e["fullUrl"], e["response"]["etag"]) for page in (first, second) for e in page["entry"]]
    assert len(set(seen)) == 4, "nothing twice"
    assert (f"{fhir.base}/Patient/{mark}", 'W/"4"') not in seen
    assert first["total"] == second["total"]

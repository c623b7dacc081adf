"""Composite parameters, lists, value sets, texts and typed identifiers."""

from __future__ import annotations

import pytest
from store_stage import Fhir, issue_of, observation, patient

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.paging import LINK_SECONDS, CursorSealer

PRESSURE = {"system": "http://loinc.org", "code": "8480-6"}


def part(code: str, value: float) -> dict[str, object]:
    quantity = {"value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
    return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": quantity}


@pytest.mark.requirement("ST-43")
def test_components_of_a_composite_come_from_the_same_repetition(fhir: Fhir, mark: str) -> None:
    tag = {"tag": [{"system": "urn:test", "code": mark}]}
    high = fhir.create(observation(meta=tag, component=[part("8480-6", 150), part("8462-4", 80)]))["id"]
    fhir.create(observation(meta=tag, component=[part("8480-6", 110), part("8462-4", 150)]))
    found = "Observation?_tag=urn:test|" + mark
    query = f"{found}&component-code-value-quantity=http://loinc.org|8480-6$"
    assert fhir.ids(query + "gt140") == [high]
    assert fhir.ids(query + "gt140|http://unitsofmeasure.org|mm[Hg]") == [high]
    assert fhir.ids(query + "gt140||mmHg,http://loinc.org|8480-6$lt1") == [high]
    assert fhir.ids(query + "gt500") == []
    assert fhir.ids(f"{found}&combo-code-value-quantity=8480-6$150") == [high]
    assert len(fhir.ids(f"{found}&component-code-value-quantity:missing=false")) == 2
    for bad in ("8480-6", "8480-6$1$2", "8480-6$x", "$1"):
        answer = fhir.get(f"{found}&component-code-value-quantity={bad}")
        assert answer.status_code == 400, bad
        issue_of(answer)


@pytest.mark.requirement("ST-43")
def test_composites_take_every_kind_of_component(fhir: Fhir, mark: str) -> None:
    code = {"coding": [{"system": "urn:c", "code": mark}]}
    text = fhir.create(observation(code=code, valueString="Größe mittel"))["id"]
    dated = fhir.create(observation(code=code, valueDateTime="2024-05-06"))["id"]
    coded = fhir.create(observation(code=code, valueCodeableConcept={"coding": [{"code": "yes"}]}))["id"]
    assert fhir.ids(f"Observation?code-value-string=urn:c|{mark}$grosse") == [text]
    assert fhir.ids(f"Observation?code-value-string=urn:c|{mark}$gr%C3%B6sse") == [text]
    assert fhir.ids(f"Observation?code-value-date=urn:c|{mark}$ge2024-05") == [dated]
    assert fhir.ids(f"Observation?code-value-concept=urn:c|{mark}$yes") == [coded]
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "content": [{"attachment": {"title": mark}}],
        "relatesTo": [
            {"code": "appends", "target": {"reference": f"DocumentReference/{mark}a"}},
            {"code": "replaces", "target": {"reference": f"DocumentReference/{mark}b"}},
        ],
    }
    made = fhir.create(document)["id"]
    query = "DocumentReference?relationship="
    assert fhir.ids(f"{query}replaces$DocumentReference/{mark}b") == [made]
    assert fhir.ids(f"{query}replaces$DocumentReference/{mark}a") == []
    sequence = {
        "resourceType": "MolecularSequence",
        "coordinateSystem": 0,
        "referenceSeq": {"chromosome": {"coding": [{"code": mark}]}, "windowStart": 10, "windowEnd": 20},
    }
    made = fhir.create(sequence)["id"]
    assert fhir.ids(f"MolecularSequence?chromosome-window-coordinate={mark}$lt15$gt15") == [made]
    assert fhir.ids(f"MolecularSequence?chromosome-window-coordinate={mark}$lt15$gt25") == []


@pytest.mark.requirement("ST-44")
def test_a_stored_list_selects_its_members(fhir: Fhir, mark: str) -> None:
    one, two, other = (fhir.create(patient(mark))["id"] for _ in range(3))
    items = [{"item": {"reference": f"Patient/{identity}"}} for identity in (one, two)]
    listed = fhir.create({"resourceType": "List", "status": "current", "mode": "working", "entry": items})["id"]
    assert set(fhir.ids(f"Patient?_list={listed}")) == {one, two}
    assert fhir.ids(f"Patient?_list=List/{listed}&_id={one},{other}") == [one]
    assert fhir.ids(f"Observation?_list={listed}") == []
    assert fhir.ids("Patient?_list=never-there") == []
    assert fhir.get("Patient?_list=$current-problems").status_code == 400
    fhir.call("DELETE", f"List/{listed}")
    assert fhir.ids(f"Patient?_list={listed}") == []


@pytest.mark.requirement("ST-44")
def test_common_parameters_select_by_meta(fhir: Fhir, mark: str) -> None:
    meta = {
        "profile": [f"urn:p:{mark}"],
        "tag": [{"system": "urn:t", "code": mark}],
        "security": [{"system": "urn:s", "code": mark}],
        "source": f"urn:source:{mark}",
    }
    made = fhir.create(patient(mark, meta=meta))["id"]
    queries = (
        f"_profile=urn:p:{mark}", f"_tag=urn:t|{mark}", f"_security=urn:s|{mark}", f"_source=urn:source:{mark}",
        f"_id={made}", f"_lastUpdated=gt2020&family={mark}",
    )  # fmt: skip
    for query in queries:
        assert fhir.ids(f"Patient?{query}") == [made], query
    for query in queries[:4]:
        bundle = fhir.get(f"?{query}").json()
        assert [entry["resource"]["id"] for entry in bundle["entry"]] == [made], query
    assert fhir.ids(f"?_type=Patient,Device&_tag=urn:t|{mark}") == [made]
    assert fhir.ids(f"?_type=Device&_tag=urn:t|{mark}") == []


@pytest.mark.requirement("ST-45")
def test_token_modifiers_are_answered_or_refused(fhir: Fhir, mark: str) -> None:
    code = {"coding": [{"system": "urn:c", "code": "x", "display": f"{mark} pressure"}], "text": f"Größe {mark}"}
    made = fhir.create(observation(code=code, status="amended"))["id"]
    assert fhir.ids(f"Observation?code:text={mark}") == [made]
    assert (
        fhir.ids(f"Observation?code:text=gro%C3%9Fe {mark}")
        == [made]
        == fhir.ids(f"Observation?code:text=gr%C3%B6sse {mark}")
    )
    assert fhir.ids(f"Observation?code:text=pressure {mark}") == [], "a beginning, not a part"
    sets = "http://hl7.org/fhir/ValueSet/"
    assert fhir.ids(f"Observation?code:text={mark}&status:in={sets}observation-status") == [made]
    assert fhir.ids(f"Observation?code:text={mark}&status:not-in={sets}observation-status") == []
    assert fhir.ids(f"Observation?code:text={mark}&status:not=final,preliminary") == [made]
    numbered = {"type": {"coding": [{"system": "urn:type", "code": "MR"}], "text": f"{mark} number"}}
    holder = fhir.create(patient(mark, identifier=[numbered | {"system": "urn:i", "value": mark}]))["id"]
    assert fhir.ids(f"Patient?identifier:of-type=urn:type|MR|{mark}") == [holder]
    assert fhir.ids(f"Patient?identifier:of-type=urn:type|SS|{mark}") == []
    assert fhir.ids(f"Patient?identifier:text={mark}") == [holder]
    for query in (
        "status:in=urn:unknown", f"status:in={sets}never-there", "status:above=x", "status:below=x",
        "identifier:of-type=a|b", "date:exact=2020", "subject:above=x", "value-quantity:contains=1",
    ):  # fmt: skip
        answer = fhir.get(f"Observation?{query}" if "identifier:of" not in query else f"Patient?{query}")
        assert answer.status_code == 400, query
        issue_of(answer)
    for parameter in ("code", "subject", "date", "value-quantity", "value-string", "code-value-string"):
        assert fhir.get(f"Observation?{parameter}:missing=true&_count=1").status_code == 200


@pytest.mark.requirement("ST-42")
def test_uris_go_up_and_down(fhir: Fhir, mark: str) -> None:
    base = {"resourceType": "ValueSet", "status": "draft"}
    urls = [f"http://x/{mark}", f"http://x/{mark}/a", f"http://x/{mark}/a/b", f"http://x/{mark}ab"]
    ids = [fhir.create(base | {"url": url})["id"] for url in urls]
    assert set(fhir.ids(f"ValueSet?url:below={urls[0]}")) == set(ids[:3])
    assert set(fhir.ids(f"ValueSet?url:above={urls[1]}")) == set(ids[:2])
    assert fhir.ids(f"ValueSet?url={urls[3]}") == [ids[3]]
    assert fhir.ids(f"ValueSet?url={urls[3].upper()}") == []


@pytest.mark.requirement("ST-51")
def test_links_are_signed_opaque_and_end(fhir: Fhir, mark: str) -> None:
    """What the rule says of links beside the walks in test_search_oracle.py and test_search_results.py."""
    now = [1000.0]
    sealer = CursorSealer(b"k" * 32, lambda: now[0])
    token = sealer.issue("Patient", "family=x", ["a", "7"], 3)
    assert sealer.open(token, "Patient").after == ["a", "7"]
    now[0] += LINK_SECONDS + 1
    with pytest.raises(Fault) as late:
        sealer.open(token, "Patient")
    assert late.value.status == 410
    with pytest.raises(Fault) as moved:
        sealer.open(sealer.issue("Patient", "", ["1"]), "Observation")
    assert moved.value.status == 400
    for _ in range(3):
        fhir.create(patient(mark))
    bundle = fhir.get(f"Patient?family={mark}&_count=2").json()
    following = {link["relation"]: link["url"] for link in bundle["link"]}
    assert set(following) == {"self", "first", "next"}
    assert fhir.get(following["next"][:-2]).status_code == 400
    last = {link["relation"]: link["url"] for link in fhir.get(following["next"]).json()["link"]}
    assert set(last) == {"self", "first", "previous"}
    counts = [fhir.get(f"Patient?family={mark}&{query}").json() for query in ("_count=0", "_summary=count")]
    assert [(one["total"], one.get("entry")) for one in counts] == [(3, None), (3, None)]

"""Compartment searches and $everything."""

from __future__ import annotations

import pytest
from store_stage import Fhir, observation, patient

from wardmesh_fhir_store.definitions import load_definitions


def chart(fhir: Fhir) -> dict[str, str]:
    """A patient with what belongs to it, and a neighbour."""
    doctor = fhir.create({"resourceType": "Practitioner", "active": True})["id"]
    other = fhir.create(patient("Neighbour"))["id"]
    link = [{"other": {"reference": f"Patient/{other}"}, "type": "seealso"}]
    owner = fhir.create(patient("Owner", generalPractitioner=[{"reference": f"Practitioner/{doctor}"}], link=link))[
        "id"
    ]
    old = fhir.create(observation(f"Patient/{owner}", effectiveDateTime="2001-01-01"))["id"]
    new = fhir.create(observation(f"Patient/{owner}", effectiveDateTime="2021-01-01"))["id"]
    fhir.create(observation(f"Patient/{other}"))
    coverage = {"resourceType": "Coverage", "status": "active", "payor": [{"display": "x"}]}
    policy = fhir.create(coverage | {"beneficiary": {"reference": f"Patient/{owner}"}})["id"]
    return {"owner": owner, "other": other, "doctor": doctor, "old": old, "new": new, "policy": policy}


def test_a_compartment_is_searched_like_a_type(fhir: Fhir) -> None:
    ids = chart(fhir)
    root = f"Patient/{ids['owner']}"
    assert fhir.ids(f"{root}/Observation?_sort=-date") == [ids["new"], ids["old"]]
    assert fhir.ids(f"{root}/Observation?date=lt2010") == [ids["old"]]
    assert set(fhir.ids(f"{root}/*")) == {ids["owner"], ids["old"], ids["new"], ids["policy"]}
    pages = list(fhir.pages(f"{root}/Observation?_count=1"))
    assert [e["resource"]["id"] for page in pages for e in page["entry"]] == [ids["old"], ids["new"]]
    assert fhir.get(f"{root}/Organization").status_code == 404
    assert fhir.get(f"{root}/Nothing").status_code == 404
    assert fhir.ids(f"Practitioner/{ids['doctor']}/Patient") == [ids["owner"]]


def test_everything_holds_the_chart_and_what_it_refers_to_but_no_neighbour(fhir: Fhir) -> None:
    ids = chart(fhir)
    path = f"Patient/{ids['owner']}/$everything"
    everything = {
        e["resource"]["id"]: e["search"]["mode"] for page in fhir.pages(f"{path}?_count=2") for e in page["entry"]
    }
    assert everything == {
        ids["owner"]: "match",
        ids["old"]: "match",
        ids["new"]: "match",
        ids["policy"]: "match",
        ids["doctor"]: "include",
    }
    assert fhir.get(path).json()["total"] == 4
    assert fhir.ids(f"{path}?_type=Observation") == [ids["old"], ids["new"]]
    assert ids["old"] not in fhir.ids(f"{path}?start=2010-01-01")
    assert ids["new"] not in fhir.ids(f"{path}?end=2010-01-01")
    assert ids["policy"] in fhir.ids(f"{path}?end=2010-01-01")
    assert fhir.ids(f"{path}?_since=2999-01-01") == []
    assert fhir.get("Patient/never-there/$everything").status_code == 404
    assert fhir.get(f"{path}?name=x").status_code == 400
    fhir.call("DELETE", f"Patient/{ids['owner']}")
    assert fhir.get(path).status_code == 410


@pytest.mark.requirement("ST-57")
def test_all_five_compartments_take_their_members_and_nothing_else(fhir: Fhir) -> None:
    """Every pair of the definitions' CompartmentDefinitions; the search features are those of any search."""
    definitions = load_definitions()
    assert len(definitions.compartments) == 5
    ids = chart(fhir)
    for compartment, members in definitions.compartments.items():
        assert fhir.get(f"{compartment}/x/*").status_code == 200
        for kind in sorted(members):
            assert fhir.get(f"{compartment}/x/{kind}?_summary=count").status_code == 200, (compartment, kind)
        for kind in sorted(definitions.resource_types - set(members)):
            assert fhir.get(f"{compartment}/x/{kind}").status_code == 404, (compartment, kind)
    root = f"Patient/{ids['owner']}/Observation"
    assert fhir.ids(f"{root}?subject:Patient.family=Owner&_sort=date&_count=1") == [ids["old"]]
    included = fhir.get(f"{root}?_include=Observation:subject").json()["entry"]
    assert [e["resource"]["id"] for e in included if e["search"]["mode"] == "include"] == [ids["owner"]]
    assert fhir.get(f"{root}?nonsense=1", Prefer="handling=strict").status_code == 400

"""What a search returns: bundle, order, pages, includes, chains, parts of resources."""

from __future__ import annotations

from typing import Any

import pytest
from store_stage import Fhir, issue_of, observation, patient


def links(bundle: dict[str, Any]) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


@pytest.mark.requirement("ST-34", "ST-35")
def test_get_post_and_head_search_alike(fhir: Fhir, mark: str) -> None:
    identity = fhir.create(patient(mark))["id"]
    got = fhir.get(f"Patient?family={mark}&_count=5")
    bundle = got.json()
    assert (bundle["type"], bundle["total"]) == ("searchset", 1)
    assert bundle["entry"][0]["fullUrl"] == f"{fhir.base}/Patient/{identity}"
    assert bundle["entry"][0]["search"] == {"mode": "match"}
    assert links(bundle) == {"self": f"{fhir.base}/Patient?family={mark}&_count=5"}
    form = "application/x-www-form-urlencoded"
    posted = fhir.call("POST", "Patient/_search?_count=5", f"family={mark}", Content_Type=form)
    assert posted.json()["entry"] == bundle["entry"]
    head = fhir.call("HEAD", f"Patient?family={mark}&_count=5")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", got.headers["content-length"])
    system = fhir.get(f"?_type=Patient,Observation&_id={identity}").json()
    assert [e["resource"]["id"] for e in system["entry"]] == [identity]
    assert fhir.get("?_type=Nothing").status_code == 400


@pytest.mark.requirement("ST-53", "ST-35")
def test_the_total_counts_matches_and_can_be_left_out(fhir: Fhir, mark: str) -> None:
    ids = [fhir.create(patient(mark))["id"] for _ in range(3)]
    fhir.create(observation(f"Patient/{ids[0]}"))
    query = f"Patient?family={mark}&_count=2&_revinclude=Observation:subject"
    assert fhir.get(query).json()["total"] == 3
    assert fhir.get(f"{query}&_total=accurate").json()["total"] == 3
    assert "total" not in fhir.get(f"{query}&_total=none").json()
    for counting in ("_summary=count", "_count=0"):
        answer = fhir.get(f"Patient?family={mark}&{counting}").json()
        assert answer["total"] == 3
        assert "entry" not in answer


def test_the_common_parameters_select(fhir: Fhir, mark: str) -> None:
    meta = {
        "tag": [{"system": "urn:t", "code": mark}],
        "security": [{"system": "urn:s", "code": mark}],
        "profile": [f"http://example.org/{mark}"],
        "source": f"urn:source:{mark}",
    }
    made = fhir.create(patient("Common", meta=meta))
    other = fhir.create(patient("Common"))
    for query in (
        f"_id={made['id']}",
        f"_tag=urn:t|{mark}",
        f"_tag={mark}",
        f"_security=urn:s|{mark}",
        f"_profile=http://example.org/{mark}",
        f"_source=urn:source:{mark}",
    ):
        assert fhir.ids(f"Patient?{query}") == [made["id"]], query
    pair = f"_id={made['id']},{other['id']}"
    time = made["meta"]["lastUpdated"]
    assert fhir.ids(f"Patient?{pair}&_lastUpdated={time}") == [made["id"]]
    assert fhir.ids(f"Patient?{pair}&_lastUpdated=gt{time}") == [other["id"]]
    assert fhir.ids(f"Patient?{pair}&_lastUpdated=le{time}") == [made["id"]]
    assert set(fhir.ids(f"Patient?{pair}&_lastUpdated=ge2020")) == {made["id"], other["id"]}


@pytest.mark.requirement("ST-50")
def test_results_are_sorted_with_missing_values_last(fhir: Fhir, mark: str) -> None:
    tag = {"meta": {"tag": [{"system": "urn:t", "code": mark}]}}
    rows = {
        "b": patient("Bx", birthDate="1990-01-01", **tag),
        "a": patient("Ax", birthDate="2000-01-01", **tag),
        "n": {"resourceType": "Patient", **tag},
        "two": patient("x", name=[{"family": "Zx"}, {"family": "Aa"}], birthDate="1995", **tag),
    }
    ids = {name: fhir.create(row)["id"] for name, row in rows.items()}
    by_id = {identity: name for name, identity in ids.items()}

    def order(sort: str) -> list[str]:
        one = [by_id[i] for i in fhir.ids(f"Patient?_tag={mark}&_sort={sort}")]
        paged = [
            by_id[e["resource"]["id"]]
            for page in fhir.pages(f"Patient?_tag={mark}&_sort={sort}&_count=1")
            for e in page["entry"]
        ]
        assert paged == one, f"pages by {sort} are the whole"
        return one

    assert order("family") == ["two", "a", "b", "n"]
    assert order("-family") == ["two", "b", "a", "n"]
    assert order("birthdate") == ["b", "two", "a", "n"]
    assert order("-birthdate") == ["a", "two", "b", "n"]
    assert order("_lastUpdated") == ["b", "a", "n", "two"]
    assert order("-_lastUpdated,family") == ["two", "n", "a", "b"]
    assert order("_id") == [by_id[i] for i in sorted(ids.values())]
    assert order("gender,-birthdate") == ["a", "two", "b", "n"]


def test_pages_hold_every_standing_row_once_while_others_write(fhir: Fhir, mark: str) -> None:
    standing = {fhir.create(patient(mark, birthDate=f"19{n:02d}-01-01"))["id"] for n in range(20)}
    for sort in ("", "&_sort=-birthdate", "&_sort=family,birthdate"):
        seen: list[str] = []
        for number, page in enumerate(fhir.pages(f"Patient?family={mark}&_count=3{sort}")):
            seen += [e["resource"]["id"] for e in page.get("entry", [])]
            fresh = fhir.create(patient(mark, birthDate=f"18{number:02d}-01-01"))["id"]
            fhir.call("DELETE", f"Patient/{fresh}")
            fhir.create(patient(mark, birthDate=f"20{number:02d}-01-01"))
        assert len(seen) == len(set(seen))
        assert standing <= set(seen)


def test_page_links_cannot_be_made_or_moved_by_a_caller(fhir: Fhir, mark: str) -> None:
    for _ in range(2):
        fhir.create(patient(mark))
    following = links(fhir.get(f"Patient?family={mark}&_count=1").json())["next"]
    token = following.split("_cursor=")[1]
    assert mark not in following, "opaque"
    for forged in (token[:-2] + "xx", "A" + token[1:], token[:20], "A" * 200):
        answer = fhir.get(f"Patient?_cursor={forged}")
        assert answer.status_code == 400
        issue_of(answer)
    assert fhir.get(f"Practitioner?_cursor={token}").status_code == 400
    assert fhir.get(f"Patient/_history?_cursor={token}").status_code == 400


@pytest.mark.requirement("ST-47")
def test_chains_reach_through_references(fhir: Fhir, mark: str) -> None:
    organization = fhir.create({"resourceType": "Organization", "name": f"{mark}org"})["id"]
    doctor = fhir.create({"resourceType": "Practitioner", "name": [{"family": f"{mark}doc"}]})["id"]
    one = fhir.create(
        patient(
            mark,
            managingOrganization={"reference": f"Organization/{organization}"},
            generalPractitioner=[{"reference": f"Practitioner/{doctor}"}],
        )
    )["id"]
    two = fhir.create(patient(f"{mark}other"))["id"]
    first, second = (fhir.create(observation(f"Patient/{p}"))["id"] for p in (one, two))
    assert fhir.ids(f"Observation?subject:Patient.family:exact={mark}") == [first]
    assert set(fhir.ids(f"Observation?subject.family={mark}")) == {first, second}
    assert fhir.ids(f"Observation?patient.organization.name={mark}org") == [first]
    assert fhir.ids(f"Patient?general-practitioner:Practitioner.family={mark}doc&organization.name={mark}") == [one]
    assert fhir.ids(f"Observation?patient.family={mark}&patient.organization.name={mark}nothing") == []
    fhir.call("DELETE", f"Patient/{one}")
    assert fhir.ids(f"Observation?subject:Patient.family:exact={mark}") == [], "deleted links end the chain"
    unknown = fhir.get("Observation?subject:Patient.nonsense=1", Prefer="handling=strict")
    assert unknown.status_code == 400


@pytest.mark.requirement("ST-48")
def test_reverse_chains_select_by_what_refers(fhir: Fhir, mark: str) -> None:
    one, two = (fhir.create(patient(mark))["id"] for _ in range(2))
    encounter = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
    visit = fhir.create(encounter | {"subject": {"reference": f"Patient/{one}"}})["id"]
    code = {"coding": [{"system": "urn:c", "code": mark}]}
    fhir.create(observation(f"Patient/{one}", code=code, encounter={"reference": f"Encounter/{visit}"}))
    assert fhir.ids(f"Patient?_has:Observation:patient:code=urn:c|{mark}") == [one]
    assert fhir.ids(f"Patient?family={mark}&_has:Encounter:patient:_has:Observation:encounter:code={mark}") == [one]
    assert fhir.ids(f"Encounter?patient._has:Observation:patient:code={mark}") == [visit]
    assert two not in fhir.ids(f"Patient?_has:Encounter:subject:_id={visit}")


@pytest.mark.requirement("ST-49")
def test_includes_bring_each_resource_once(fhir: Fhir, mark: str) -> None:
    organization = fhir.create({"resourceType": "Organization", "name": mark})["id"]
    one = fhir.create(patient(mark, managingOrganization={"reference": f"Organization/{organization}"}))["id"]
    first, second = (fhir.create(observation(f"Patient/{one}"))["id"] for _ in range(2))
    missing = fhir.create(observation(f"Patient/{mark}-missing"))["id"]

    def modes(query: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"match": [], "include": []}
        for entry in fhir.get(query).json()["entry"]:
            found[entry["search"]["mode"]].append(entry["resource"]["id"])
        return found

    pair = f"Observation?_id={first},{second},{missing}"
    assert modes(f"{pair}&_include=Observation:subject") == {"match": [first, second, missing], "include": [one]}
    assert modes(f"{pair}&_include=Observation:subject:Group")["include"] == []
    assert modes(f"{pair}&_include=Observation:*")["include"] == [one]
    assert modes(f"{pair}&_include=*")["include"] == [one]
    plain = f"{pair}&_include=Observation:subject&_include=Patient:organization"
    assert modes(plain)["include"] == [one], "only :iterate looks at included resources"
    chained = f"{pair}&_include=Observation:subject&_include:iterate=Patient:organization"
    assert modes(chained)["include"] == [one, organization]
    back = f"Organization?_id={organization}&_revinclude=Patient:organization&_revinclude:iterate=Observation:patient"
    assert set(modes(back)["include"]) == {one, first, second}
    circle = f"{pair}&_include:iterate=Observation:subject&_revinclude:iterate=Observation:subject"
    assert modes(circle)["include"] == [one], "a match is never repeated as include"


@pytest.mark.requirement("ST-52")
def test_parts_of_resources_keep_what_is_mandatory_and_say_so(fhir: Fhir, mark: str) -> None:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
    quantity = {"value": 1, "unit": "kg"}
    made = observation(text=text, valueQuantity=quantity, method={"text": "m"}, note=[{"text": "n"}])
    path = f"Observation/{fhir.create(made)['id']}"
    always = {"resourceType", "id", "meta", "status", "code"}

    def members(query: str) -> set[str]:
        answer = fhir.get(f"{path}?{query}").json()
        assert answer["meta"]["tag"][-1]["code"] == "SUBSETTED"
        searched = fhir.get(f"Observation?_id={answer['id']}&{query}").json()["entry"][0]["resource"]
        assert searched.keys() == answer.keys()
        return set(answer) - always

    assert members("_elements=note") == {"note"}
    assert members("_elements=value,Observation.method") == {"valueQuantity", "method"}
    assert members("_summary=true") == {"valueQuantity"}
    assert members("_summary=text") == {"text"}
    assert members("_summary=data") == {"valueQuantity", "method", "note"}
    assert set(fhir.get(f"{path}?_summary=false").json()) - always == {"text", "valueQuantity", "method", "note"}


@pytest.mark.requirement("ST-54")
def test_unknown_parameters_are_reported_or_with_strict_handling_refused(fhir: Fhir, mark: str) -> None:
    fhir.create(patient(mark))
    bundle = fhir.get(f"Patient?family={mark}&nonsense=1").json()
    assert links(bundle)["self"] == f"{fhir.base}/Patient?family={mark}"
    assert bundle["total"] == 1
    outcome = bundle["entry"][-1]
    assert outcome["search"] == {"mode": "outcome"}
    assert outcome["resource"]["issue"][0]["severity"] == "warning"
    strict = fhir.get(f"Patient?family={mark}&nonsense=1", Prefer="handling=strict")
    assert strict.status_code == 400
    issue_of(strict)


@pytest.mark.requirement("ST-55")
def test_searching_all_types_takes_common_parameters_only(fhir: Fhir) -> None:
    assert fhir.get("?_lastUpdated=gt2020&_count=1").json()["total"] > 0
    assert fhir.get("?family=x", Prefer="handling=strict").status_code == 400
    assert "self" in links(fhir.get("?family=x&_count=1").json())


def test_deleted_and_changed_resources_leave_the_index(fhir: Fhir, mark: str) -> None:
    made = fhir.create(patient(mark))
    path = f"Patient/{made['id']}"
    fhir.put(path, patient(f"{mark}new") | {"id": made["id"]})
    assert fhir.ids(f"Patient?family:exact={mark}") == []
    assert fhir.ids(f"Patient?family:exact={mark}new") == [made["id"]]
    fhir.call("DELETE", path)
    assert fhir.ids(f"Patient?family={mark}") == []

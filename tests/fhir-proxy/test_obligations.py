"""PX-7, PX-11, PX-13, B-5, B-15: what policy demands of an answer is carried out on every resource in it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wardmesh_common.errors import BadUpstream, Conflict, Denied, NotFound
from wardmesh_common.vocabulary import Mask, Obligations

pytestmark = pytest.mark.anyio

NURSE = Obligations(masks=(Mask(type="Patient", path="identifier", where="system=ssn"),))
CLERK = Obligations(masks=(Mask(type="Patient", path="", action="keep", value="name,gender"),))
OWN = Obligations(compartment="p1")
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"versionId": "3"},
    "text": {"status": "generated", "div": "<div>Ann 999</div>"},
    "identifier": [{"system": "ssn", "value": "999"}, {"system": "mrn", "value": "1"}],
    "name": [{"family": "Ann"}],
    "gender": "female",
    "multipleBirthInteger": 2,
}


def observation(identity: str, patient: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": identity, "subject": {"reference": f"Patient/{patient}"}, **more}


def searchset(base: str, resources: list[dict[str, Any]], self_query: str = "", total: int = 20) -> dict[str, Any]:
    entries = [
        {"fullUrl": f"{base}/{r['resourceType']}/{r['id']}", "resource": r, "search": {"mode": "match"}}
        for r in resources
    ]
    link = [{"relation": "self", "url": f"{base}/Observation?{self_query}"}]
    return {"resourceType": "Bundle", "type": "searchset", "total": total, "link": link, "entry": entries}


@pytest.mark.requirement("PX-7")
async def test_px7_two_principals_never_share_an_etag_or_a_304(bench: Any) -> None:
    bench.upstream.answer(PATIENT, ETag='W/"3"')
    tags = {}
    for name, duties in (("all", Obligations()), ("nurse", NURSE), ("clerk", CLERK)):
        outcome = await bench.perform("read", "Patient", "p1", obligations=duties)
        tags[name] = outcome.headers["ETag"]
    assert len(set(tags.values())) == 3

    def respond(seen: Any) -> Any:
        bench.upstream.answer(PATIENT, 304 if seen.headers.get("If-None-Match") == 'W/"3"' else 200, ETag='W/"3"')
        return bench.upstream.respond(seen)

    for mine, duties in (("all", Obligations()), ("nurse", NURSE), ("clerk", CLERK)):
        for theirs, tag in tags.items():
            bench.upstream.respond = respond
            outcome = await bench.perform("read", "Patient", "p1", obligations=duties, headers={"if-none-match": tag})
            assert (outcome.status == 304) == (mine == theirs), (mine, theirs)
            assert outcome.headers["ETag"] == tags[mine]


@pytest.mark.requirement("PX-7")
async def test_px7_a_masked_copy_cannot_be_written_back(bench: Any) -> None:
    bench.upstream.answer(PATIENT, ETag='W/"3"')
    tag = (await bench.perform("read", "Patient", "p1", obligations=NURSE)).headers["ETag"]
    bench.upstream.requests.clear()
    body = b'{"resourceType":"Patient","id":"p1"}'
    with pytest.raises(Conflict, match="PATCH"):
        await bench.perform("update", "Patient", "p1", body=body, headers={"if-match": tag})
    with pytest.raises(Conflict, match="PATCH"):
        await bench.perform("update", "Patient", "p1", body=body, obligations=NURSE)
    assert bench.upstream.requests == []
    await bench.perform(
        "patch", "Patient", "p1", body=b"[]", headers={"if-match": tag}, media_type="application/json-patch+json"
    )
    assert bench.upstream.requests[0].headers["If-Match"] == 'W/"3"'


@pytest.mark.requirement("PX-7", "B-15")
async def test_px7_denied_entries_leave_no_trace(bench: Any) -> None:
    bench.describe(handling_strict=True)
    rows = [observation(f"o{n}", f"p{n % 5}") for n in range(20)]
    bench.upstream.answer(searchset(bench.upstream.base, rows), ETag='W/"9"')
    outcome = await bench.perform("search", "Observation", obligations=OWN)
    bundle = msgspec.json.decode(outcome.body)
    matches = [e["resource"] for e in bundle["entry"] if e.get("search", {}).get("mode") != "outcome"]
    assert [r["id"] for r in matches] == ["o1", "o6", "o11", "o16"]
    assert "total" not in bundle
    assert "ETag" not in outcome.headers
    assert bundle["entry"][-1]["resource"]["issue"][0]["code"] == "suppressed"
    for other in ("p0", "p2", "p3", "p4", "o2"):
        assert f'"{other}"'.encode() not in outcome.body and f"/{other}".encode() not in outcome.body
    assert outcome.withheld == 16
    assert [t.patient for t in outcome.touched] == ["probe/Patient/p1"]
    assert outcome.touched[0].count == 4


@pytest.mark.requirement("PX-7")
async def test_px7_reads_vreads_and_histories_pass_the_same_filter(bench: Any) -> None:
    bench.upstream.answer(observation("o9", "p2"))
    for interaction, more in (("read", {}), ("vread", {"version": "1"})):
        outcome = await bench.perform(interaction, "Observation", "o9", obligations=OWN, **more)
        assert (outcome.status, outcome.withheld) == (404, 1)
        assert b"p2" not in outcome.body
    missing = bench.upstream
    missing.answer(
        {
            "resourceType": "OperationOutcome",
            "issue": [{"severity": "error", "code": "not-found", "diagnostics": "o9 unknown"}],
        },
        404,
    )
    absent = await bench.perform("read", "Observation", "o9", obligations=OWN)
    assert (absent.status, absent.body) == (outcome.status, outcome.body)
    history = {
        "resourceType": "Bundle",
        "type": "history",
        "entry": [
            {
                "resource": observation("o9", "p2"),
                "request": {"method": "PUT", "url": "Observation/o9"},
                "response": {"status": "200"},
            },
            {"request": {"method": "DELETE", "url": "Observation/o9"}, "response": {"status": "204"}},
        ],
    }
    bench.upstream.answer(history)
    outcome = await bench.perform("history", "Observation", "o9", obligations=OWN)
    assert b"o9" not in outcome.body


@pytest.mark.requirement("PX-7", "PX-11", "B-15")
async def test_px11_everything_and_includes_are_checked_kind_by_kind(bench: Any) -> None:
    bench.policy.kinds = {"Observation": Obligations(compartment="p1"), "Practitioner": Obligations()}
    rows = [
        dict(PATIENT),
        observation("o1", "p1"),
        observation("o2", "p2"),
        {"resourceType": "Practitioner", "id": "d1"},
        {"resourceType": "Coverage", "id": "c1", "beneficiary": {"reference": "Patient/p1"}},
    ]
    bench.upstream.answer(searchset(bench.upstream.base, rows))
    outcome = await bench.perform(
        "operation", "Patient", "p1", operation="$everything", obligations=Obligations(compartment="p1")
    )
    kinds = [e["resource"]["id"] for e in msgspec.json.decode(outcome.body)["entry"][:-1]]
    assert kinds == ["p1", "o1", "d1"]
    assert len(bench.policy.questions) == 1
    assert bench.policy.questions[0].kinds == ("Coverage", "Observation", "Practitioner")


@pytest.mark.requirement("PX-11")
async def test_px11_an_include_of_a_kind_not_granted_brings_nothing(bench: Any) -> None:
    bench.upstream.answer(searchset(bench.upstream.base, [observation("o1", "p1"), dict(PATIENT)]))
    outcome = await bench.perform("search", "Observation", query="_include=Observation:subject")
    assert b'"Patient"' not in outcome.body and b"Ann" not in outcome.body
    assert outcome.withheld == 1


@pytest.mark.requirement("PX-11")
@pytest.mark.parametrize(
    "query",
    [
        "patient.name=x",
        "subject:Patient.name=x",
        "_has:Encounter:subject:status=x",
        "subject%3APatient.name=x",
        "_filter=name%20eq%20x",
        "encounter.patient.name=x",
        "_has:Encounter:subject:_has:Condition:encounter:code=x",
        "patient:Patient.organization.name=x",
    ],
)
async def test_px11_criteria_over_kinds_not_granted_are_refused_before_the_upstream(bench: Any, query: str) -> None:
    with pytest.raises(Denied):
        await bench.perform("search", "Observation", query=query)
    assert bench.upstream.requests == []


@pytest.mark.parametrize(
    "query",
    ["patient._has:Person:link:address=x", "_has:Encounter:subject:patient._has:Person:link:address=x"],
)
async def test_px11_what_a_chain_goes_on_to_with_has_needs_its_own_right(bench: Any, query: str) -> None:
    bench.policy.search = {"Patient", "Encounter"}
    with pytest.raises(Denied):
        await bench.perform("search", "Observation", query=query)
    bench.policy.search |= {"Person"}
    bench.upstream.answer(searchset(bench.upstream.base, []))
    await bench.perform("search", "Observation", query=query)
    assert bench.upstream.requests[0].query == query


async def test_px11_a_chain_over_a_granted_kind_is_passed_on(bench: Any) -> None:
    bench.policy.search = {"Patient"}
    bench.upstream.answer(searchset(bench.upstream.base, []))
    await bench.perform("search", "Observation", query="patient.name=x")
    assert bench.upstream.requests[0].query == "patient.name=x"


@pytest.mark.requirement("PX-13", "B-15")
async def test_px13_an_upstream_that_ignores_the_policy_filter_gives_an_error(bench: Any) -> None:
    rows = [observation("o1", "p1"), observation("o2", "p2")]
    bench.upstream.answer(searchset(bench.upstream.base, rows, self_query="code=x"))
    with pytest.raises(BadUpstream):
        await bench.perform("search", "Observation", query="code=x", obligations=OWN)
    assert bench.upstream.requests[0].query == "code=x&patient=Patient/p1"
    bench.upstream.answer(searchset(bench.upstream.base, rows[:1], self_query="code=x&patient=Patient%2Fp1"))
    outcome = await bench.perform("search", "Observation", query="code=x", obligations=OWN)
    assert b"o1" in outcome.body


@pytest.mark.requirement("PX-13")
async def test_px13_strict_handling_is_asked_for_where_the_platform_knows_it(bench: Any) -> None:
    bench.describe(handling_strict=True)
    bench.upstream.answer(searchset(bench.upstream.base, []))
    await bench.perform("search", "Observation", headers={"prefer": "handling=lenient"})
    assert bench.upstream.requests[0].headers["Prefer"] == "handling=strict"


async def test_a_platform_cannot_answer_a_read_with_somebody_else(bench: Any) -> None:
    bench.upstream.answer({**PATIENT, "id": "p2"})
    with pytest.raises(BadUpstream):
        await bench.perform("read", "Patient", "p1")


@pytest.mark.requirement("B-15")
async def test_policy_caps_leave_the_rest_behind_a_cursor(bench: Any) -> None:
    rows = [observation(f"o{n}", "p1") for n in range(7)]
    bench.upstream.answer(searchset(bench.upstream.base, rows))
    duties = Obligations(max_entries=3)
    found: list[str] = []
    query = ""
    for _ in range(4):
        outcome = await bench.perform("search", "Observation", query=query, obligations=duties)
        bundle = msgspec.json.decode(outcome.body)
        assert len(bundle["entry"]) <= 3
        found += [e["resource"]["id"] for e in bundle["entry"]]
        query = next((x["url"] for x in bundle["link"] if x["relation"] == "next"), "").partition("?")[2]
        if not query:
            break
    assert found == [f"o{n}" for n in range(7)]


@pytest.mark.requirement("B-15")
@pytest.mark.parametrize("stored", [observation("o1", "p2"), None])
async def test_b15_a_caller_limited_to_one_patient_changes_nobody_elses_record(
    bench: Any, stored: dict[str, Any] | None
) -> None:
    bench.upstream.answer(stored or b"", 200 if stored else 404)
    mine = msgspec.json.encode(observation("o1", "p1"))
    for interaction, more in (("update", {"body": mine}), ("patch", {"body": b"[]"}), ("delete", {})):
        with pytest.raises(NotFound):
            await bench.perform(interaction, "Observation", "o1", obligations=OWN, **more)
    assert {seen.method for seen in bench.upstream.requests} == {"GET"}
    bench.upstream.requests.clear()
    theirs = msgspec.json.encode(observation("o1", "p2"))
    for interaction, identity in (("create", ""), ("update", "o1")):
        with pytest.raises(Denied):
            await bench.perform(interaction, "Observation", identity, body=theirs, obligations=OWN)
    with pytest.raises(Denied):
        await bench.perform("batch", body=b'{"resourceType":"Bundle","type":"batch"}', obligations=OWN)
    assert bench.upstream.requests == [] and bench.intents == []
    bench.upstream.answer(observation("o1", "p1"))
    await bench.perform("update", "Observation", "o1", body=mine, obligations=OWN)
    assert [seen.method for seen in bench.upstream.requests] == ["GET", "PUT"]


@pytest.mark.requirement("PX-11")
async def test_px11_criteria_in_a_form_are_checked_like_a_query(bench: Any) -> None:
    form = {"body": b"subject%3APatient.name=x", "media_type": "application/x-www-form-urlencoded"}
    with pytest.raises(Denied):
        await bench.perform("search", "Observation", **form)
    assert bench.upstream.requests == []


async def test_an_empty_success_of_a_read_is_a_bad_upstream(bench: Any) -> None:
    bench.upstream.answer(b"")
    with pytest.raises(BadUpstream):
        await bench.perform("read", "Patient", "p1")


@pytest.mark.requirement("PX-7")
async def test_px7_the_total_stays_when_the_platform_counted_only_what_is_allowed(bench: Any) -> None:
    for strict in (True, False):
        bench.describe(handling_strict=strict)
        bench.upstream.answer(searchset(bench.upstream.base, [observation("o1", "p1")], "patient=p1", total=1))
        assert msgspec.json.decode((await bench.perform("search", "Observation", obligations=OWN)).body)["total"] == 1
    bench.policy.kinds = {"Observation": Obligations()}
    bench.upstream.answer(searchset(bench.upstream.base, [observation("o1", "p1")], total=1))
    assert "total" not in msgspec.json.decode((await bench.perform("search", "", obligations=OWN)).body)

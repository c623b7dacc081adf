"""PX-10, PX-12: batches entry by entry, conditional writes that tell nothing about what exists."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wardmesh_common.contracts import Entry
from wardmesh_common.errors import BadRequest, Conflict, Denied
from wardmesh_common.vocabulary import Obligations
from wardmesh_fhir_proxy import batches

pytestmark = pytest.mark.anyio

ENTRIES = (
    Entry(method="GET", url="Patient/p1"),
    Entry(method="POST", url="Observation"),
    Entry(method="GET", url="Claim/c1"),
)


def bundle(kind: str, *more: dict[str, Any]) -> bytes:
    requests = [
        {"request": {"method": e.method, "url": e.url}, "resource": {"resourceType": "Observation", "v": 1}}
        for e in ENTRIES
    ]
    return msgspec.json.encode({"resourceType": "Bundle", "type": kind, "entry": [*requests, *more]})


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.requirement("PX-10")
async def test_px10_entries_that_policy_did_not_see_are_refused(bench: Any, kind: str) -> None:
    hidden = {"request": {"method": "DELETE", "url": "Patient/p2"}}
    for body, entries in ((bundle(kind, hidden), ENTRIES), (bundle(kind), ENTRIES[:2]), (bundle(kind), ENTRIES[::-1])):
        with pytest.raises(Denied):
            await bench.perform(kind, body=body, entries=entries)
    assert bench.upstream.requests == []
    assert bench.intents == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "Patient/../../admin", "/etc/passwd", "//evil/x"])
@pytest.mark.requirement("PX-10")
async def test_px10_entry_addresses_must_be_relative_and_stay_inside(bench: Any, url: str) -> None:
    body = msgspec.json.encode(
        {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": url}}]}
    )
    with pytest.raises(BadRequest):
        await bench.perform("batch", body=body, entries=(Entry(method="GET", url=url),))


@pytest.mark.requirement("PX-10")
async def test_px10_a_repeated_member_in_a_write_is_refused(bench: Any) -> None:
    body = b'{"resourceType":"Bundle","type":"batch","entry":[],"entry":[{"request":{"method":"DELETE","url":"Patient/p1"}}]}'
    with pytest.raises(BadRequest):
        await bench.perform("batch", body=body)
    with pytest.raises(BadRequest):
        await bench.perform("create", "Patient", body=b'{"resourceType":"Patient","id":"1","id":"2"}')
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-7")
@pytest.mark.requirement("PX-10")
async def test_px10_answers_of_a_batch_are_screened_kind_by_kind(bench: Any) -> None:
    bench.policy.kinds = {"Patient": Obligations(), "Observation": Obligations()}
    base = bench.upstream.base
    nested = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 2,
        "entry": [
            {"resource": {"resourceType": "Claim", "id": "c2"}},
            {"resource": {"resourceType": "Patient", "id": "p3"}},
        ],
    }
    answer = {"resourceType": "Bundle", "type": "batch-response", "entry": [
        {"resource": {"resourceType": "Patient", "id": "p1"}, "response": {"status": "200 OK"}},
        {"response": {"status": "201", "location": f"{base}/Observation/o1/_history/1", "etag": 'W/"1"'}},
        {"resource": nested, "response": {"status": "200", "outcome": {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x", "diagnostics": f"see {base}"}]}}}]}  # fmt: skip
    bench.upstream.answer(answer)
    outcome = await bench.perform("batch", body=bundle("batch"), entries=ENTRIES)
    assert b"127.0.0.1" not in outcome.body
    assert b"c2" not in outcome.body
    document = msgspec.json.decode(outcome.body)
    assert [e["response"]["status"] for e in document["entry"]] == ["200 OK", "201", "200"]
    assert document["entry"][1]["response"]["location"] == "http://gateway.example/fhir/probe/Observation/o1/_history/1"
    assert [e["resource"]["id"] for e in document["entry"][2]["resource"]["entry"]] == ["p3"]


@pytest.mark.requirement("PX-10")
def test_px10_refused_entries_keep_their_place_and_others_their_bytes() -> None:
    body = b'{"resourceType":"Bundle","type":"batch","entry":[{"a":1.00},{"b":2},{"c":1e2}]}'
    assert batches._without(body, (1,)).endswith(b'"entry":[{"a":1.00},{"c":1e2}]}')
    merged = batches.with_refusals([(0, "first", None), (1, "third", None)], (1,))  # type: ignore[list-item]
    assert merged[0][1] == "first" and merged[2][1] == "third"
    assert merged[1][1].response.status == "403 Forbidden"


@pytest.mark.requirement("PX-10")
async def test_px10_a_denied_entry_gets_403_in_a_batch_and_stops_a_transaction(bench: Any) -> None:
    bench.policy.kinds = {"Patient": Obligations(), "Observation": Obligations(), "Claim": Obligations()}
    duties = Obligations(denied_entries=(0, 2))
    with pytest.raises(Denied):
        await bench.perform("transaction", body=bundle("transaction"), entries=ENTRIES, obligations=duties)
    assert bench.upstream.requests == [] and bench.intents == []
    done = {"response": {"status": "201 Created"}}
    bench.upstream.answer({"resourceType": "Bundle", "type": "batch-response", "entry": [done]})
    outcome = await bench.perform("batch", body=bundle("batch"), entries=ENTRIES, obligations=duties)
    sent = msgspec.json.decode(bench.upstream.requests[0].body)
    assert [e["request"]["url"] for e in sent["entry"]] == ["Observation"]
    answers = msgspec.json.decode(outcome.body)["entry"]
    assert [e["response"]["status"] for e in answers] == ["403 Forbidden", "201 Created", "403 Forbidden"]
    assert answers[0]["response"]["outcome"]["issue"][0]["code"] == "forbidden"
    everything = Obligations(denied_entries=(0, 1, 2))
    bench.upstream.requests.clear()
    outcome = await bench.perform("batch", body=bundle("batch"), entries=ENTRIES, obligations=everything)
    assert bench.upstream.requests == []
    assert len(msgspec.json.decode(outcome.body)["entry"]) == 3


@pytest.mark.requirement("PX-12")
@pytest.mark.parametrize(
    ("interaction", "more"),
    [
        ("create", {"body": b'{"resourceType":"Patient"}', "headers": {"if-none-exist": "identifier=1"}}),
        ("update", {"body": b'{"resourceType":"Patient"}', "query": "identifier=1"}),
        ("patch", {"body": b"[]", "query": "identifier=1"}),
        ("delete", {"query": "identifier=1"}),
    ],
)
async def test_px12_a_conditional_write_needs_the_right_to_search(
    bench: Any, interaction: str, more: dict[str, Any]
) -> None:
    details = set()
    for exists in (True, False):
        bench.upstream.answer({"resourceType": "Patient", "id": "p1"} if exists else b"", 200 if exists else 201)
        with pytest.raises(Denied) as refused:
            await bench.perform(interaction, "Patient", **more)
        details.add(msgspec.json.encode(refused.value.problem))
    assert len(details) == 1
    assert bench.upstream.requests == []
    bench.policy.search = {"Patient"}
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    assert (await bench.perform(interaction, "Patient", **more)).status == 200


@pytest.mark.requirement("PX-12")
async def test_px12_conditional_entries_of_a_batch_need_it_too(bench: Any) -> None:
    request = {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=1"}
    body = msgspec.json.encode(
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"request": request, "resource": {"resourceType": "Patient"}}],
        }
    )
    with pytest.raises(Denied):
        await bench.perform(
            "batch", body=body, entries=(Entry(method="POST", url="Patient", if_none_exist="identifier=1"),)
        )
    with pytest.raises(Denied):
        await bench.perform("batch", body=body, entries=(Entry(method="POST", url="Patient"),))
    assert bench.upstream.requests == []


async def test_px7_a_masked_etag_inside_a_batch_is_refused(bench: Any) -> None:
    request = {"method": "PUT", "url": "Patient/p1", "ifMatch": 'W/"3+m0123456789abcdef"'}
    body = msgspec.json.encode(
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"request": request, "resource": {"resourceType": "Patient"}}],
        }
    )
    with pytest.raises(Conflict):
        await bench.perform("batch", body=body, entries=(Entry(method="PUT", url="Patient/p1"),))


async def test_a_body_for_another_resource_than_the_address_is_refused(bench: Any) -> None:
    for interaction, identity, body in (
        ("create", "", b'{"resourceType":"Claim"}'),
        ("update", "p1", b'{"resourceType":"Patient","id":"p2"}'),
        ("update", "p1", b"[1]"),
    ):
        with pytest.raises(BadRequest):
            await bench.perform(interaction, "Patient", identity, body=body)
    assert bench.upstream.requests == []


async def test_b17_writes_are_refused_while_the_platform_does_not_allow_them(bench: Any) -> None:
    bench.describe(writes=False)
    with pytest.raises(Denied):
        await bench.perform("create", "Patient", body=b'{"resourceType":"Patient"}')
    assert bench.upstream.requests == []


async def test_the_patients_of_a_transaction_are_in_the_intent_and_the_outcome(bench: Any) -> None:
    bench.policy.kinds = {"Patient": Obligations(), "Observation": Obligations()}
    resource = {"resourceType": "Observation", "subject": {"reference": "Patient/p7"}}
    rows = [
        {"request": {"method": "POST", "url": "Observation"}, "resource": resource},
        {"request": {"method": "DELETE", "url": "Patient/p8"}},
    ]
    body = msgspec.json.encode({"resourceType": "Bundle", "type": "transaction", "entry": rows})
    entries = (Entry(method="POST", url="Observation"), Entry(method="DELETE", url="Patient/p8"))
    done = [{"response": {"status": "201"}}, {"response": {"status": "204"}}]
    bench.upstream.answer({"resourceType": "Bundle", "type": "transaction-response", "entry": done})
    outcome = await bench.perform("transaction", body=body, entries=entries)
    for touched in (bench.intents[0][1], outcome.touched):
        assert {item.patient for item in touched} == {"probe/Patient/p7", "probe/Patient/p8"}

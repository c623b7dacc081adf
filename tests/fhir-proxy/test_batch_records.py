"""PX-10 in the ledger: what becomes of each entry of a batch or transaction is an event of its own."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from wardmesh_common.contracts import Call, Entry, Outcome
from wardmesh_common.errors import Denied
from wardmesh_common.leaf import Draft, draft_events
from wardmesh_common.station import outcome_of
from wardmesh_common.vocabulary import Obligations

pytestmark = pytest.mark.anyio

ENTRIES = (
    Entry(method="GET", url="Patient/p1"),
    Entry(method="POST", url="Observation"),
    Entry(method="DELETE", url="Patient/p2"),
    Entry(method="GET", url="Claim/c1"),
)
KINDS = {"Patient": Obligations(), "Observation": Obligations()}


def bundle(kind: str) -> bytes:
    resource = {"resourceType": "Observation", "subject": {"reference": "Patient/p7"}}
    rows = [{"request": {"method": e.method, "url": e.url}} for e in ENTRIES]
    rows[1]["resource"] = resource  # type: ignore[assignment]
    return msgspec.json.encode({"resourceType": "Bundle", "type": kind, "entry": rows})


def seen(drafts: list[Draft]) -> list[tuple[Any, ...]]:
    return [
        (
            draft.data["resource"]["entry"],
            draft.event_class,
            draft.data["action"],
            draft.data["resource"]["type"],
            draft.data["outcome"]["code"],
            draft.data["policy"]["decision"],
            draft.patient.rpartition("/")[2],
        )
        for draft in drafts
    ]


def recorded(call: Call, outcome: Outcome | None, touched: Any = ()) -> list[tuple[Any, ...]]:
    drafts = draft_events(call, outcome, outcome.touched if outcome else touched, time.time())
    assert {draft.data["request"]["id"] for draft in drafts} == {call.id}
    return seen(drafts)


@pytest.mark.requirement("PX-10")
async def test_px10_a_batch_leaves_one_event_per_entry_with_what_became_of_it(bench: Any) -> None:
    bench.policy.kinds = KINDS
    answers = [
        {"resource": {"resourceType": "Patient", "id": "p1"}, "response": {"status": "200 OK"}},
        {"response": {"status": "201 Created"}},
        {"response": {"status": "409 Conflict"}},
    ]
    bench.upstream.answer({"resourceType": "Bundle", "type": "batch-response", "entry": answers})
    call = bench.call("batch", body=bundle("batch"), entries=ENTRIES, obligations=Obligations(denied_entries=(3,)))
    outcome = await bench.send(call)
    assert recorded(call, outcome) == [
        (0, "access", "R", "Patient", "success", "allow", "p1"),
        (1, "write", "C", "Observation", "success", "allow", "p7"),
        (2, "write", "D", "Patient", "error", "allow", "p2"),
        (3, "access", "R", "Claim", "denied", "deny", ""),
    ]
    (announced,) = bench.intents
    assert recorded(announced[0], None, announced[1]) == [
        (1, "write", "C", "Observation", "success", "allow", "p7"),
        (2, "write", "D", "Patient", "success", "allow", "p2"),
    ], "what is about to change is announced, what is read or refused is not"


@pytest.mark.requirement("PX-10")
async def test_px10_a_refused_transaction_sends_nothing_and_leaves_one_event_per_entry(bench: Any) -> None:
    call = bench.call(
        "transaction", body=bundle("transaction"), entries=ENTRIES, obligations=Obligations(denied_entries=(3,))
    )
    with pytest.raises(Denied) as refused:
        await bench.send(call)
    assert (bench.upstream.requests, bench.intents) == ([], [])
    rows = recorded(call, outcome_of(refused.value))
    assert [(row[0], row[4]) for row in rows] == [(0, "denied"), (1, "denied"), (2, "denied"), (3, "denied")]


@pytest.mark.requirement("PX-10")
async def test_px10_an_answer_that_may_not_be_seen_keeps_its_place(bench: Any) -> None:
    bench.policy.kinds = KINDS
    answers = [
        {"resource": {"resourceType": "Claim", "id": "c9"}, "response": {"status": "200 OK"}},
        {"resource": {"resourceType": "Claim", "id": "c8"}, "response": {"status": "201 Created"}},
        {"response": {"status": "204 No Content"}},
        {"resource": {"resourceType": "Patient", "id": "p1"}, "response": {"status": "200 OK"}},
    ]
    bench.upstream.answer({"resourceType": "Bundle", "type": "batch-response", "entry": answers})
    outcome = await bench.perform("batch", body=bundle("batch"), entries=ENTRIES)
    entries = msgspec.json.decode(outcome.body)["entry"]
    assert [each["response"]["status"] for each in entries] == [
        "404 Not Found",
        "201 Created",
        "204 No Content",
        "200 OK",
    ]
    assert ["resource" in each for each in entries] == [False, False, False, True]
    assert outcome.entries == (404, 201, 204, 200)


@pytest.mark.requirement("PX-10")
async def test_px10_a_batch_that_only_reads_announces_nothing(bench: Any) -> None:
    bench.policy.kinds = KINDS
    row = {"request": {"method": "GET", "url": "Patient/p1"}}
    body = msgspec.json.encode({"resourceType": "Bundle", "type": "batch", "entry": [row]})
    answer = {"resource": {"resourceType": "Patient", "id": "p1"}, "response": {"status": "200 OK"}}
    bench.upstream.answer({"resourceType": "Bundle", "type": "batch-response", "entry": [answer]})
    await bench.perform("batch", body=body, entries=(Entry(method="GET", url="Patient/p1"),))
    assert bench.intents == []

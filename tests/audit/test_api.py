"""The ledger over HTTP: who may ask what, pages that stay stable, proofs, files of the log, following."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from audit_stage import PEOPLE, SCOPES, Stage, audit_stage
from audit_world import make_call, make_outcome, until
from engines import Nats, Postgres
from wardmesh_audit.log_list import list_keys, open_list
from wardmesh_audit.merkle import leaf_hash
from wardmesh_audit.note import open_note, parse_checkpoint
from wardmesh_audit.proof import check_proof, parse_proof
from wardmesh_common.contracts import Touched
from wardmesh_common.vocabulary import Interaction

pytestmark = pytest.mark.anyio
EVENTS = 300
READS = (
    "/v1/events",
    "/v1/events/tail?cursor=0:0",
    "/v1/events/{id}",
    "/v1/events/{id}/proof",
    "/v1/status",
    "/v1/gaps",
    "/v1/holds",
    "/v1/reviews",
    "/v1/patients/p1/access-report",
    "/v1/actors/i:doctor/activity-report",
    "/v1/disclosures?patient=p1",
    "/log/0/checkpoint",
    "/log/logs",
    "/log/0/tile/0/000",
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stage(broker: Nats, server: Postgres):
    async with audit_stage(broker, server) as made:
        for start in range(0, EVENTS, 50):
            await asyncio.gather(*(access(made, number) for number in range(start, start + 50)))
        await made.settled()
        await until(lambda: made.query("select 1 from log_list"), 120.0)
        yield made


async def access(stage: Stage, number: int) -> None:
    patient = f"p{number % 3 + 1}"
    await stage.record(make_call(number, patient=patient), *make_outcome(patient).touched)


async def event_id(stage: Stage) -> str:
    rows = await stage.query("select event_id::text as id from event where event_type = 'access' order by seq limit 1")
    return rows[0]["id"]


async def test_auditor_admin_and_compliance_read_and_nobody_else_does(stage: Stage) -> None:
    one = await event_id(stage)
    for path in READS:
        address = path.format(id=one)
        for who in PEOPLE:
            tail = address.startswith("/v1/events/tail")
            if tail and who in ("auditor", "admin", "compliance"):
                continue  # it would not end; see below
            answer = await stage.ask(who, address)
            own = who == "patient" and address == "/v1/patients/p1/access-report"
            expected = 200 if who in ("auditor", "admin", "compliance") or own else 403
            assert answer.status == expected, (who, address, answer.body)
            if expected == 403:
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert set(answer.json) == {"type", "title", "status", "detail"}
        assert (await stage.ask("", address)).status == 401


async def test_a_token_without_the_scope_of_the_ledger_is_not_enough(stage: Stage) -> None:
    lacking = await stage.ask("auditor", "/v1/events", scopes="fhir.read")
    assert (lacking.status, lacking.json["title"]) == (403, "insufficient scope")
    assert 'scope="audit.read fhir.read"' in lacking.headers["WWW-Authenticate"]
    body = {"reason": "case 7", "actor": "x"}
    assert (await stage.ask("admin", "/v1/holds", method="POST", json=body, scopes="audit.read")).status == 403


async def test_a_patient_sees_the_own_report_and_no_other(stage: Stage) -> None:
    own = await stage.ask("patient", "/v1/patients/p1/access-report", scopes="fhir.read")
    assert own.status == 200 and own.json["lines"]
    assert (await stage.ask("patient", "/v1/patients/p2/access-report", scopes="fhir.read")).status == 403
    assert (await stage.ask("patient", "/v1/patients/p2/access-report")).status == 403
    # Signed in, but the id means somebody else here.
    assert (await stage.ask("stranger", "/v1/patients/p1/access-report")).status == 403


async def test_officers_act_and_auditors_only_look(stage: Stage) -> None:
    hold = {"reason": "case 7", "actor": "i:doctor"}
    for who in PEOPLE:
        answer = await stage.ask(who, "/v1/holds", method="POST", json=hold)
        assert answer.status == (201 if who in ("admin", "compliance") else 403), who
        answer = await stage.ask(who, "/log/0/tile/entries/000.p/5")
        assert answer.status == (200 if who in ("admin", "compliance") else 403), who


@pytest.mark.requirement("AU-605")
async def test_every_reading_is_in_the_ledger_before_it_leaves(stage: Stage) -> None:
    one = await event_id(stage)
    for path in READS:
        if "tail" in path:
            continue
        answer = await stage.ask("auditor", path.format(id=one))
        # Acknowledged means stored: the answer is here, so the stream has the record and the writer will write it.
        call = answer.headers["X-Request-Id"]

        async def written(call: str = call) -> list[Any]:
            return await stage.query("select event_type, outcome, actor_id from event where request_id = $1", call)

        rows = await until(written, 60)
        assert [tuple(row) for row in rows] == [("audit_read", "success", "i:auditor")], path
    refused = await stage.ask("doctor", "/v1/events")
    rows = await until(lambda: stage.query("select outcome, leaf from event where request_id = $1",
                                           refused.headers["X-Request-Id"]), 10)  # fmt: skip
    assert rows[0]["outcome"] == "denied"
    assert json.loads(rows[0]["leaf"])["data"]["policy"]["reason"], "why it was refused can be found"


@pytest.mark.requirement("AU-605")
async def test_without_a_record_nothing_leaves(stage: Stage) -> None:
    """The stream of records is full: reading the ledger ends as audit_unavailable, whatever was found."""
    name = "$JS.API.STREAM.UPDATE.AUDIT_IN"
    info = json.loads((await stage.audit_bus.nc.request("$JS.API.STREAM.INFO.AUDIT_IN", b"", timeout=20)).data)
    narrow = {**info["config"], "max_bytes": info["state"]["bytes"] + 64}
    await stage.audit_bus.nc.request(name, json.dumps(narrow).encode(), timeout=20)
    try:
        answer = await stage.ask("auditor", "/v1/events")
    finally:
        await stage.audit_bus.nc.request(name, json.dumps(info["config"]).encode(), timeout=20)
    assert (answer.status, answer.json["title"]) == (503, "audit unavailable")
    assert b"events" not in answer.body

    async def back() -> bool:
        return (await stage.ask("auditor", "/v1/status")).status == 200

    await until(back, 60)


@pytest.mark.requirement("AU-604")
async def test_pages_hold_every_event_once_while_others_are_written(stage: Stage) -> None:
    ended = asyncio.Event()

    async def write() -> None:
        number = 10_000
        while not ended.is_set():
            await stage.record(make_call(number), *make_outcome("p1").touched)
            number += 1

    writing = asyncio.create_task(write())
    try:
        seen: list[int] = []
        cursor = ""
        async with asyncio.timeout(60):
            while len(seen) < EVENTS + 60:
                query = f"&cursor={cursor}" if cursor else ""
                page = (await stage.ask("auditor", f"/v1/events?limit=37{query}")).json
                seen += [event["index"] for event in page["events"]]
                cursor = page["events"][-1]["cursor"]
        assert seen == list(range(len(seen))), "no event twice, none skipped"
        # Backwards from one point: what comes on top in the meantime changes nothing below.
        down: list[int] = []
        cursor = f"0:{EVENTS}"
        while cursor:
            page = (await stage.ask("auditor", f"/v1/events?order=newest&limit=41&cursor={cursor}")).json
            down += [event["index"] for event in page["events"]]
            cursor = page["next"]
        assert down == list(range(EVENTS - 1, -1, -1))
    finally:
        ended.set()
        await writing


async def test_filters_and_every_sort_order_give_the_same_events(stage: Stage) -> None:
    await stage.settled()
    wanted = {row["seq"] for row in await stage.query(
        "select seq from event where event_type = 'access' and actor_id = 'issuer|doctor'"
    )}  # fmt: skip
    found = await collect(stage, "/v1/events?type=access&actor=issuer%7Cdoctor&limit=1000")
    assert {event["index"] for event in found} == wanted
    one_patient = await collect(stage, "/v1/events?patient=p2&type=access&limit=1000")
    pseudonyms = {event["event"]["data"]["patient"]["pseudonym"] for event in one_patient}
    assert len(pseudonyms) == 1 and len(one_patient) == EVENTS // 3
    period = "from=2020-01-01&to=2020-01-20"
    assert await collect(stage, f"/v1/events?{period}&limit=10") == []
    from wardmesh_audit.query_sorts import SORTS

    since = "from={}&to={}".format(*(await day(stage)))
    for name in SORTS:
        rising = await collect(stage, f"/v1/events?{since}&type=access&actor=issuer%7Cdoctor&limit=150&sort={name}")
        assert {event["index"] for event in rising} == wanted, name
        assert len(rising) == len(wanted), name
    falling = await collect(stage, f"/v1/events?{since}&type=access&limit=150&sort=-patient")
    # A correction of a record that came too late names nobody.
    shown = [(event["event"]["data"]["patient"] or {}).get("pseudonym", "") for event in falling]
    assert shown == sorted(shown, reverse=True)
    assert (await stage.ask("auditor", "/v1/events?sort=actor")).status == 400
    assert (await stage.ask("auditor", "/v1/events?sort=actor&from=2020-01-01&to=2021-01-01")).status == 400


async def day(stage: Stage) -> tuple[str, str]:
    rows = await stage.query(
        "select (now() - interval '1 day')::date::text as a, (now() + interval '1 day')::date::text as b"
    )
    return rows[0]["a"], rows[0]["b"]


async def collect(stage: Stage, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await stage.ask("auditor", path + (f"&cursor={cursor}" if cursor else ""))).json
        found += page["events"]
        cursor = page["next"]
        if not cursor:
            return found


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "cursor=5", "cursor=1:5", "order=up", "sort=nothing", "break_glass=yes",
     "from=yesterday", "unknown=1", "type=access&type=write", "pseudonym=zz", "patient=a%2Fb"],
)  # fmt: skip
async def test_a_question_that_makes_no_sense_is_400_and_is_not_repeated(stage: Stage, query: str) -> None:
    answer = await stage.ask("auditor", f"/v1/events?{query}")
    assert answer.status == 400, answer.body
    assert "yesterday" not in answer.json["detail"] and "zz" not in answer.json["detail"]


async def test_one_event_its_proof_and_the_files_of_the_log_verify(stage: Stage) -> None:
    await stage.settled()
    one = await event_id(stage)
    line = (await stage.ask("auditor", f"/v1/events/{one}")).json
    proof = parse_proof((await stage.ask("auditor", f"/v1/events/{one}/proof")).body.decode())
    checkpoint = check_proof(proof, [stage.signer.verifier])
    assert (proof.index, json.loads(proof.leaf)) == (line["index"], line["event"])
    note = (await stage.ask("auditor", "/log/0/checkpoint")).body.decode()
    newest = parse_checkpoint(open_note(note, [stage.signer.verifier]))
    assert newest.size >= checkpoint.size
    tile = await stage.ask("auditor", "/log/0/tile/0/000")
    bundle = await stage.ask("admin", "/log/0/tile/entries/000")
    entries = bundle.body if bundle.headers.get("Content-Encoding") == "gzip" else gzip.compress(bundle.body)
    leaves = unbundled(entries if entries[:2] != b"\x1f\x8b" else gzip.decompress(entries))
    assert tile.body == b"".join(leaf_hash(leaf) for leaf in leaves)
    assert "immutable" in tile.headers["Cache-Control"]
    for wrong in ("0/999", "0/001.p/256", "9/000", "0/x000/000", "0/1", "0/000.p/0", "64/000"):
        assert (await stage.ask("auditor", f"/log/0/tile/{wrong}")).status == 404, wrong
    assert (await stage.ask("auditor", "/log/7/checkpoint")).status == 404
    assert (await stage.ask("auditor", f"/v1/events/{uuid.uuid4()}")).status == 404


async def test_the_signed_list_of_logs_is_read_like_any_file_and_recorded(stage: Stage) -> None:
    keys = list_keys("test", [stage.signer.verifier])
    newest = await stage.ask("auditor", "/log/logs")
    made = open_list(newest.body.decode(), keys)
    assert [log.origin for log in made.logs] == ["test/audit/0"]
    assert newest.headers["Content-Type"].startswith("text/plain") and newest.headers["Cache-Control"] == "no-store"
    assert (await stage.ask("auditor", f"/log/logs/{made.day}")).body == newest.body
    before = made.day - timedelta(days=1)
    for path, status in ((f"logs/{before}", 404), ("logs/2026-13-01", 400), ("logs/today", 404), ("logs?day=1", 400)):
        assert (await stage.ask("auditor", f"/log/{path}")).status == status, path

    async def recorded() -> Any:
        told = "convert_from(leaf, 'UTF8')::jsonb #>> '{data,request,route}'"
        return await stage.query(f"select 1 from event where event_type = 'audit_read' and {told} = 'read_log_list'")

    await until(recorded)


def unbundled(data: bytes) -> list[bytes]:
    leaves: list[bytes] = []
    while data:
        length = int.from_bytes(data[:2], "big")
        leaves.append(data[2 : 2 + length])
        data = data[2 + length :]
    return leaves


async def test_a_follower_gets_what_comes_resumes_by_cursor_and_ends_with_its_right(stage: Stage) -> None:
    size = await stage.settled()
    headers = {"authorization": f"Bearer auditor:{SCOPES}", "accept": "text/event-stream"}
    address = f"{stage.base}/v1/events/tail?type=access"
    async with asyncio.timeout(60):
        async with stage.http.get(address, headers={**headers, "last-event-id": f"0:{size - 2}"}) as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            await stage.record(make_call(1, patient="p1"), *make_outcome("p1").touched)
            first = await next_event(stream, b"audit")
        cursor = first["cursor"]
        await stage.record(make_call(2, patient="p1"), *make_outcome("p1").touched)
        async with stage.http.get(f"{address}&cursor={cursor}", headers=headers) as stream:
            second = await next_event(stream, b"audit")
            assert second["index"] > first["index"]
            # From now on the caller may not: the next question of the stream is refused, and it ends.
            stage.revoked.add("auditor")
            await stage.record(make_call(3, patient="p1"), *make_outcome("p1").touched)
            try:
                problem = await next_event(stream, b"problem")
            finally:
                stage.revoked.clear()
            assert problem["code"] == "invalid_token"
            assert (await stream.content.read()).strip() == b""
        headers["accept"] = "application/x-ndjson"
        async with stage.http.get(f"{address}&cursor={cursor}", headers=headers) as stream:
            assert json.loads(await stream.content.readline())["index"] == second["index"]


async def next_event(stream: Any, kind: bytes) -> dict[str, Any]:
    """The data of the next event of this kind; heartbeats and others pass by."""
    name = b""
    while True:
        line = await stream.content.readline()
        assert line, "the stream ended"
        if line.startswith(b"event: "):
            name = line[7:].strip()
        elif line.startswith(b"data: ") and name == kind:
            return json.loads(line[6:])


async def test_following_does_not_feed_itself(stage: Stage) -> None:
    """The record of a following is an event too; it must not wake the follower that caused it."""
    headers = {"authorization": f"Bearer auditor:{SCOPES}"}
    size = await stage.settled()
    async with asyncio.timeout(60), stage.http.get(f"{stage.base}/v1/events/tail", headers=headers) as stream:
        await stream.content.readline()
        await stage.record(make_call(5), *make_outcome("p1").touched)
        await stream.content.readline()
    later = await stage.settled()
    rows = await stage.query("select count(*) as n from event where seq >= $1 and event_type = 'audit_read'", size)
    assert later > size and rows[0]["n"] <= 4


async def test_holds_need_two_persons(stage: Stage) -> None:
    body = {"reason": "case 12", "patient": "p1", "from": "2026-01-01"}
    made = (await stage.ask("admin", "/v1/holds", method="POST", json=body)).json
    address = f"/v1/holds/{made['id']}/release"
    first = await stage.ask("admin", address, method="POST")
    assert (first.status, first.json["release_asked_by"]) == (200, "i:admin")
    assert (await stage.ask("admin", address, method="POST")).status == 409
    second = await stage.ask("compliance", address, method="POST")
    assert (second.status, second.json["released_by"]) == (200, "i:compliance")
    held = (await stage.ask("auditor", "/v1/holds")).json["holds"]
    assert made["id"] not in {hold["id"] for hold in held}
    assert made["id"] in {h["id"] for h in (await stage.ask("auditor", "/v1/holds?released=true")).json["holds"]}
    await stage.settled()
    rows = await stage.query(
        "select phase, action, leaf from event where event_type = 'retention' and request_id = replace($1, '-', '')"
        " order by seq",
        made["id"],
    )
    assert [(row["phase"], row["action"]) for row in rows] == [("intent", "C"), ("outcome", "C")]
    assert b"case 12" not in rows[0]["leaf"] + rows[1]["leaf"], "the reason stays in the office"
    assert (await stage.ask("admin", "/v1/holds", method="POST", json={"reason": "x"})).status == 400
    unknown = {"reason": "x", "patient": "never-seen"}
    assert (await stage.ask("admin", "/v1/holds", method="POST", json=unknown)).status == 404


async def test_a_review_is_closed_once_with_evidence_and_not_by_whom_it_is_about(stage: Stage) -> None:
    rows = await stage.query("select seq, patient_ref from event where event_type = 'access' order by seq limit 1")
    alert, review = uuid.uuid4(), uuid.uuid4()
    await stage.query(
        "insert into alert (id, rule, log_id, seq, severity, actor_id, patient_ref, facts)"
        " values ($1, 'bulk_reading', 0, $2, 'high', 'i:admin', $3, '{\"patients\": 61}')",
        alert, rows[0]["seq"], rows[0]["patient_ref"],
    )  # fmt: skip
    await stage.query("insert into review (id, alert_id, kind) values ($1, $2, 'alert')", review, alert)
    queue = (await stage.ask("auditor", "/v1/reviews")).json["reviews"]
    entry = next(each for each in queue if each["id"] == str(review))
    assert (entry["rule"], entry["facts"], entry["cursor"]) == ("bulk_reading", {"patients": 61}, f"0:{rows[0]['seq']}")
    address = f"/v1/reviews/{review}"
    good = {"outcome": "appropriate", "evidence": "spoke with the ward, transfer of 61 patients"}
    assert (await stage.ask("auditor", address, method="POST", json=good)).status == 403
    assert (await stage.ask("admin", address, method="POST", json=good)).status == 403, "about the admin himself"
    for bad in ({"outcome": "fine", "evidence": "x"}, {"outcome": "appropriate", "evidence": " "}, {}):
        assert (await stage.ask("compliance", address, method="POST", json=bad)).status == 400
    done = await stage.ask("compliance", address, method="POST", json=good)
    assert (done.status, done.json["status"], done.json["reviewer"]) == (200, "closed", "i:compliance")
    assert (await stage.ask("compliance", address, method="POST", json=good)).status == 200, "the same again"
    other = {**good, "outcome": "escalated"}
    assert (await stage.ask("compliance", address, method="POST", json=other)).status == 409
    assert (await stage.ask("compliance", f"/v1/reviews/{uuid.uuid4()}", method="POST", json=good)).status == 404


async def test_seals_are_opened_for_compliance_only(stage: Stage) -> None:
    one = await event_id(stage)
    for who in ("auditor", "admin", "doctor"):
        assert (await stage.ask(who, f"/v1/events/{one}?sealed=open")).status == 403
    opened = (await stage.ask("compliance", f"/v1/events/{one}?sealed=open")).json
    patient = opened["sealed"]["patient"]
    assert patient.startswith("store/Patient/p")
    shown = (await stage.ask("auditor", f"/v1/events/{one}")).body
    assert patient.encode() not in shown


async def test_status_and_the_callers_own_trail(stage: Stage) -> None:
    status = (await stage.ask("auditor", "/v1/status")).json
    log = status["logs"][0]
    assert log["size"] >= log["checkpoint_size"] > 0 and log["last_verification"] is None
    assert status["guard"] == "holds" and {"writer", "publisher"} <= set(status["roles"])
    await stage.ask("doctor", "/v1/events")
    await stage.settled()
    trail = (await stage.ask("doctor", "/audit-latest/", scopes="fhir.read")).json["items"]
    assert 0 < len(trail) <= 10
    assert {item["user_id"] for item in trail} == {"i:doctor"}
    assert set(trail[0]) == {"id", "action", "table_name", "timestamp", "user_id", "ip_address"}
    assert (await stage.ask("", "/audit-latest/")).status == 401


async def test_a_large_answer_travels_in_chunks(stage: Stage) -> None:
    await stage.record(make_call(77, interaction=Interaction.SEARCH), Touched(patient="", type="Patient", count=0))
    whole = await stage.ask("auditor", "/v1/events?limit=1000")
    assert len(whole.body) > 256 * 1024
    assert len(whole.json["events"]) > EVENTS

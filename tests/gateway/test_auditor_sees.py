"""An auditor sees no patient detail on any page, route or export; what a review came to is kept on every face of it."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit_stage import Stage, audit_stage
from audit_world import make_call, make_outcome, until
from engines import nats, postgres
from wardmesh_gateway.console_page import ROOT

pytestmark = pytest.mark.anyio
PATIENT = "canary-p7"
CANARIES = (PATIENT, "Canarius", "canary-o9")
PROGRAM = Path(sys.executable).with_name("wardmesh-audit")
API = (
    "/v1/events", "/v1/events?order=newest", "/v1/events?patient=" + PATIENT, "/v1/events/{id}",
    "/v1/events/{id}/proof", "/v1/status", "/v1/gaps", "/v1/holds", "/v1/reviews?status=all",
    "/v1/reviews?status=all&format=csv",
    "/v1/actors/issuer|doctor/activity-report", "/v1/disclosures?patient=" + PATIENT, "/audit-latest/",
    *(f"/v1/patients/{PATIENT}/access-report?format={form}" for form in ("json", "csv", "pdf")),
)  # fmt: skip
PAGES = ("", "/events", "/reviews", "/reviews?status=closed", "/verification", "/patient", "/event/{id}")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    with nats() as broker, postgres(durable=True) as server:
        async with audit_stage(broker, server) as made:
            for number in range(3):
                call = make_call(number, patient=PATIENT)
                call.query = "name=Canarius&_id=canary-o9"
                outcome = make_outcome(PATIENT)
                (touched,) = outcome.touched
                await made.record(call, msgspec.structs.replace(touched, type="Observation", ids=("canary-o9",)))
            await made.settled(20)
            yield made


async def event_id(stage: Stage) -> str:
    return (await stage.query("select event_id::text as id from event where event_type = 'access' limit 1"))[0]["id"]


def quiet(body: bytes, face: str, *, said: str = "") -> None:
    """Nothing of what is sealed; `said` is what the asker named himself and a form may show again."""
    text = body.decode("latin-1")
    for canary in CANARIES:
        assert text.count(canary) == (1 if canary == said else 0), f"{face}: {canary}"


async def as_page(stage: Stage, who: str, path: str, **form: str) -> tuple[int, bytes]:
    headers = {"cookie": f"app_session={who}", "origin": stage.base}
    method = "POST" if form else "GET"
    async with stage.http.request(method, f"{stage.base}{ROOT}{path}", headers=headers, data=form or None) as answer:
        return answer.status, await answer.read()


@pytest.mark.requirement("B-6")
@pytest.mark.parametrize("path", API)
async def test_no_route_shows_an_auditor_what_is_sealed(stage: Stage, path: str) -> None:
    path = path.format(id=await event_id(stage))
    answer = await stage.ask("auditor", path)
    assert answer.status == 200, answer.body
    quiet(answer.body, path)


@pytest.mark.requirement("B-6")
@pytest.mark.parametrize("path", PAGES)
async def test_no_page_of_the_console_shows_an_auditor_what_is_sealed(stage: Stage, path: str) -> None:
    path = path.format(id=await event_id(stage))
    status, body = await as_page(stage, "auditor", path)
    assert status == 200
    quiet(body, path)


async def test_the_timeline_and_the_streams_show_pseudonyms(stage: Stage) -> None:
    _, form = await as_page(stage, "auditor", "/patient")
    csrf = form.decode().partition('name="csrf" value="')[2].partition('"')[0]
    status, body = await as_page(stage, "auditor", "/patient", csrf=csrf, patient=PATIENT)
    assert status == 200 and b"3 accesses by 1 person" in body
    quiet(body, "timeline", said=PATIENT)
    headers = {"cookie": "app_session=auditor", "accept": "text/event-stream"}
    for address in (f"{ROOT}/stream?cursor=0:0", "/v1/events/tail?cursor=0:0"):
        async with stage.http.get(stage.base + address, headers=headers) as answer:
            assert answer.status == 200
            async with asyncio.timeout(60):
                chunk = await answer.content.readuntil(b"\n\n")
            quiet(chunk, address)


@pytest.mark.requirement("B-6")
@pytest.mark.parametrize("who", ["auditor", "admin", "doctor", "nurse", "patient"])
async def test_only_policy_opens_a_seal(stage: Stage, who: str) -> None:
    one = await event_id(stage)
    for path in (f"/v1/events/{one}?sealed=open", f"/v1/disclosures?patient={PATIENT}&sealed=open"):
        answer = await stage.ask(who, path)
        assert answer.status == 403
        quiet(answer.body, path)
    opened = await stage.ask("compliance", f"/v1/events/{one}?sealed=open")
    assert opened.status == 200 and all(canary.encode() in opened.body for canary in CANARIES)


@pytest.mark.requirement("B-6")
@pytest.mark.parametrize("form", ["ndjson", "tlog", "parquet", "ocsf", "balp"])
async def test_no_export_holds_what_is_sealed(stage: Stage, form: str, tmp_path: Path) -> None:
    await stage.settled(20)
    done = await command(stage, "export", str(tmp_path / form), "--format", form)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / form).rglob("*") if path.is_file()]
    assert files
    for path in files:
        quiet(path.read_bytes(), f"{form} {path.name}")


async def command(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **stage.environ}
    return await asyncio.to_thread(
        subprocess.run, [PROGRAM, *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


async def opened_review(stage: Stage) -> str:
    rows = await stage.query("select seq, patient_ref, actor_id from event where event_type = 'access' limit 1")
    alert, review = uuid.uuid4(), uuid.uuid4()
    await stage.query(
        "insert into alert (id, rule, log_id, seq, severity, score, actor_id, patient_ref, facts)"
        " values ($1, 'vip', 0, $2, 'high', 0.6, $3, $4, '{\"list\": \"vip\"}')",
        alert, rows[0]["seq"], rows[0]["actor_id"], rows[0]["patient_ref"],
    )  # fmt: skip
    await stage.query("insert into review (id, alert_id, kind) values ($1, $2, 'alert')", review, alert)
    return str(review)


async def closing(stage: Stage, review: str) -> list[dict[str, Any]]:
    """The events about the closing: intent and outcome."""

    async def there() -> list[dict[str, Any]]:
        rows = await stage.query("select leaf from event where event_type = 'alert' order by seq")
        found = [json.loads(row["leaf"])["data"] for row in rows]
        found = [data for data in found if (data.get("facts") or {}).get("review") == review]
        return found if any(data["phase"] == "outcome" for data in found) else []

    return await until(there, 60)


async def test_what_a_review_came_to_is_kept_exported_and_in_the_ledger(stage: Stage) -> None:
    """Closed over HTTP and on the command line; read as JSON, CSV, a page, and from the ledger itself."""
    over_http, by_command = await opened_review(stage), await opened_review(stage)
    evidence = "asked the ward, Canarius was moved"
    body = {"outcome": "appropriate", "evidence": evidence}
    done = await stage.ask("compliance", f"/v1/reviews/{over_http}", method="POST", json=body)
    assert done.status == 200 and done.json["closed_at"]
    for wrong in (["--outcome", "fine"], ["--outcome", "escalated", "--evidence", " "]):
        refused = await command(stage, "reviews", "close", by_command, "--by", "officer", "--evidence", "x", *wrong)
        assert (refused.returncode, refused.stdout) == (64, "")
    given = ["--outcome", "escalated", "--evidence", "=1+1 told the board", "--by", "officer"]
    closed = await command(stage, "reviews", "close", by_command, *given)
    assert closed.returncode == 0, closed.stderr
    assert json.loads(closed.stdout)["reviewer"] == "officer"
    about_himself = await opened_review(stage)
    himself = ["--outcome", "appropriate", "--evidence", "me", "--by", "issuer|doctor"]
    assert (await command(stage, "reviews", "close", about_himself, *himself)).returncode == 3

    listed = await command(stage, "reviews", "list", "--status", "closed", "--format", "csv", "--by", "officer")
    assert listed.returncode == 0, listed.stderr
    lines = {row["id"]: row for row in csv.DictReader(io.StringIO(listed.stdout))}
    over_api = await stage.ask("auditor", "/v1/reviews?status=closed&format=csv")
    assert over_api.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert {row["id"]: row for row in csv.DictReader(io.StringIO(over_api.body.decode()))} == lines
    first, second = lines[over_http], lines[by_command]
    assert (first["outcome"], first["reviewer"], first["evidence"]) == ("appropriate", "i:compliance", evidence)
    assert (second["outcome"], second["reviewer"]) == ("escalated", "officer")
    assert second["evidence"].startswith("'="), "a spreadsheet runs nothing"
    assert first["closed_at"] and second["closed_at"]
    assert (await stage.ask("auditor", "/v1/reviews?format=pdf")).status == 400
    _, page = await as_page(stage, "auditor", "/reviews?status=closed")
    assert evidence in page.decode() and "Closed" in page.decode() and "i:compliance" in page.decode()

    (event,) = [data for data in await closing(stage, over_http) if data["phase"] == "outcome"]
    assert event["facts"]["review_outcome"] == "appropriate"
    assert event["facts"]["evidence_sha256"] == hashlib.sha256(evidence.encode()).hexdigest()
    assert evidence not in json.dumps(event), "free text is sealed"
    told = [data for data in await closing(stage, by_command) if data["phase"] == "outcome"]
    assert told[-1]["facts"]["review_outcome"] == "escalated" and told[-1]["actor"]["id"] == "officer"
    read = await stage.query("select actor_id from event where event_type = 'audit_read' and actor_id = 'officer'")
    assert read, "the listing is in the ledger"

"""Reports: every access once with a proof that verifies alone; the accounting of disclosures by its rules."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import re
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit_stage import Stage, audit_stage
from audit_world import make_call
from engines import Nats, Postgres
from wardmesh_audit.disclosure_rules import Disclosed, accountable
from wardmesh_audit.proof import Proof, check_proof, parse_proof
from wardmesh_common.contracts import Touched
from wardmesh_common.leaf import Draft
from wardmesh_common.vocabulary import Interaction

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stage(broker: Nats, server: Postgres):
    async with audit_stage(broker, server) as made:
        yield made


@pytest.mark.requirement("AU-606")
async def test_the_access_report_equals_a_model_and_every_line_is_proven(stage: Stage) -> None:
    model: dict[str, set[str]] = {f"m{n}": set() for n in range(4)}
    chance = random.Random(7)
    for number in range(80):
        kind = chance.choice([Interaction.READ, Interaction.SEARCH, Interaction.UPDATE])
        patients = chance.sample(sorted(model), chance.randint(1, 3)) if kind is Interaction.SEARCH else [
            chance.choice(sorted(model))
        ]  # fmt: skip
        call = make_call(number, interaction=kind, patient="" if kind is Interaction.SEARCH else patients[0])
        call.id = f"r-{number}"
        touched = tuple(Touched(patient=f"store/Patient/{p}", type="Patient", ids=(p,), count=1) for p in patients)
        if kind is Interaction.UPDATE:
            await stage.recorder.intent(call, touched)
        if kind is not Interaction.UPDATE or number % 4:  # some writes never come to an end
            await stage.record(call, *touched, status=chance.choice([200, 200, 403]))
        for patient in patients:
            model[patient].add(call.id)
    await stage.settled()
    for patient, requests in model.items():
        lines = await report_lines(stage, patient)
        assert sorted(line["request"] for line in lines) == sorted(requests), "each once, none of another patient"
        assert {line["finished"] for line in lines if line["type"] != "write"} == {True}
        assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    unfinished = [line for p in model for line in await report_lines(stage, p) if not line["finished"]]
    assert unfinished, "a write without an end is listed as what it is"


async def report_lines(stage: Stage, patient: str) -> list[dict[str, Any]]:
    """All pages; each line is checked against the page's checkpoint with what is in the report alone."""
    lines: list[dict[str, Any]] = []
    cursor = ""
    while True:
        query = f"&cursor={cursor}" if cursor else ""
        answer = await stage.ask("auditor", f"/v1/patients/{patient}/access-report?limit=7{query}")
        report = answer.json
        for line in report["lines"]:
            log, _, index = line["cursor"].partition(":")
            hashes = tuple(base64.b64decode(part) for part in line["proof"])
            proof = Proof(index=int(index), leaf=line["leaf"].encode(), hashes=hashes, note=report["checkpoints"][log])
            check_proof(proof, [stage.signer.verifier])
            assert json.loads(line["leaf"])["data"]["patient"]["pseudonym"] == line["patient"] == report["about"]
            assert f"Patient/{patient}" not in line["leaf"]
        lines += report["lines"]
        cursor = report["next"]
        if not cursor:
            return lines


@pytest.mark.requirement("AU-606")
async def test_csv_lines_carry_a_proof_file_each_and_pdf_carries_the_report(stage: Stage) -> None:
    call = make_call(900, patient="c1")
    call.principal = type(call.principal)(id='=HYPERLINK("x")', roles=("Doctor",))  # type: ignore[misc]
    await stage.record(call, Touched(patient="store/Patient/c1", type="Patient", ids=("c1",), count=1))
    await stage.settled()
    answer = await stage.ask("auditor", "/v1/patients/c1/access-report?format=csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="access-report.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert len(rows) == 1 and rows[0]["actor"] == '\'=HYPERLINK("x")', "no formula for a spreadsheet"
    proof = parse_proof(base64.b64decode(rows[0]["tlog_proof"]).decode())
    check_proof(proof, [stage.signer.verifier])
    pdf = (await stage.ask("auditor", "/v1/patients/c1/access-report?format=pdf")).body
    assert pdf.startswith(b"%PDF-")
    streams = [unpacked(part) for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)]
    attached = next(json.loads(part) for part in streams if part.startswith(b'{"report"'))
    assert attached["lines"][0]["id"] == rows[0]["id"] and attached["lines"][0]["proof"] is not None
    for wrong in ("format=xml", "limit=5000", "format=pdf&limit=501"):
        assert (await stage.ask("auditor", f"/v1/patients/c1/access-report?{wrong}")).status == 400


def unpacked(part: bytes) -> bytes:
    try:
        return zlib.decompress(part)
    except zlib.error:
        return part


async def test_a_stranger_has_an_empty_report_and_asking_makes_nobody_known(stage: Stage) -> None:
    answer = (await stage.ask("auditor", "/v1/patients/nobody-here/access-report")).json
    assert (answer["lines"], answer["about"]) == ([], "")


async def test_the_activity_report_lists_what_one_user_did(stage: Stage) -> None:
    await stage.ask("nurse", "/v1/status")
    await stage.settled()
    lines = (await stage.ask("auditor", "/v1/actors/i:nurse/activity-report")).json["lines"]
    assert [(line["type"], line["outcome"]) for line in lines] == [("audit_read", "denied")]
    assert (await stage.ask("nurse", "/v1/actors/i:nurse/activity-report")).status == 403


DAY = timedelta(days=1)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("item", "owed"),
    [
        ({"legal_basis": "public_health"}, True),
        ({"legal_basis": "law_enforcement"}, True),
        ({"legal_basis": ""}, True),
        *(({"legal_basis": basis}, False) for basis in (
            "treatment", "payment", "operations", "individual", "incidental", "authorization", "facility_directory",
            "national_security", "custodial", "limited_data_set")),
        ({"legal_basis": "public_health", "at": NOW - 6 * 365 * DAY}, True),
        ({"legal_basis": "public_health", "at": NOW - 6.1 * 365 * DAY}, False),
        ({"legal_basis": "authorization", "part2": True, "with_consent": True}, True),
        ({"legal_basis": "authorization", "part2": True, "with_consent": True, "at": NOW - 3.1 * 365 * DAY}, False),
        ({"legal_basis": "authorization", "part2": True}, False),
        ({"legal_basis": "treatment", "part2": True, "with_consent": True}, False),
        ({"legal_basis": "treatment", "part2": True, "with_consent": True, "through_ehr": True}, True),
        ({"legal_basis": "public_health", "part2": True, "with_consent": True, "at": NOW - 5 * 365 * DAY}, True),
    ],
)  # fmt: skip
async def test_what_is_owed_an_account(item: dict[str, Any], owed: bool) -> None:
    assert accountable(Disclosed(**{"at": NOW - DAY, **item}), NOW) is owed


def disclosure(patient: str, basis: str, recipient: str, **more: Any) -> Draft:
    labels = ["part2"] if more.get("part2") else []
    data: dict[str, Any] = {
        "action": "E",
        "actor": {"id": "i:registrar", "type": "practitioner"},
        "disclosure": {"legal_basis": basis, "recurring": more.get("recurring", False), "request_ref": "rq-1"},
        "outcome": {"code": "success", "reason": ""},
        "phase": "outcome",
        "resource": {"count": 1, "labels": labels, "platform": "store", "type": "Condition"},
    }
    if more.get("part2"):
        data["consent_ref"] = "consent-1"
    secrets = {"recipient": recipient, "address": "1 Example Road", "description": "diagnosis list"}
    return Draft(event_class="disclosure", data=data, tenant="default", patient=f"store/Patient/{patient}",
                 secrets=secrets)  # fmt: skip


@pytest.mark.requirement("AU-607")
async def test_the_accounting_holds_what_is_owed_summarised_and_honours_a_suspension(stage: Stage) -> None:
    await stage.record_draft(
        disclosure("p1", "treatment", "Dr Excluded"),
        disclosure("p1", "public_health", "County Registry", recurring=True),
        disclosure("p1", "law_enforcement", "Sheriff"),
        disclosure("p1", "authorization", "Clinic Two", part2=True),
        disclosure("p2", "public_health", "Somebody Else"),
    )
    for _ in range(2):  # later: the events of one call have one moment
        await stage.record_draft(disclosure("p1", "public_health", "County Registry", recurring=True))
    await stage.settled()
    opened = await stage.ask("compliance", "/v1/disclosures?patient=p1&sealed=open")
    found = {item["recipient"]: item for item in opened.json["disclosures"]}
    assert set(found) == {"County Registry", "Sheriff", "Clinic Two"}
    registry = found["County Registry"]
    assert (registry["times"], registry["purpose"], registry["request"]) == (3, "public_health", "rq-1")
    assert (registry["address"], registry["description"]) == ("1 Example Road", "diagnosis list")
    assert registry["date"] < registry["last"] and len(registry["repeats"]) == 2
    assert found["Clinic Two"]["part2"] and all(item["line"]["proof"] is not None for item in found.values())
    # The patient may have it; an auditor sees that there were disclosures, not to whom.
    own = await stage.ask("patient", "/v1/disclosures?patient=p1&sealed=open", scopes="fhir.read")
    assert {item["recipient"] for item in own.json["disclosures"]} == set(found)
    closed = await stage.ask("auditor", "/v1/disclosures?patient=p1")
    assert {item["recipient"] for item in closed.json["disclosures"]} == {"sealed"}
    assert (await stage.ask("auditor", "/v1/disclosures?patient=p1&sealed=open")).status == 403
    assert (await stage.ask("patient", "/v1/disclosures?patient=p2&sealed=open")).status == 403
    await check_suspension(stage)


async def check_suspension(stage: Stage) -> None:
    body = {"patient": "p1", "reason": "letter of the district court", "from": "2020-01-01", "to": "2099-01-01"}
    path = "/v1/disclosures/suspensions"
    assert (await stage.ask("auditor", path, method="POST", json=body)).status == 403
    assert (await stage.ask("admin", path, method="POST", json={**body, "to": "2019-01-01"})).status == 400
    assert (await stage.ask("admin", path, method="POST", json=body)).status == 201
    own = (await stage.ask("patient", "/v1/disclosures?patient=p1&sealed=open")).json
    assert {item["recipient"] for item in own["disclosures"]} == {"County Registry", "Clinic Two"}
    assert own["suspended"] is None, "nothing tells the patient of it"
    assert (await stage.ask("compliance", "/v1/disclosures?patient=p1&sealed=open")).json["suspended"] == 1
    rows = list(csv.DictReader(io.StringIO(
        (await stage.ask("compliance", "/v1/disclosures?patient=p1&sealed=open&format=csv")).body.decode())
    ))  # fmt: skip
    assert {row["recipient"] for row in rows} == {"County Registry", "Clinic Two"}
    check_proof(parse_proof(base64.b64decode(rows[0]["tlog_proof"]).decode()), [stage.signer.verifier])
    pdf = (await stage.ask("compliance", "/v1/disclosures?patient=p1&sealed=open&format=pdf")).body
    assert pdf.startswith(b"%PDF-")

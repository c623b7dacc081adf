"""Jobs at HAPI: several files in one import, what is followed, stopped and refused (HL-10)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hapi_stage import FILES, OUTPUT, ROLE, StandIn, outcome_of

pytestmark = pytest.mark.anyio


async def test_an_export_is_started_once_and_followed_until_its_files_are_there(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
    status, said = await hapi.manage_as("$start-export-job", datastore, **asked)
    assert (status, said["JobId"], said["JobStatus"]) == (200, "export-0f-1", "SUBMITTED")
    assert "no role" in said["Message"]
    sent = bench.upstream.requests[-1]
    assert (sent.path, sent.headers["Prefer"]) == (f"/r4/{datastore}/$export", "respond-async")
    assert sent.headers["Cache-Control"] == "no-cache", "an export of now, not HAPI's last one"
    file = {"type": "Patient", "url": f"http://hapi.inside:8080/fhir/{datastore}/Binary/b1"}
    hapi.polls = [
        (202, {}, {"X-Progress": "Build in progress - Status set to QUEUED at 12:00"}),
        (202, {}, {"X-Progress": "Build in progress - Status set to IN_PROGRESS at 12:00"}),
        (200, {"output": [file], "error": []}, {}),
        (500, outcome_of("a patient called Smith"), {}),
        (404, outcome_of("Unknown instance ID"), {}),
    ]
    seen = [await hapi.described("export", datastore, "export-0f-1") for _ in range(5)]
    assert [each.get("JobStatus") for each in seen] == ["SUBMITTED", "IN_PROGRESS", "COMPLETED", "FAILED", None]
    assert seen[2]["Files"] == [{"Type": "Patient", "Reference": "Binary/b1"}]
    assert seen[2]["JobProgressReport"] == {"TotalNumberOfExportedFiles": 1}
    assert "Smith" not in json.dumps(seen)
    assert seen[4]["code"] == "ResourceNotFoundException"
    mistaken = await hapi.described("import", datastore, "export-0f-1")
    assert mistaken["code"] == "ResourceNotFoundException", "an export is not described as an import"


async def test_an_export_is_stopped_and_what_has_ended_stays_as_it_ended(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    running = (202, {}, {"X-Progress": "Build in progress - Status set to IN_PROGRESS at 12:00"})
    gone = (404, outcome_of("Job instance <0f-1> was cancelled.  No status to report."), {})
    stop = {"DatastoreId": datastore, "JobId": "export-0f-1"}
    for cancelled, poll, state in (
        (202, running, "STOP_REQUESTED"),
        (202, gone, "STOPPED"),
        (404, gone, "STOPPED"),
        (404, (200, {"output": [], "error": []}, {}), "COMPLETED"),
    ):
        hapi.cancelled, hapi.polls = cancelled, [poll]
        status, said = await hapi.manage_as("$stop-export-job", datastore, **stop)
        assert (status, said) == (200, {"JobId": "export-0f-1", "JobStatus": state, "DatastoreId": datastore})
    sent = [seen for seen in bench.upstream.requests if seen.method == "DELETE"]
    assert {(seen.path, seen.query) for seen in sent} == {(f"/r4/{datastore}/$export-poll-status", "_jobId=0f-1")}
    status, said = await hapi.manage_as("$stop-export-job", datastore, **stop | {"JobId": "import-0f-1"})
    assert (status, said["code"]) == (404, "ResourceNotFoundException")
    hapi.polls = [(404, outcome_of("Unknown instance ID"), {})]
    status, said = await hapi.manage_as("$stop-export-job", datastore, **stop)
    assert (status, said["code"]) == (404, "ResourceNotFoundException")


async def test_one_import_takes_several_files_of_one_allowed_folder(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()

    async def start(url: str) -> tuple[int, Any]:
        asked = {"DatastoreId": datastore, "JobOutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
        return await hapi.manage_as("$start-import-job", datastore, InputDataConfig={"S3Uri": url}, **asked)

    for url in (
        f"{FILES}{{Patient.ndjson,all.ndjson}}",
        f"{FILES}{{Patient.ndjson,../Group.ndjson}}",
        f"{FILES}{{Patient.ndjson,}}",
        f"{FILES}{{Patient.ndjson,Patient.ndjson}}",
        f"{FILES}{{Patient.ndjson}}/{{Group.ndjson}}",
        "https://elsewhere.example/{Patient.ndjson,Group.ndjson}",
        FILES + "{" + ",".join(f"Patient.{number}.ndjson" for number in range(101)) + "}",
    ):
        status, said = await start(url)
        assert (status, said["code"]) == (400, "ValidationException"), url
    assert not any(seen.path.endswith("$import") for seen in bench.upstream.requests)
    status, said = await start(f"{FILES}2026/{{Observation.1.ndjson,Patient.ndjson,Observation.2.ndjson}}")
    assert (status, said["JobId"]) == (200, "import-0f-1")
    told = [p["part"] for p in json.loads(bench.upstream.requests[-1].body)["parameter"] if p["name"] == "input"]
    assert [(kind["valueCode"], url["valueUri"].removeprefix(f"{FILES}2026/")) for kind, url in told] == [
        ("Observation", "Observation.1.ndjson"),
        ("Patient", "Patient.ndjson"),
        ("Observation", "Observation.2.ndjson"),
    ]


async def test_an_import_names_a_file_below_an_allowed_address(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()

    async def start(url: str) -> tuple[int, Any]:
        asked = {"DatastoreId": datastore, "JobOutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
        return await hapi.manage_as("$start-import-job", datastore, InputDataConfig={"S3Uri": url}, **asked)

    before = len(bench.upstream.requests)
    for url in (
        "s3://bucket/Patient.ndjson",
        "https://elsewhere.example/exports/Patient.ndjson",
        f"{FILES}../secret/Patient.ndjson",
        f"{FILES}%2e%2e/Patient.ndjson",
        f"{FILES}Patient.ndjson?x=1",
        f"{FILES}folder/",
        f"{FILES}all.ndjson",
    ):
        status, said = await start(url)
        assert (status, said["code"]) == (400, "ValidationException"), url
    assert all(not seen.path.endswith("$import") for seen in bench.upstream.requests[before:])
    status, said = await start(f"{FILES}2026/Patient.000.ndjson")
    assert (status, said["JobId"]) == (200, "import-0f-1")
    inputs = [p for p in json.loads(bench.upstream.requests[-1].body)["parameter"] if p["name"] == "input"]
    told = {each["name"]: each for each in inputs[0]["part"]}
    assert told["type"]["valueCode"] == "Patient"
    assert told["url"]["valueUri"] == f"{FILES}2026/Patient.000.ndjson"
    hapi.polls = [
        (202, outcome_of("in IN_PROGRESS state"), {"X-Progress": "is in IN_PROGRESS state"}),
        (200, outcome_of("3 resources of http://files.example/x"), {}),
        (500, outcome_of("Job is in FAILED state with 3 error count. Last error: Smith"), {}),
        (404, outcome_of("Job was cancelled."), {}),
        (400, outcome_of("Invalid partition in request"), {}),
    ]
    seen = [await hapi.described("import", datastore, "import-0f-1") for _ in range(5)]
    assert [each.get("JobStatus") for each in seen] == ["IN_PROGRESS", "COMPLETED", "FAILED", "STOPPED", None]
    assert "files.example" not in json.dumps(seen) and "Smith" not in json.dumps(seen)
    hapi.describe(import_from=[])
    assert "names no place" in (await start(f"{FILES}Patient.ndjson"))[1]["message"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"OutputDataConfig": {"S3Configuration": {"S3Uri": "s3://b/k"}}}, "hapi:"),
        ({"OutputDataConfig": {"S3Configuration": {"S3Uri": "hapi:", "KmsKeyId": "k"}}}, "KmsKeyId"),
        ({"ClientToken": "t"}, "ClientToken"),
        ({"JobName": "n"}, "JobName"),
    ],
)
async def test_what_a_job_at_hapi_cannot_have_is_refused(bench: Any, more: dict[str, Any], text: str) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE, **more}
    status, said = await hapi.manage_as("$start-export-job", datastore, **asked)
    assert (status, said["code"]) == (400, "ValidationException")
    assert text in said["message"]
    assert not any("$export" in seen.path for seen in bench.upstream.requests)

"""Import and export jobs: what they read and write, their counts and errors, and what they refuse."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lake_stage import Jobs, client_of, fhir_of, folder_of, read_lines, write_lines
from store_stage import Fhir, StoreProcess, observation, patient


@pytest.fixture(scope="module")
def store_settings(root: Path) -> dict[str, str]:
    return {"WARDMESH_S3_FOLDER": str(root), "WARDMESH_FILE_ROOTS": json.dumps([str(root / "files")])}


@pytest.fixture
def jobs(store: StoreProcess) -> Jobs:
    lake = client_of(store)
    return Jobs(lake, lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])


@pytest.fixture
def fhir(store: StoreProcess, jobs: Jobs) -> Iterator[Fhir]:
    client = fhir_of(store, jobs.datastore)
    yield client
    client.http.close()


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    return caught.value.response["Error"]["Code"]


def bodies(fhir: Fhir) -> dict[str, bytes]:
    """Everything in the datastore, without what the server sets."""
    found: dict[str, bytes] = {}
    for kind in ("Patient", "Observation", "Bundle"):
        for page in fhir.pages(f"{kind}?_count=100"):
            for entry in page.get("entry", ()):
                resource = entry["resource"]
                meta = {k: v for k, v in resource["meta"].items() if k not in ("versionId", "lastUpdated")}
                found[f"{kind}/{resource['id']}"] = json.dumps(resource | {"meta": meta}, sort_keys=True).encode()
    return found


@pytest.mark.requirement("ST-69")
def test_many_identities_that_come_again_become_their_next_versions(root: Path, jobs: Jobs, fhir: Fhir) -> None:
    rounds, each = 3, 120  # all in one portion, so in one transaction
    lines = [patient(f"Round{turn}") | {"id": f"r{number}"} for turn in range(rounds) for number in range(each)]
    write_lines(root / "again/in/Patient.ndjson", lines)
    found = jobs.ended("import", jobs.start_import("s3://again/in/"))
    assert found["JobStatus"] == "COMPLETED", found.get("Message")
    history = fhir.get(f"Patient/r{each - 1}/_history").json()["entry"]
    assert [entry["resource"]["meta"]["versionId"] for entry in history] == ["3", "2", "1"]
    assert [entry["resource"]["name"][0]["family"] for entry in history] == ["Round2", "Round1", "Round0"]
    for turn, count in ((2, each), (1, 0)):
        total = fhir.get(f"Patient?family=Round{turn}&_total=accurate&_count=1").json()["total"]
        assert total == count


@pytest.mark.requirement("ST-69")
def test_good_lines_are_stored_and_bad_ones_reported_line_by_line(root: Path, jobs: Jobs, fhir: Fhir) -> None:
    fhir.put("Patient/i1", patient("Before") | {"id": "i1"})
    lines: list[Any] = [
        patient("One") | {"id": "i1"},
        "",
        patient("Two") | {"id": "i2"},
        patient("Two again") | {"id": "i2"},
        patient("Wrong") | {"id": "i3", "gender": "nobody"},
        "{not json",
        {"resourceType": "Nothing"},
        patient("No id"),
        '"secret"',
    ]
    write_lines(root / "lake/in/Patient.ndjson", lines)
    write_lines(root / "lake/in/deep/Observation.ndjson", [observation("Patient/i1") | {"id": "o1"}])
    (root / "lake/in/notes.txt").write_text("not for us")
    job = jobs.start_import("s3://lake/in/", JobName="my-import-job")
    found = jobs.ended("import", job)
    assert found["JobStatus"] == "COMPLETED_WITH_ERRORS", found.get("Message")
    assert (found["JobName"], found["InputDataConfig"]) == ("my-import-job", {"S3Uri": "s3://lake/in/"})
    report = found["JobProgressReport"]
    assert report["TotalNumberOfScannedFiles"] == report["TotalNumberOfImportedFiles"] == 2
    assert (report["TotalNumberOfResourcesScanned"], report["TotalNumberOfResourcesImported"]) == (9, 5)
    assert report["TotalNumberOfResourcesWithCustomerError"] == 4
    assert report["TotalNumberOfFilesReadWithCustomerError"] == 1
    assert found["EndTime"] >= found["SubmitTime"]
    assert fhir.get("Patient/i1").json()["meta"]["versionId"] == "2"
    assert fhir.get("Patient/i2").json()["name"][0]["family"] == "Two again"
    assert fhir.get("Patient/i2").json()["meta"]["versionId"] == "2"
    assert fhir.get("Patient/i3").status_code == 404
    assert len(fhir.ids("Patient?family=No")) == 1
    assert fhir.ids("Observation?subject=Patient/i1") == ["o1"]
    folder = folder_of(root, "import", jobs.datastore, job)
    manifest = json.loads((folder / "manifest.json").read_text())
    (error,) = manifest["error"]
    assert error["count"] == 4
    outcomes = read_lines(root / error["url"].removeprefix("s3://"))
    assert [one["resourceType"] for one in outcomes] == ["OperationOutcome"] * 4
    assert [one["extension"][0]["valueUri"] for one in outcomes] == [f"Patient.ndjson#{n}" for n in (5, 6, 7, 9)]
    assert outcomes[0]["issue"][0]["expression"] == ["Patient.gender"]
    assert "secret" not in json.dumps(outcomes)


@pytest.mark.requirement("ST-69")
def test_bundles_and_single_resources_are_imported_from_json_files(root: Path, jobs: Jobs, fhir: Fhir) -> None:
    entries = [
        {"fullUrl": "urn:uuid:1b1b7b5e-8d7e-4d0e-9d43-0d5e9d0f3c11", "resource": patient("InBundle"),
         "request": {"method": "POST", "url": "Patient"}},
        {"resource": observation("urn:uuid:1b1b7b5e-8d7e-4d0e-9d43-0d5e9d0f3c11"),
         "request": {"method": "POST", "url": "Observation"}},
    ]  # fmt: skip
    broken = [*entries, {"resource": {"resourceType": "Patient", "gender": "x"}, "request": entries[0]["request"]}]
    folder = root / "files" / "json"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    (folder / "b.json").write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": broken}))
    (folder / "c.json").write_text(json.dumps(patient("Alone") | {"id": "alone"}, indent=2))
    found = jobs.ended("import", jobs.start_import(folder.as_uri()))
    assert found["JobStatus"] == "COMPLETED_WITH_ERRORS"
    report = found["JobProgressReport"]
    assert (report["TotalNumberOfResourcesImported"], report["TotalNumberOfResourcesWithCustomerError"]) == (3, 1)
    (inside,) = fhir.ids("Patient?family=InBundle")
    assert len(fhir.ids(f"Observation?subject=Patient/{inside}")) == 1
    assert fhir.get("Patient/alone").status_code == 200


@pytest.mark.requirement("ST-70", "ST-71")
def test_an_export_imported_into_a_second_store_is_equal(
    root: Path, store: StoreProcess, jobs: Jobs, fhir: Fhir
) -> None:
    weird = json.dumps(patient("Kept") | {"id": "e0"})[:-1] + ', "extension": [{"url": "urn:x", "valueDecimal": 1.10}]}'
    assert fhir.put("Patient/e0", weird).status_code == 201
    for number in range(1, 5):
        fhir.put(f"Patient/e{number}", patient(f"E{number}", meta={"tag": [{"code": "t"}]}) | {"id": f"e{number}"})
        fhir.create(observation(f"Patient/e{number}"))
    fhir.put("Patient/e1", patient("Newer") | {"id": "e1"})
    fhir.call("DELETE", "Patient/e2")
    job = jobs.start_export(JobName="nightly")
    found = jobs.ended("export", job)
    assert found["JobStatus"] == "COMPLETED", found.get("Message")
    # AWS's shape has no counts for exports: its client drops ours
    raw = jobs.raw("DescribeFHIRExportJob", {"JobId": job})["ExportJobProperties"]["JobProgressReport"]
    assert raw == {"TotalNumberOfExportedFiles": 2, "TotalNumberOfResourcesExported": 8}
    folder = folder_of(root, "export", jobs.datastore, job)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {(one["type"], one["count"]) for one in manifest["output"]} == {("Patient", 4), ("Observation", 4)}
    other = Jobs(jobs.lake, jobs.lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])
    copy = root / "lake" / f"copy-{job}"
    copy.mkdir()
    for path in folder.glob("*.ndjson"):
        shutil.copy(path, copy)
    assert other.ended("import", other.start_import(f"s3://lake/copy-{job}"))["JobStatus"] == "COMPLETED"
    second = fhir_of(store, other.datastore)
    assert bodies(second) == bodies(fhir)
    assert b'"valueDecimal":1.10' in second.get("Patient/e0").content.replace(b" ", b"")
    second.http.close()


@pytest.mark.requirement("ST-70")
def test_an_export_shows_one_moment_while_others_write(root: Path, jobs: Jobs, fhir: Fhir) -> None:
    """Pairs are written in transactions: no export may hold one half."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with fhir.http.__class__(timeout=30) as http:
            number = 0
            while number == 0 or not stop.is_set():
                number += 1
                entries = [
                    {"resource": patient(f"N{number}") | {"id": f"pair-{n}"},
                     "request": {"method": "PUT", "url": f"Patient/pair-{n}"}}
                    for n in ("a", "z")
                ]  # fmt: skip
                bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
                http.post(fhir.base, json=bundle, headers={"Content-Type": "application/fhir+json"})
                begun.set()

    for number in range(600):  # more than a page between the halves
        fhir.put(f"Patient/pair-m{number:04}", patient("Middle") | {"id": f"pair-m{number:04}"})
    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(30)
    try:
        started = [jobs.start_export() for _ in range(3)]
        found = [jobs.ended("export", job) for job in started]
    finally:
        stop.set()
        writer.join(30)
    for job, one in zip(started, found, strict=True):
        assert one["JobStatus"] == "COMPLETED"
        lines = read_lines(folder_of(root, "export", jobs.datastore, job) / "Patient-1.ndjson")
        halves = [line["name"][0]["family"] for line in lines if line["id"] in ("pair-a", "pair-z")]
        assert (len(set(halves)), len(halves)) == (1, 2), halves


@pytest.mark.requirement("ST-71")
def test_jobs_are_listed_by_name_state_and_time_in_pages(root: Path, jobs: Jobs) -> None:
    write_lines(root / "lake/list/Patient.ndjson", [patient("L")])
    before = datetime.now(UTC) - timedelta(seconds=5)
    names = ["a", "b", "a", "a"]
    made = [jobs.start_import("s3://lake/list", JobName=name) for name in names]
    failed = jobs.start_import("s3://lake/nowhere", JobName="a")
    for job in (*made, failed):
        jobs.ended("import", job)
    listing = {"DatastoreId": jobs.datastore, "JobName": "a", "JobStatus": "COMPLETED", "SubmittedAfter": before}
    seen: list[str] = []
    token: dict[str, Any] = {}
    while True:
        page = jobs.lake.list_fhir_import_jobs(**listing, MaxResults=2, **token)
        seen += [one["JobId"] for one in page["ImportJobPropertiesList"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
        assert refused(jobs.lake.list_fhir_export_jobs, **listing, **token) == "ValidationException"
        changed = listing | {"JobName": "b"}
        assert refused(jobs.lake.list_fhir_import_jobs, **changed, **token) == "ValidationException"
    assert seen == [made[3], made[2], made[0]], "the newest first"
    none = jobs.lake.list_fhir_import_jobs(**listing | {"SubmittedBefore": before})
    assert none["ImportJobPropertiesList"] == []
    (only,) = jobs.lake.list_fhir_import_jobs(DatastoreId=jobs.datastore, JobStatus="FAILED")["ImportJobPropertiesList"]
    assert (only["JobId"], only["Message"]) == (failed, "There is nothing to read at the input.")


@pytest.mark.requirement("ST-71")
def test_one_client_token_is_one_job(root: Path, jobs: Jobs) -> None:
    write_lines(root / "lake/token/Patient.ndjson", [patient("T") | {"id": "t1"}])
    first = jobs.start_import("s3://lake/token", ClientToken="again")
    assert jobs.start_import("s3://lake/token", ClientToken="again") == first
    assert refused(jobs.start_import, "s3://lake/other", ClientToken="again") == "ConflictException"
    other = Jobs(jobs.lake, jobs.lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])
    assert other.start_import("s3://lake/token", ClientToken="again") != first
    assert jobs.ended("import", first)["JobProgressReport"]["TotalNumberOfResourcesImported"] == 1


@pytest.mark.requirement("ST-67")
def test_a_job_of_one_datastore_is_unknown_in_another(root: Path, jobs: Jobs) -> None:
    write_lines(root / "lake/own/Patient.ndjson", [patient("O"), "{bad"])
    job = jobs.start_import("s3://lake/own")
    jobs.ended("import", job)
    other = Jobs(jobs.lake, jobs.lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])
    assert refused(other.describe, "import", job) == "ResourceNotFoundException"
    assert refused(jobs.describe, "export", job) == "ResourceNotFoundException"
    assert jobs.lake.list_fhir_import_jobs(DatastoreId=other.datastore)["ImportJobPropertiesList"] == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://lake/../../etc",
        "s3://../etc/x",
        "s3:///x",
        "file:///etc/passwd",
        "file://{root}/files/../outside.ndjson",
        "file://{root}/files/link/x.ndjson",
        "file://elsewhere/files/x.ndjson",
        "http://127.0.0.1/x.ndjson",
        "lake/x",
    ],
)
def test_places_that_jobs_may_not_use_are_refused_at_once(root: Path, jobs: Jobs, url: str) -> None:
    (root / "files").mkdir(exist_ok=True)
    if not (root / "files/link").exists():
        (root / "files/link").symlink_to("/etc")
    place = url.replace("{root}", str(root))
    assert refused(jobs.start_import, place) == "ValidationException"
    assert refused(jobs.start_import, "s3://lake/in", place) == "ValidationException"
    assert refused(jobs.start_export, place) == "ValidationException"

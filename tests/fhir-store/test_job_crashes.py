"""Jobs outlive the process that carries them out: killed workers, two workers at once, a stop, a changed input."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from lake_stage import ENDED, Jobs, client_of, fhir_of, folder_of, gate, read_lines, waited, write_lines
from store_stage import StoreProcess, new_process, patient

WAIT_SECONDS = 60
RESOURCES = 3_000


@pytest.fixture(scope="module")
def pair(database_url: str, root: Path) -> Iterator[tuple[StoreProcess, StoreProcess]]:
    """Two replicas over one database, quick to notice that the other is gone."""
    made = (new_process(database_url), new_process(database_url))
    assert made[0].command("migrate").returncode == 0
    for process in made:
        process.settings = {
            "WARDMESH_S3_FOLDER": str(root),
            "WARDMESH_JOB_LEASE_SECONDS": "1.5",
            "WARDMESH_JOB_FILE_RESOURCES": "500",
        }
        process.start()
    yield made
    for process in made:
        process.kill()


@pytest.fixture
def jobs(pair: tuple[StoreProcess, StoreProcess]) -> Jobs:
    lake = client_of(pair[0])
    return Jobs(lake, lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])


def lines(count: int) -> list[Any]:
    found: list[Any] = [patient(f"Crash{n}") | {"id": f"c{n}"} for n in range(count)]
    found[count // 2] = {"resourceType": "Patient", "gender": "nobody"}
    return found


def begun(jobs: Jobs, kind: str, job: str, least: int) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while True:
        raw = jobs.raw(f"DescribeFHIR{kind.capitalize()}Job", {"JobId": job})[f"{kind.capitalize()}JobProperties"]
        count = max(v for k, v in raw["JobProgressReport"].items() if "Resources" in k)
        assert raw["JobStatus"] not in ENDED, raw["JobStatus"]
        if count >= least:
            return
        assert time.monotonic() < limit
        time.sleep(0.005)


def once_each(jobs: Jobs, process: StoreProcess, count: int) -> None:
    fhir = fhir_of(process, jobs.datastore)
    assert fhir.get("Patient?_summary=count").json()["total"] == count
    assert fhir.get("_history?_count=0").json()["total"] == count, "every version once"
    fhir.http.close()


@pytest.mark.requirement("ST-69")
def test_an_import_whose_process_is_killed_goes_on_elsewhere_and_stores_nothing_twice(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    """Killed again and again, in whichever process works: every line is stored or reported exactly once."""
    write_lines(root / "lake/kill/a.ndjson", lines(RESOURCES))
    write_lines(root / "lake/kill/b.ndjson", [patient("Tail") | {"id": f"t{n}"} for n in range(100)])
    job = ""
    for turn, portion in enumerate((2, 4)):
        with gate(pair[0].database_url, portion):
            job = job or jobs.start_import("s3://lake/kill")
            for process in pair[turn:]:
                if process.process is None:
                    process.start()
            jobs.lake = client_of(next(process for process in pair if process.process))
            begun(jobs, "import", job, (portion - 1) * 500 - 1)
            for process in pair:
                process.kill()
    for process in pair:
        process.start()
    jobs.lake = client_of(pair[0])
    found = jobs.ended("import", job)
    assert found["JobStatus"] == "COMPLETED_WITH_ERRORS", found.get("Message")
    report = found["JobProgressReport"]
    assert report["TotalNumberOfResourcesImported"] == RESOURCES - 1 + 100
    assert report["TotalNumberOfResourcesWithCustomerError"] == 1
    once_each(jobs, pair[0], RESOURCES - 1 + 100)
    errors = read_lines(folder_of(root, "import", jobs.datastore, job) / "FAILURE" / "1.ndjson")
    assert [one["extension"][0]["valueUri"] for one in errors] == [f"a.ndjson#{RESOURCES // 2 + 1}"]


@pytest.mark.requirement("ST-70", "ST-71")
def test_an_export_whose_process_is_killed_holds_its_moment_and_everything_once(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    good = [one for one in lines(RESOURCES) if "id" in one]
    write_lines(root / "lake/full/a.ndjson", good)
    jobs.ended("import", jobs.start_import("s3://lake/full"))
    fhir = fhir_of(pair[1], jobs.datastore)
    with gate(pair[0].database_url, 3):
        job = jobs.start_export()
        begun(jobs, "export", job, 1_000)
        for process in pair:
            process.kill()
    for process in pair:
        process.start()
    fhir.put("Patient/after", patient("After") | {"id": "after"})
    found = jobs.ended("export", job)
    assert found["JobStatus"] == "COMPLETED"
    folder = folder_of(root, "export", jobs.datastore, job)
    manifest = json.loads((folder / "manifest.json").read_text())
    ids = [one["id"] for path in sorted(folder.glob("Patient-*.ndjson")) for one in read_lines(path)]
    assert sorted(ids) == sorted(one["id"] for one in good), "each once, and nothing of later"
    assert len(ids) == sum(one["count"] for one in manifest["output"])
    fhir.http.close()


def test_two_replicas_share_the_work_and_neither_takes_what_the_other_has(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    for number in range(6):
        write_lines(
            root / f"lake/many/{number}/a.ndjson", [patient("M") | {"id": f"m{number}-{n}"} for n in range(200)]
        )
    lakes = [client_of(process) for process in pair]
    with ThreadPoolExecutor(6) as pool:

        def start(number: int) -> str:
            return Jobs(lakes[number % 2], jobs.datastore).start_import(f"s3://lake/many/{number}")

        started = list(pool.map(start, range(6)))
    for job in started:
        assert jobs.ended("import", job)["JobProgressReport"]["TotalNumberOfResourcesImported"] == 200
    once_each(jobs, pair[1], 1_200)


def test_one_token_sent_to_two_replicas_at_once_is_one_job(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    write_lines(root / "lake/once/a.ndjson", [patient("Once") | {"id": "o1"}])
    lakes = [client_of(process) for process in pair]
    with ThreadPoolExecutor(8) as pool:

        def start(number: int) -> str:
            return Jobs(lakes[number % 2], jobs.datastore).start_import("s3://lake/once", ClientToken="race")

        started = set(pool.map(start, range(8)))
    assert len(started) == 1
    jobs.ended("import", started.pop())
    once_each(jobs, pair[0], 1)


@pytest.mark.requirement("ST-69")
def test_a_job_that_is_asked_to_stop_stops_between_portions(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    write_lines(root / "lake/stop/a.ndjson", lines(RESOURCES * 2))
    url = pair[0].database_url
    with ThreadPoolExecutor(1) as pool, gate(url, 2):
        job = jobs.start_import("s3://lake/stop")
        begun(jobs, "import", job, 500)
        asking = pool.submit(jobs.stop, "import", job)
        waited(url)
    assert asking.result(WAIT_SECONDS)["JobStatus"] == "STOP_REQUESTED"
    found = jobs.ended("import", job)
    assert found["JobStatus"] == "STOPPED"
    done = found["JobProgressReport"]["TotalNumberOfResourcesImported"]
    assert 0 < done < RESOURCES * 2 - 1
    once_each(jobs, pair[0], done)


@pytest.mark.requirement("ST-69")
def test_a_stop_that_was_asked_for_outlives_every_process(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    """Asked for where nobody works on jobs: it waits in the database, and is the same however often it is asked for."""
    write_lines(root / "lake/stay/a.ndjson", lines(RESOURCES))
    with gate(pair[0].database_url, 2):
        job = jobs.start_import("s3://lake/stay")
        begun(jobs, "import", job, 500)
        for process in pair:
            process.kill()
    idle = new_process(pair[0].database_url)
    idle.settings = pair[0].settings | {"WARDMESH_JOB_WORKERS": "0"}
    idle.start()
    try:
        asked = Jobs(client_of(idle), jobs.datastore)
        waiting = asked.start_export()
        for _ in range(2):
            assert asked.stop("import", job) == {
                "JobId": job,
                "JobStatus": "STOP_REQUESTED",
                "DatastoreId": jobs.datastore,
            }
            assert asked.stop("export", waiting)["JobStatus"] == "STOPPED", "nobody had begun with it"
        assert asked.describe("export", waiting)["EndTime"]
        assert asked.describe("import", job)["JobStatus"] == "STOP_REQUESTED"
    finally:
        idle.kill()
    for process in pair:
        process.start()
    found = jobs.ended("import", job)
    assert found["JobStatus"] == "STOPPED"
    done = found["JobProgressReport"]["TotalNumberOfResourcesImported"]
    assert 0 < done < RESOURCES - 1
    once_each(jobs, pair[1], done)
    assert jobs.stop("import", job)["JobStatus"] == "STOPPED"
    again = jobs.ended("import", jobs.start_import("s3://lake/stay"))
    assert jobs.stop("import", again["JobId"])["JobStatus"] == "COMPLETED_WITH_ERRORS", "what has ended stays so"


def test_only_a_job_of_this_kind_and_datastore_is_stopped(jobs: Jobs) -> None:
    job = jobs.start_export()
    other = Jobs(jobs.lake, jobs.lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])
    for where, kind, named in ((other, "export", job), (jobs, "import", job), (jobs, "export", "0" * 32)):
        assert where.stop(kind, named)["__type"] == "ResourceNotFoundException"
    assert jobs.ended("export", job)["JobStatus"] == "COMPLETED"


def test_an_input_that_changes_under_a_job_ends_it(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    path = root / "lake/change/a.ndjson"
    write_lines(path, lines(RESOURCES))
    with gate(pair[0].database_url, 2):
        job = jobs.start_import("s3://lake/change")
        begun(jobs, "import", job, 500)
        for process in pair:
            process.kill()
    write_lines(path, lines(10))
    for process in pair:
        process.start()
    found = jobs.ended("import", job)
    assert (found["JobStatus"], found["Message"]) == ("FAILED", "The input changed after the job began.")


@pytest.mark.requirement("ST-66")
def test_deleting_a_datastore_ends_its_jobs_and_leaves_no_row(
    root: Path, pair: tuple[StoreProcess, StoreProcess], jobs: Jobs
) -> None:
    write_lines(root / "lake/gone/a.ndjson", lines(RESOURCES * 2))
    with ThreadPoolExecutor(1) as pool, gate(pair[0].database_url, 2):
        job = jobs.start_import("s3://lake/gone")
        begun(jobs, "import", job, 500)
        deleting = pool.submit(jobs.lake.delete_fhir_datastore, DatastoreId=jobs.datastore)
        waited(pair[0].database_url)
    deleting.result(WAIT_SECONDS)
    limit = time.monotonic() + WAIT_SECONDS
    while True:
        found = jobs.lake.describe_fhir_datastore(DatastoreId=jobs.datastore)["DatastoreProperties"]
        if found["DatastoreStatus"] == "DELETED":
            break
        assert time.monotonic() < limit
        time.sleep(0.05)

    async def left() -> list[int]:
        connection = await asyncpg.connect(pair[0].database_url)
        try:
            key = await connection.fetchval("SELECT datastore_id FROM datastore WHERE public_id = $1", jobs.datastore)
            await connection.execute("SELECT set_config('wardmesh.datastore', $1, false)", str(key))
            names = ("fhir_current", "fhir_version", "idx_string", "idx_token", "job")
            return [await connection.fetchval(f"SELECT count(*) FROM {n} WHERE datastore_id = $1", key) for n in names]
        finally:
            await connection.close()

    assert asyncio.run(left()) == [0, 0, 0, 0, 0]

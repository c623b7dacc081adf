"""`load`: folders and files of any size, killed and repeated, into any datastore, exactly once."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lake_stage import client_of, fhir_of, gate, write_lines
from store_stage import Fhir, StoreProcess, observation, patient

WAIT_SECONDS = 60.0
RESOURCES = 3_000


@pytest.fixture(scope="module")
def store_settings() -> dict[str, str]:
    return {"WARDMESH_JOB_LEASE_SECONDS": "3"}


@pytest.fixture
def datastore(store: StoreProcess) -> str:
    return client_of(store).create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"]


@pytest.fixture
def fhir(store: StoreProcess, datastore: str) -> Iterator[Fhir]:
    client = fhir_of(store, datastore)
    yield client
    client.http.close()


def totals(fhir: Fhir) -> tuple[int, int]:
    """Resources and versions."""
    kinds = ("Patient", "Observation")
    current = sum(fhir.get(f"{kind}?_summary=count").json()["total"] for kind in kinds)
    return current, fhir.get("_history?_count=0").json()["total"]


def test_a_load_that_is_killed_and_repeated_stores_nothing_twice(
    store: StoreProcess, datastore: str, fhir: Fhir, tmp_path: Path
) -> None:
    found: list[Any] = [patient(f"L{n}") | {"id": f"l{n}"} for n in range(RESOURCES)]
    found[1::2] = [observation(f"Patient/l{n}") for n in range(0, RESOURCES, 2)]  # ids of our own: a repeat would show
    write_lines(tmp_path / "big" / "all.ndjson", found)
    command = [sys.executable, "-m", "wardmesh_fhir_store", "load", str(tmp_path / "big"), "--datastore", datastore]
    limit = time.monotonic() + WAIT_SECONDS
    with gate(store.database_url, 4):
        loading = subprocess.Popen(command, env=store.environ, stderr=subprocess.DEVNULL)
        while totals(fhir)[0] < 1_500:
            assert loading.poll() is None
            assert time.monotonic() < limit
        loading.kill()
        loading.wait(10)
    assert totals(fhir) == (1_500, 1_500)
    again = store.command("load", str(tmp_path / "big"), "--datastore", datastore)
    busy = b"another process" in again.stdout + again.stderr
    while busy and time.monotonic() < limit:  # the lease of the dead one
        time.sleep(0.5)
        again = store.command("load", str(tmp_path / "big"), "--datastore", datastore)
        busy = b"another process" in again.stdout + again.stderr
    assert again.returncode == 0, again.stderr.decode()
    assert totals(fhir) == (RESOURCES, RESOURCES)
    (tmp_path / "big" / "all.ndjson").rename(tmp_path / "big" / "renamed.ndjson")
    write_lines(tmp_path / "big" / "more.ndjson", [patient("More")])
    assert store.command("load", str(tmp_path / "big"), "--datastore", datastore).returncode == 0
    assert totals(fhir) == (RESOURCES + 1, RESOURCES + 1), "only the new file"


def test_a_refused_line_is_named_with_its_reason_and_the_rest_is_loaded(
    store: StoreProcess, datastore: str, fhir: Fhir, tmp_path: Path
) -> None:
    mixed, errors = tmp_path / "in" / "mixed.ndjson", tmp_path / "refused.ndjson"
    bad_id = patient("Bad") | {"id": "secret id"}
    write_lines(mixed, [patient("Good"), {"resourceType": "Patient", "gender": "secret"}, "{secret", bad_id])
    for note in ("1 resources, 3 lines refused", "loaded before, 3 lines refused"):  # asked again, it says so again
        ended = store.command("load", str(mixed.parent), "--datastore", datastore, "--errors", str(errors))
        told = ended.stderr.decode()
        assert (ended.returncode, ended.stdout, "secret" in told, "{" in told) == (1, b"", False, False), told
        assert f"file 1 of 1: {note}" in told
        shown = [line.removeprefix(f"{mixed} ") for line in told.splitlines() if line.startswith(str(mixed))]
        assert [line.split(": ")[:2] for line in shown] == [
            ["line 2", "Patient.gender"],
            ["line 3", "The body is not well-formed JSON."],
            ["line 4", "Patient.id"],
        ], told
        outcomes = [json.loads(line) for line in errors.read_bytes().splitlines()]
        assert {one["resourceType"] for one in outcomes} == {"OperationOutcome"}
        assert [one["extension"][0]["valueUri"] for one in outcomes] == [f"mixed.ndjson#{n}" for n in (2, 3, 4)]
        assert outcomes[2]["issue"][0]["expression"] == ["Patient.id"] and b"secret" not in errors.read_bytes()
    assert totals(fhir) == (1, 1)


def test_many_refused_lines_are_counted_on_the_screen_and_all_in_the_file(
    store: StoreProcess, datastore: str, tmp_path: Path
) -> None:
    write_lines(tmp_path / "many.ndjson", ["{"] * 1_203)  # more than one page of them
    command = ("load", str(tmp_path / "many.ndjson"), "--datastore", datastore)
    shown = store.command(*command).stderr.decode().splitlines()
    assert (sum("many.ndjson line" in line for line in shown), shown[-1]) == (
        20,
        "and 1183 more; --errors FILE writes all of them",
    )
    errors = tmp_path / "refused.ndjson"
    assert store.command(*command, "--errors", str(errors)).returncode == 1
    lines = [json.loads(line)["extension"][0]["valueUri"] for line in errors.read_bytes().splitlines()]
    assert lines == [f"many.ndjson#{n}" for n in range(1, 1_204)]


def test_a_command_that_names_what_is_not_there_loads_nothing(
    store: StoreProcess, datastore: str, fhir: Fhir, tmp_path: Path
) -> None:
    good, there = tmp_path / "in" / "good.ndjson", ("--datastore", datastore)
    write_lines(good, [patient("Good")])
    absent = store.command("load", str(good), str(tmp_path / "absent"), *there)
    assert absent.returncode == 2
    assert absent.stderr.decode() == f"wardmesh-fhir-store: {tmp_path / 'absent'}: there is no such file or folder\n"
    for errors in (good, good.parent / "errors.ndjson", tmp_path / "absent" / "errors.ndjson"):
        ended = store.command("load", str(good.parent), *there, "--errors", str(errors))
        assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1), ended.stderr
    assert totals(fhir) == (0, 0) and good.stat().st_size > 0
    nowhere = store.command("load", str(good), "--datastore", "0" * 32)
    assert (nowhere.returncode, b"no such datastore" in nowhere.stderr) == (1, True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert store.command("load", str(empty)).returncode == 1


def test_a_terminal_sees_a_bar(store: StoreProcess, datastore: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "bar.ndjson", [patient("Bar") for _ in range(600)])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wardmesh_fhir_store", "load", str(tmp_path), "--datastore", datastore]
    ended = subprocess.run(command, env=store.environ, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    text = shown.decode()
    assert ended.returncode == 0
    assert "1/1" in text and "100%" in text and "600 resources" in text
    assert json.dumps("bar.ndjson")[1:-1] not in text, "file names may tell who a patient is"

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


def test_bad_lines_are_counted_and_the_rest_is_loaded(
    store: StoreProcess, datastore: str, fhir: Fhir, tmp_path: Path
) -> None:
    write_lines(tmp_path / "mixed.ndjson", [patient("Good"), {"resourceType": "Patient", "gender": "x"}, "{secret"])
    ended = store.command("load", str(tmp_path / "mixed.ndjson"), "--datastore", datastore)
    told = ended.stdout + ended.stderr
    assert (ended.returncode, b"2 lines refused" in told, b"secret" in told) == (1, True, False)
    assert totals(fhir) == (1, 1)
    nowhere = store.command("load", str(tmp_path / "mixed.ndjson"), "--datastore", "0" * 32)
    assert (nowhere.returncode, b"no such datastore" in nowhere.stdout + nowhere.stderr) == (1, True)
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

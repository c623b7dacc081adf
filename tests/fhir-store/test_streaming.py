"""What is large passes through the store without being held by it, measured as the memory of its process."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_stage import Fhir, StoreProcess, new_process, patient

from engines import postgres

MB = 1024 * 1024
FILE_MB = 200
BINARY_MB = 32
WAIT_SECONDS = 30.0
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def store(root: Path) -> Iterator[StoreProcess]:
    with postgres("stream") as engine:
        process = new_process(engine.url())
        process.settings = {"WARDMESH_FILE_ROOTS": json.dumps([str(root)]), "WARDMESH_BULK_URL": root.as_uri()}
        assert process.command("migrate").returncode == 0
        process.start()
        yield process
        process.kill()


@pytest.fixture
def fhir(store: StoreProcess) -> Iterator[Fhir]:
    client = Fhir(store.base)
    yield client
    client.http.close()


def peak(store: StoreProcess) -> int:
    """The most memory that the process ever had resident, in bytes."""
    assert store.process is not None
    status = Path(f"/proc/{store.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def forget_peak(store: StoreProcess) -> int:
    assert store.process is not None
    Path(f"/proc/{store.process.pid}/clear_refs").write_text("5")
    return peak(store)


@pytest.mark.requirement("ST-70")
def test_a_large_file_of_an_export_is_handed_on_in_parts(store: StoreProcess, fhir: Fhir, root: Path) -> None:
    fhir.create(patient("Stream"))
    poll = fhir.get("$export?_type=Patient", Prefer="respond-async").headers["content-location"]
    limit = time.monotonic() + WAIT_SECONDS
    while (answer := fhir.get(poll, Accept="application/json")).status_code == 202:
        assert time.monotonic() < limit
        time.sleep(0.05)
    (written,) = root.rglob("*Patient*.ndjson")
    line = json.dumps(patient("Stream", text={"status": "generated", "div": "x" * 60_000})).encode() + b"\n"
    with written.open("wb") as out:  # as if a million patients had been exported
        while out.tell() < FILE_MB * MB:
            out.write(line)
    expected = hashlib.sha256(written.read_bytes()).hexdigest()
    before = forget_peak(store)
    found = hashlib.sha256()
    with fhir.http.stream("GET", answer.json()["output"][0]["url"], headers={"Accept": "*/*"}) as stream:
        assert stream.headers["content-type"] == "application/fhir+ndjson"
        for part in stream.iter_raw():
            found.update(part)
    assert found.hexdigest() == expected
    assert peak(store) - before < 24 * MB
    assert fhir.call("HEAD", answer.json()["output"][0]["url"], Accept="*/*").content == b""


@pytest.mark.requirement("ST-62")
def test_reading_a_large_binary_costs_little_more_than_its_stored_form(store: StoreProcess, fhir: Fhir) -> None:
    content = bytes(range(256)) * (BINARY_MB * 4096)
    made = fhir.call("POST", "Binary", content, Content_Type="application/pdf")
    assert made.status_code == 201
    place = made.headers["location"].partition("/_history")[0]
    before = forget_peak(store)
    read = fhir.get(place, Accept="*/*")
    assert read.headers["content-type"] == "application/pdf"
    assert hashlib.sha256(read.content).digest() == hashlib.sha256(content).digest()
    assert read.headers["content-length"] == str(len(content)), "so who passes it on can say how much it is"
    stored = len(content) * 4 // 3
    assert peak(store) - before < 3.2 * stored


@pytest.mark.requirement("ST-62")
@pytest.mark.parametrize(
    ("data", "content"), [("YWJj\n ZGVm", b"abcdef"), ("YWJjZA==", b"abcd"), ("YWJjZGU=", b"abcde"), ("YWJj", b"abc")]
)
def test_every_way_to_write_base64_is_read_as_what_it_holds(fhir: Fhir, data: str, content: bytes) -> None:
    made = fhir.post("Binary", {"resourceType": "Binary", "contentType": "text/plain", "data": data})
    assert made.status_code == 201, made.text
    read = fhir.get(f"Binary/{made.json()['id']}", Accept="*/*")
    assert (read.content, read.headers["content-length"]) == (content, str(len(content)))

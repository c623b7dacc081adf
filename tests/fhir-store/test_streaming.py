"""What is large passes through the store without being held by it, measured as the memory of its process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from store_stage import Fhir, StoreProcess, issue_of, patient

MB = 1024 * 1024
FILE_MB = 200
BINARY_MB = 48
WAIT_SECONDS = 60
pytestmark = pytest.mark.timeout(400)


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


def pieces(seed: int, size: int) -> Iterator[bytes]:
    """Content that does not compress, and that nobody holds as a whole."""
    rng = random.Random(seed)
    for start in range(0, size, 64 * 1024):
        yield rng.randbytes(min(64 * 1024, size - start))


def sent(fhir: Fhir, method: str, path: str, seed: int, size: int, **headers: str) -> httpx.Response:
    told = {"Content-Type": "application/pdf", "Content-Length": str(size), **headers}
    with fhir.http.stream(method, fhir.url(path), content=pieces(seed, size), headers=told) as answer:
        answer.read() if "Prefer" in headers else [None for _ in answer.iter_raw()]
        return answer


def digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def content_of(fhir: Fhir, path: str) -> tuple[str, httpx.Headers]:
    with fhir.http.stream("GET", fhir.url(path), headers={"Accept": "*/*"}) as stream:
        assert stream.status_code == 200
        return digest(stream.iter_raw()), stream.headers


@pytest.mark.requirement("ST-62")
def test_a_large_binary_is_never_held_as_a_whole(store: StoreProcess, fhir: Fhir) -> None:
    size = BINARY_MB * MB + 1  # the last piece is padded
    fhir.create(patient("Stream"))  # what the first request costs is not counted
    before = forget_peak(store)
    made = sent(fhir, "POST", "Binary", 1, size, **{"X-Security-Context": "Patient/x"})
    assert made.status_code == 201
    up = peak(store) - before
    place = made.headers["location"].partition("/_history")[0]
    before = forget_peak(store)
    found, headers = content_of(fhir, place)
    assert found == digest(pieces(1, size))
    assert (headers["content-type"], headers["content-length"]) == ("application/pdf", str(size))
    assert (headers["etag"], headers["x-security-context"]) == ('W/"1"', "Patient/x")
    assert (headers["x-content-type-options"], headers["content-disposition"]) == ("nosniff", "attachment")
    down = peak(store) - before
    print(f"{BINARY_MB} MB up {up / MB:.1f} MB, down {down / MB:.1f} MB")
    assert max(up, down) < 24 * MB
    assert fhir.call("HEAD", place, Accept="*/*").headers["content-length"] == str(size)
    assert fhir.get(place, Accept="*/*", If_None_Match='W/"1"').status_code == 304
    told = fhir.get(place).json()
    assert digest([base64.b64decode(told["data"])]) == found
    assert (told["contentType"], told["securityContext"]) == ("application/pdf", {"reference": "Patient/x"})


@pytest.mark.requirement("ST-62")
def test_large_binaries_have_versions_history_and_preconditions(fhir: Fhir) -> None:
    size = 3 * MB
    made = sent(fhir, "PUT", "Binary/large", 1, size)
    assert (made.status_code, made.headers["etag"]) == (201, 'W/"1"')
    again = sent(fhir, "PUT", "Binary/large", 2, size, **{"If-Match": 'W/"1"', "Prefer": "return=minimal"})
    assert (again.status_code, again.headers["etag"], again.content) == (200, 'W/"2"', b"")
    assert sent(fhir, "PUT", "Binary/large", 3, size, **{"If-Match": 'W/"1"', "Prefer": "x"}).status_code == 412
    fhir.put("Binary/large", {"resourceType": "Binary", "id": "large", "contentType": "text/plain", "data": "YWJj"})
    for version, seed in (("1", 1), ("2", 2)):
        assert content_of(fhir, f"Binary/large/_history/{version}")[0] == digest(pieces(seed, size))
    assert fhir.get("Binary/large", Accept="*/*").content == b"abc"
    added = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "long"}]}}]}
    assert fhir.post("Binary/large/_history/2/$meta-add", added).status_code == 200
    assert content_of(fhir, "Binary/large/_history/2")[0] == digest(pieces(2, size))
    told = fhir.get("Binary/large/_history?_count=10").json()
    held = [entry["resource"] for entry in told["entry"]]
    assert [one["meta"]["versionId"] for one in held] == ["3", "2", "1"]
    assert [digest([base64.b64decode(one["data"])]) for one in held[1:]] == [digest(pieces(n, size)) for n in (2, 1)]
    assert fhir.get("Binary/large/_history/1?_elements=contentType").json().get("data") is None
    fhir.call("DELETE", "Binary/large")
    assert fhir.get("Binary/large", Accept="*/*").status_code == 410
    assert content_of(fhir, "Binary/large/_history/1")[0] == digest(pieces(1, size))
    assert fhir.get("Binary/large/_history/9", Accept="*/*").status_code == 404


@pytest.mark.requirement("ST-62")
def test_nothing_stays_of_content_that_was_refused_or_broke_off(store: StoreProcess, fhir: Fhir) -> None:
    died = "(1, gen_random_uuid(), 0, 'x', now() - '2 days'::interval)"
    asyncio.run(on_database(store, f"INSERT INTO binary_upload VALUES {died}"))
    assert sent(fhir, "PUT", "Binary/gone", 1, 2 * MB, **{"If-Match": 'W/"9"', "Prefer": "x"}).status_code == 412
    with socket.create_connection(("127.0.0.1", store.port), timeout=10) as raw:
        head = f"POST /fhir/Binary HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: {9 * MB}\r\n\r\n"
        raw.sendall(head.encode() + bytes(4 * MB))
    for announced in (True, False):
        length = {"Content-Length": str(60 * MB)} if announced else {"Transfer-Encoding": "chunked"}
        told = {"Content-Type": "a/b", **length}
        with contextlib.suppress(httpx.WriteError):
            answer = fhir.http.post(fhir.url("Binary"), content=pieces(1, 60 * MB), headers=told)
            assert (answer.status_code, issue_of(answer)["code"]) == (413, "too-costly")
    limit = time.monotonic() + WAIT_SECONDS
    while left := asyncio.run(on_database(store, "SELECT count(*) FROM binary_upload")):
        assert time.monotonic() < limit, left
        time.sleep(0.05)


async def on_database(store: StoreProcess, statement: str) -> int:
    connection = await asyncpg.connect(store.database_url, timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.requirement("ST-62")
def test_an_answer_breaks_off_when_its_version_changes_under_it(fhir: Fhir) -> None:
    made = sent(fhir, "POST", "Binary", 1, 24 * MB, Prefer="return=minimal")
    place = made.headers["location"].partition("/_history")[0].removeprefix(fhir.base + "/")
    added = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "long"}]}}]}
    with fhir.http.stream("GET", fhir.url(place), headers={"Accept": "*/*"}) as stream:
        parts = stream.iter_raw()
        next(parts)
        assert fhir.post(f"{place}/$meta-add", added).status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            digest(parts)
    assert content_of(fhir, place)[0] == digest(pieces(1, 24 * MB))


@pytest.mark.requirement("ST-62")
@pytest.mark.parametrize(
    ("data", "content"), [("YWJj\n ZGVm", b"abcdef"), ("YWJjZA==", b"abcd"), ("YWJjZGU=", b"abcde"), ("YWJj", b"abc")]
)
def test_every_way_to_write_base64_is_read_as_what_it_holds(fhir: Fhir, data: str, content: bytes) -> None:
    made = fhir.post("Binary", {"resourceType": "Binary", "contentType": "text/plain", "data": data})
    assert made.status_code == 201, made.text
    read = fhir.get(f"Binary/{made.json()['id']}", Accept="*/*")
    assert (read.content, read.headers["content-length"]) == (content, str(len(content)))

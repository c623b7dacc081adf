"""Jobs on an S3-compatible service: listed in pages, read from a place on, written whole, signed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from lake_stage import Jobs, client_of
from store_stage import StoreProcess, patient

PAGE = 2
ACCESS_KEY = "AKIATESTTESTTESTTEST"


class Bucket(ThreadingHTTPServer):
    """As much of S3 as jobs use; counts what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.objects: dict[str, bytes] = {}
        self.listed = 0
        self.unsigned = 0


class Answers(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        if f"Credential={ACCESS_KEY}/" not in self.headers.get("Authorization", ""):
            self.server.unsigned += 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "list-type" in query:
            self.list(query)
            return
        body = self.server.objects.get(unquote(parts.path))
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        if body is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif start >= len(body):
            self.answer(416, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            self.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")

    def list(self, query: dict[str, str]) -> None:
        self.server.listed += 1
        bucket = urlsplit(self.path).path.rstrip("/") + "/"
        keys = sorted(key.removeprefix(bucket) for key in self.server.objects if key.startswith(bucket))
        keys = [key for key in keys if key.startswith(query.get("prefix", ""))]
        start = int(query.get("continuation-token", "0"))
        page, more = keys[start : start + PAGE], len(keys) > start + PAGE
        rows = "".join(
            f'<Contents><Key>{escape(k)}</Key><Size>{len(self.server.objects[bucket + k])}</Size><ETag>"{k}"</ETag>'
            "</Contents>"
            for k in page
        )
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        self.answer(200, body.encode())

    def do_PUT(self) -> None:
        self.server.objects[unquote(urlsplit(self.path).path)] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, ETag='"x"')


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = Bucket()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(scope="module")
def store_settings(bucket: Bucket) -> dict[str, str]:
    return {
        "WARDMESH_S3_ENDPOINT": f"http://127.0.0.1:{bucket.server_port}",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.mark.requirement("ST-69")
def test_jobs_read_and_write_an_s3_compatible_service(store: StoreProcess, bucket: Bucket) -> None:
    lake = client_of(store)
    jobs = Jobs(lake, lake.create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"])
    for number in range(5):
        line = json.dumps(patient(f"S{number}") | {"id": f"s{number}"}).encode()
        bucket.objects[f"/lake/in/part {number}.ndjson"] = line + b"\n"
    bucket.objects["/lake/in/empty.ndjson"] = b""
    bucket.objects["/lake/in/readme.txt"] = b"not for us"
    bucket.objects["/lake/input-of-others/x.ndjson"] = b"not for us either"
    found = jobs.ended("import", jobs.start_import("s3://lake/in"))
    assert found["JobStatus"] == "COMPLETED", found.get("Message")
    report = found["JobProgressReport"]
    assert (report["TotalNumberOfScannedFiles"], report["TotalNumberOfResourcesImported"]) == (6, 5)
    assert bucket.listed > 1, "in pages"
    job = jobs.start_export()
    assert jobs.ended("export", job)["JobStatus"] == "COMPLETED"
    folder = f"/lake/out/{jobs.datastore}-FHIR_EXPORT-{job}"
    lines = bucket.objects[f"{folder}/Patient-1.ndjson"].splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == [f"s{number}" for number in range(5)]
    assert json.loads(bucket.objects[f"{folder}/manifest.json"])["output"][0]["count"] == 5
    assert bucket.unsigned == 0
    missing = jobs.ended("import", jobs.start_import("s3://lake/nothing"))
    assert (missing["JobStatus"], missing["Message"]) == ("FAILED", "There is nothing to read at the input.")

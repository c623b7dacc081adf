"""The examples as a compliance team would run them: each as its own process against a real stream."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from audit_world import SEED, World, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres
from wardmesh_audit.balp_rules import faults
from wardmesh_audit.client_cursor import load
from wardmesh_audit.note import Signer

pytestmark = pytest.mark.anyio
EXAMPLES = Path(__file__).parents[2] / "services" / "audit" / "examples"
VKEY = Signer("test/audit/0", SEED).verifier.vkey()
EVENTS = 62


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        async with w.writing(), w.publishing():
            async with recorder_on(w) as recorder:
                for number in range(59):
                    await recorder.outcome(make_call(number), make_outcome("p1"))
            await w.send(b"this is no event")
            await w.wait_signed(EVENTS)
        yield w


@dataclass
class Taker:
    """An HTTP server that takes what it is sent, or refuses the first request."""

    port: int = 0
    refuse: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict[str, bytes])
    requests: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])


@contextmanager
def taking(*, refuse: int = 0) -> Iterator[Taker]:
    taker = Taker(refuse=refuse)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if taker.refuse:
                taker.refuse -= 1
                self.send_error(503)
                return
            taker.requests.append((self.path, body))
            taker.bodies[self.path] = body
            answer = b""
            if self.headers["Content-Type"] == "application/fhir+json":
                entries = [{"response": {"status": "201 Created"}} for _ in json.loads(body)["entry"]]
                answer = json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("ETag", '"x"')
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taker.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield taker
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def start(w: World, name: str, cursor: Path, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, str(EXAMPLES / name), "--nats", w.nats.url, "--key", VKEY, "--cursor", str(cursor)]
    with cursor.with_suffix(".out").open("wb") as out, cursor.with_suffix(".err").open("wb") as err:
        return subprocess.Popen([*line, *arguments], stdout=out, stderr=err, env={**os.environ, **environ})


async def finish(process: subprocess.Popen[bytes], cursor: Path, upto: int) -> bytes:
    """Lets it run until its cursor is there; then it is stopped. Returns what it printed."""

    async def there() -> bool:
        assert process.poll() is None, cursor.with_suffix(".err").read_text()
        return cursor.exists() and load(cursor, 0).next >= upto

    try:
        await until(there, 60)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
    return cursor.with_suffix(".out").read_bytes()


def sequences(lines: bytes) -> list[int]:
    return [json.loads(line)["metadata"]["sequence"] for line in lines.splitlines()]


async def test_ocsf_goes_to_standard_output(ledger: World, tmp_path: Path) -> None:
    out = await finish(start(ledger, "to_siem.py", tmp_path / "c"), tmp_path / "c", EVENTS)
    assert sequences(out) == list(range(EVENTS))


async def test_ocsf_goes_to_an_http_collector_and_again_after_a_refusal(ledger: World, tmp_path: Path) -> None:
    with taking(refuse=1) as siem:
        arguments = ("--url", f"http://127.0.0.1:{siem.port}/ingest")
        first = start(ledger, "to_siem.py", tmp_path / "c", *arguments)
        await asyncio.to_thread(first.wait, 60)
        assert first.returncode not in (0, None)
        assert not (tmp_path / "c").exists(), "what was not taken is not done"
        await finish(start(ledger, "to_siem.py", tmp_path / "c", *arguments), tmp_path / "c", EVENTS)
    assert sequences(b"".join(body for _, body in siem.requests)) == list(range(EVENTS))


async def test_parquet_goes_to_a_directory(ledger: World, tmp_path: Path) -> None:
    arguments = ("--to", str(tmp_path / "archive"), "--rows", "20")
    await finish(start(ledger, "to_parquet.py", tmp_path / "c", *arguments), tmp_path / "c", 60)
    files = sorted((tmp_path / "archive").glob("*.parquet"))
    assert [file.name for file in files] == [f"log0-{first:012d}-{first + 19:012d}.parquet" for first in (0, 20, 40)]
    assert [row["index"] for file in files for row in pq.read_table(file).to_pylist()] == list(range(60))


async def test_parquet_goes_to_s3_compatible_storage(ledger: World, tmp_path: Path) -> None:
    with taking() as bucket:
        arguments = ("--to", "s3://audit/copies", "--endpoint", f"http://127.0.0.1:{bucket.port}", "--rows", "31")
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-central-1"}
        keys |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
        await finish(start(ledger, "to_parquet.py", tmp_path / "c", *arguments, **keys), tmp_path / "c", EVENTS)
    assert set(bucket.bodies) == {
        "/audit/copies/log0-000000000000-000000000030.parquet",
        "/audit/copies/log0-000000000031-000000000061.parquet",
    }
    table = pq.read_table(io.BytesIO(bucket.bodies["/audit/copies/log0-000000000031-000000000061.parquet"]))
    assert [row["index"] for row in table.to_pylist()] == list(range(31, 62))


async def test_audit_events_go_to_a_fhir_server(ledger: World, tmp_path: Path) -> None:
    with taking() as fhir:
        arguments = ("--url", f"http://127.0.0.1:{fhir.port}/r4")
        await finish(start(ledger, "to_fhir.py", tmp_path / "c", *arguments), tmp_path / "c", EVENTS)
    entries = [entry for _, body in fhir.requests for entry in json.loads(body)["entry"]]
    assert len({entry["request"]["url"] for entry in entries}) == EVENTS - 1, "the malformed one is no AuditEvent"
    assert [fault for entry in entries for fault in faults(entry["resource"])] == []

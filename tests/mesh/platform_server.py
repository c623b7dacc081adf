"""A FHIR platform of our own for tests: one patient, a Bundle of 20 MB, and answers and writes that wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = bytes(64 * 1024)
LARGE_BYTES = 20 * 1024 * 1024
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-00-1111"}],
    "gender": "other",
}


def observation(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": "Patient/p1"},
        "valueQuantity": {"value": 70 + number % 30, "unit": "/min"},
        "note": [{"text": "x" * 3500}],
    }


def large_bundle() -> bytes:
    entry = len(json.dumps({"resource": observation(1000), "search": {"mode": "match"}})) + 2
    entries = [
        {"resource": observation(number), "search": {"mode": "match"}} for number in range(LARGE_BYTES // entry + 1)
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}
    return json.dumps(bundle).encode()


@dataclass
class Platform:
    """What runs, and what it saw. `hold` keeps answers about Patient/slow and of exports back until it is set."""

    url: str = ""
    large: bytes = b""
    hold: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list[str])
    heard: list[str] = field(default_factory=list[str])  # with the method in front
    on_arrival: Callable[[], object] | None = None  # called in the server's thread before anything is answered

    def reset(self, on_arrival: Callable[[], object] | None = None) -> None:
        """As if nobody had asked yet."""
        self.on_arrival = on_arrival
        self.hold.clear()
        self.paths.clear()
        self.heard.clear()

    async def asked_for(self, path: str) -> None:
        """Wait until somebody has asked for this path, or with a method in front: for that."""
        async with asyncio.timeout(60):
            while path not in self.paths and path not in self.heard:
                await asyncio.sleep(0.01)


def _handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _path(self) -> str:
            path = self.path.removeprefix("/fhir").partition("?")[0]
            if platform.on_arrival is not None:
                platform.on_arrival()
            platform.paths.append(path)
            platform.heard.append(f"{self.command} {path}")
            return path

        def do_PUT(self) -> None:
            """The write is read at once and done when `hold` says so."""
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._path()
            platform.hold.wait(30)
            self._send(200, json.dumps({**PATIENT, "id": "slow"}).encode())

        def do_GET(self) -> None:
            path = self._path()
            if path == "/Patient/p1":
                self._send(200, json.dumps(PATIENT).encode())
            elif path == "/Patient/slow":
                platform.hold.wait(30)
                self._send(200, json.dumps({**PATIENT, "id": "slow"}).encode())
            elif path == "/$export":
                platform.hold.wait(30)
                self._send(202, b"")
            elif path == "/Binary/endless":
                self._stream()
            elif path == "/Observation":
                self._send(200, platform.large)
            else:
                self._send(404, b'{"resourceType":"OperationOutcome","issue":[]}')

        def _stream(self) -> None:
            """Content that has no end until `hold` is set, and then breaks off."""
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while not platform.hold.is_set():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))

        def _send(self, status: int, body: bytes) -> None:
            with contextlib.suppress(OSError):  # the caller may be gone
                self.send_response(status)
                self.send_header("Content-Type", "application/fhir+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@contextlib.contextmanager
def platform_server() -> Iterator[Platform]:
    platform = Platform(large=large_bundle())
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(platform))
    server.daemon_threads = True
    platform.url = f"http://127.0.0.1:{server.server_address[1]}/fhir"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield platform
    finally:
        platform.hold.set()
        server.shutdown()
        thread.join(10)
        server.server_close()

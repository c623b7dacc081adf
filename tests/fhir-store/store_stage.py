"""A store process, a FHIR client and small resources for the tests of the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from wardmesh_cli.ports import free_port

FHIR_JSON = "application/fhir+json"
BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / "shared" / "data" / "synthea"
SYNTHEA = Path(os.environ.get("WARDMESH_TEST_SYNTHEA", BESIDE_THE_REPOSITORY))
NODE_MODULES = Path(__file__).parents[2] / "node_modules"
START_SECONDS = 90.0


@dataclass
class StoreProcess:
    """`wardmesh-fhir-store` as its users run it."""

    database_url: str
    port: int
    admin_port: int
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    @property
    def environ(self) -> dict[str, str]:
        own = {
            "WARDMESH_DATABASE_URL": self.database_url,
            "WARDMESH_PORT": str(self.port),
            "WARDMESH_ADMIN_PORT": str(self.admin_port),
        }
        return {**os.environ, **own, **self.settings}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "wardmesh_fhir_store", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, timeout=120, check=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "wardmesh_fhir_store"]
        self.process = subprocess.Popen(command, env=self.environ, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + START_SECONDS
        while not self.ready():
            assert self.process.poll() is None, "the store ended"
            assert time.monotonic() < limit, "the store did not become ready"
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=20).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code


def new_process(database_url: str) -> StoreProcess:
    port = free_port()
    return StoreProcess(database_url, port, free_port(taken={port}))


@contextmanager
def running(
    database_url: str, settings: Mapping[str, str] | None = None, *commands: tuple[str, ...]
) -> Iterator[StoreProcess]:
    """A store over an empty database; `commands` come between the schema and the start."""
    made = new_process(database_url)
    made.settings = dict(settings or {})
    for command in (("migrate",), *commands):
        done = made.command(*command)
        assert done.returncode == 0, done.stderr.decode()
    made.start()
    try:
        yield made
    finally:
        made.kill()


class Fhir:
    """A thin FHIR client that keeps status and headers visible."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self.http = httpx.Client(timeout=60, headers={"Accept": FHIR_JSON})

    def url(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.base}/{path}" if path else self.base

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return self.http.request(method, self.url(path), headers=named)
        named.setdefault("Content-Type", FHIR_JSON)
        if isinstance(body, bytes | str):
            return self.http.request(method, self.url(path), content=body, headers=named)
        return self.http.request(method, self.url(path), json=body, headers=named)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.call("PUT", path, body, **headers)

    def create(self, resource: dict[str, Any]) -> dict[str, Any]:
        answer = self.post(resource["resourceType"], resource)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ids(self, query: str, **headers: str) -> list[str]:
        """Ids of the matches of one page."""
        answer = self.get(query, **headers)
        assert answer.status_code == 200, answer.text
        entries = answer.json().get("entry", [])
        return [entry["resource"]["id"] for entry in entries if entry["search"]["mode"] == "match"]

    def pages(self, query: str) -> Iterator[dict[str, Any]]:
        following: str | None = query
        while following:
            answer = self.get(following)
            assert answer.status_code == 200, answer.text
            bundle = answer.json()
            yield bundle
            following = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)


def issue_of(answer: httpx.Response) -> dict[str, Any]:
    """The first issue; every error is an OperationOutcome as FHIR JSON (ST-65)."""
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    issue = outcome["issue"][0]
    assert issue["severity"] in {"error", "fatal"}
    assert issue["code"]
    assert "SELECT" not in issue["diagnostics"]
    return issue


def patient(family: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "name": [{"family": family, "given": ["Test"]}], **more}


def observation(subject: str = "", **more: Any) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        **more,
    }
    return resource | ({"subject": {"reference": subject}} if subject else {})

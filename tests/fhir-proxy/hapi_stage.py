"""A stand-in for HAPI with partitions: what the tests of datastores there share."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from wardmesh_common.vocabulary import Interaction

FILES = "https://files.example/exports/"
OUTPUT = {"S3Configuration": {"S3Uri": "hapi:"}}
ROLE = "arn:aws:iam::123456789012:role/none"


class StandIn:
    """HAPI's partitions and jobs, as far as the answers of a real one were seen (differential/test_hapi_datastores)."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.rows: dict[str, tuple[int, str]] = {"radiology": (7, "not a datastore of ours")}
        self.held: dict[str, dict[str, bool]] = {}  # datastore -> what it holds, newest first, and whether deleted
        self.keeps = ""  # what HAPI will not delete as long as the others are there
        self.expunges = True
        self.page = 2
        self.seconds = 10.0  # of one call
        self.polls: list[tuple[int, Any, dict[str, str]]] = []
        self.kick_off, self.cancelled = 202, 202
        bench.upstream.respond = self.respond
        self.describe()

    def describe(self, **more: Any) -> None:
        section = {"backend": "hapi", "endpoint": self.bench.upstream.base, "import_from": [FILES], **more}
        document = {"id": "lake", "name": "HAPI", "type": "sandbox", "auth": {"method": "none"}, "writes": True}
        (self.bench.directory / "lake.yaml").write_bytes(msgspec.json.encode({**document, "healthlake": section}))
        self.bench.platforms.reload()

    def respond(self, seen: Any) -> web.Response:
        tenant, _, rest = seen.path.removeprefix("/r4/").partition("/")
        if "$partition-management" in rest:
            assert tenant == "DEFAULT"
            return self.manage(rest.rpartition("-")[0].rpartition("-")[2], seen.body)
        if rest == "_history" or seen.query.startswith("_getpages"):
            return answer(self.history(tenant, int(parse_qs(seen.query).get("_getpagesoffset", ["0"])[0])))
        if rest.endswith("/$expunge"):
            return self.expunge(tenant, rest.removesuffix("/$expunge"), json.loads(seen.body))
        if not rest:
            return self.delete(tenant, json.loads(seen.body))
        if seen.method == "DELETE":
            return answer(outcome_of("it is being cancelled"), self.cancelled)
        if rest in ("$export", "$import"):
            where = f"http://hapi.inside:8080/fhir/{tenant}/{rest}-poll-status?_jobId=0f-1"
            return answer({}, self.kick_off, **({"Content-Location": where} if self.kick_off == 202 else {}))
        status, body, headers = self.polls.pop(0)
        assert parse_qs(seen.query) == {"_jobId": ["0f-1"]}
        return answer(body, status, **headers)

    def history(self, tenant: str, start: int) -> dict[str, Any]:
        held = list(self.held.get(tenant, {}).items())
        entries: list[dict[str, Any]] = []
        for name, deleted in held[start : start + self.page]:
            entries.append({"request": {"method": "DELETE" if deleted else "PUT", "url": f"{name}/_history/2"}})
        onward = f"http://hapi.inside:8080/fhir/{tenant}?_getpages=x&_getpagesoffset={start + self.page}"
        link = [{"relation": "next", "url": onward}] if start + self.page < len(held) else []
        return {"resourceType": "Bundle", "type": "history", "link": link, "entry": entries}

    def delete(self, tenant: str, bundle: dict[str, Any]) -> web.Response:
        names = {entry["request"]["url"] for entry in bundle["entry"]}
        live = {name for name, deleted in self.held[tenant].items() if not deleted}
        if self.keeps in names and names < live:
            return answer(outcome_of("something refers to it"), 409)
        self.held[tenant] |= dict.fromkeys(names, True)
        return answer({"resourceType": "Bundle"})

    def expunge(self, tenant: str, name: str, asked: dict[str, Any]) -> web.Response:
        assert {each["name"]: each["valueBoolean"] for each in asked["parameter"]} == {
            "expungeDeletedResources": True,
            "expungePreviousVersions": True,
        }
        if not self.expunges:
            return answer(outcome_of("not enabled"), 405)
        if name not in self.held[tenant]:
            return answer(outcome_of("not known"), 404)
        if self.held[tenant][name]:
            del self.held[tenant][name]
        return answer({"resourceType": "Parameters"})

    def manage(self, verb: str, body: bytes) -> web.Response:
        said = {p["name"]: p for p in json.loads(body)["parameter"]} if body else {}
        if verb == "list":
            return answer({"resourceType": "Parameters", "parameter": [part(n, *row) for n, row in self.rows.items()]})
        number = said["id"]["valueInteger"]
        if verb == "delete":
            self.rows = {name: row for name, row in self.rows.items() if row[0] != number}
            return answer({"resourceType": "Parameters"})
        assert verb == "create"
        name = said["name"]["valueCode"]
        if name in self.rows or number in {row[0] for row in self.rows.values()}:
            return answer({"resourceType": "OperationOutcome"}, 400)
        self.rows[name] = number, said["description"]["valueString"]
        return answer({"resourceType": "Parameters"})

    async def manage_as(self, operation: str, target: str = "", region: str = "", **request: Any) -> tuple[int, Any]:
        body = msgspec.json.encode({"request": request, **({"region": region} if region else {})})
        outcome = await self.bench.perform(
            Interaction.OPERATION,
            "Datastore",
            target,
            operation=operation,
            body=body,
            platform="lake",
            seconds=self.seconds,
        )
        return outcome.status, json.loads(outcome.body)

    async def made(self, **more: Any) -> str:
        status, said = await self.manage_as("$create-datastore", DatastoreTypeVersion="R4", **more)
        assert (status, said["DatastoreStatus"]) == (200, "ACTIVE")
        return said["DatastoreId"]

    async def described(self, kind: str, datastore: str, job: str) -> dict[str, Any]:
        status, said = await self.manage_as(f"$describe-{kind}-job", datastore, DatastoreId=datastore, JobId=job)
        return said[f"{kind.title()}JobProperties"] if status == 200 else said


def part(name: str, number: int, description: str) -> dict[str, Any]:
    parts = [{"name": "id", "valueInteger": number}, {"name": "name", "valueCode": name}]
    return {"name": "partition", "part": [*parts, {"name": "description", "valueString": description}]}


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(body, status=status, headers=headers, content_type="application/fhir+json")


def outcome_of(text: str) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x", "diagnostics": text}]}


def names(count: int) -> dict[str, bool]:
    """Every third is deleted already."""
    return {f"Patient/p{number}": number % 3 == 0 for number in range(count)}

"""PX-1: a bulk export through the gateway: every address in it is a link of ours, for who started it alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.contracts import Outcome
from wardmesh_common.errors import BadRequest, BadUpstream, Denied, NotAllowed, NotFound
from wardmesh_common.record_class import announced, classify
from wardmesh_common.vocabulary import Face, Mask, Obligations, Principal

pytestmark = pytest.mark.anyio
LINES = b'{"resourceType":"Patient","id":"p1"}\n' * 20_000
DECIMAL = b"100000000000000000000.50"


class Exporting:
    """A platform whose job has one file of each list; `manifest` can be changed."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.base = bench, bench.upstream.base
        self.ready = True
        self.manifest: dict[str, Any] = {
            "transactionTime": "2026-11-21T12:00:00Z",
            "request": f"{self.base}/Patient/$export?_type=Patient",
            "requiresAccessToken": False,
            "output": [{"type": "Patient", "url": f"{self.base}/bulk/j1/1", "count": 1}],
            "deleted": [{"type": "Bundle", "url": f"{self.base}/bulk/j1/2"}],
            "error": [{"type": "OperationOutcome", "url": f"{self.base}/bulk/j1/3?x=a%20b"}],
            "link": [{"relation": "next", "url": f"{self.base}/bulk/j1?page=2"}],
        }
        bench.upstream.respond = self.respond

    def respond(self, seen: Any) -> web.Response:
        path = seen.path.removeprefix("/r4/")
        if path.endswith("$export"):
            return web.Response(status=202, headers={"Content-Location": f"{self.base}/bulk/j1"})
        if path == "bulk/j1" and not self.ready:
            return web.Response(status=202, headers={"X-Progress": "half", "Retry-After": "3"})
        if path == "bulk/j1":
            told = msgspec.json.encode(self.manifest).replace(b'"count":1', b'"count":' + DECIMAL)
            return web.Response(body=told, headers={"Content-Type": "application/json"})
        return web.Response(body=LINES, headers={"Content-Type": "application/fhir+ndjson"})

    async def start(self, kind: str = "Patient", **more: Any) -> str:
        asked = {"operation": "$export", "headers": {"prefer": "respond-async"}, **more}
        outcome = await self.bench.perform("operation", kind, **asked)
        assert (outcome.status, outcome.body) == (202, b"")
        return outcome.headers["Content-Location"]

    async def follow(self, link: str, **more: Any) -> Outcome:
        parts = urlsplit(link)
        kind, _, operation = parts.path.removeprefix("/fhir/probe/").rpartition("/")
        return await self.bench.perform("operation", kind, operation=operation, query=parts.query, **more)


@pytest.mark.requirement("PX-1")
async def test_px1_every_url_of_a_manifest_is_ours_and_leads_to_its_file(bench: Any) -> None:
    export = Exporting(bench)
    place = await export.start()
    assert place.startswith("http://gateway.example/fhir/probe/Patient/$export-status?_cursor=")
    export.ready = False
    waiting = await export.follow(place)
    assert (waiting.status, waiting.headers["X-Progress"], waiting.headers["Retry-After"]) == (202, "half", "3")
    export.ready = True
    answer = await export.follow(place)
    assert (answer.status, answer.media_type) == (200, "application/json")
    assert urlsplit(export.base).netloc.encode() not in answer.body and DECIMAL in answer.body
    told = msgspec.json.decode(answer.body)
    assert told["requiresAccessToken"] is True
    assert told["request"] == "http://gateway.example/fhir/probe/Patient/$export?_type=Patient"
    for name, path in (("output", "bulk/j1/1"), ("deleted", "bulk/j1/2"), ("error", "bulk/j1/3?x=a%20b")):
        outcome = await export.follow(told[name][0]["url"])
        assert outcome.media_type == "application/fhir+ndjson" and outcome.stream is not None
        assert b"".join([part async for part in outcome.stream.parts]) == LINES
        await outcome.stream.close()
        last = bench.upstream.requests[-1]
        assert f"{last.path}?{last.query}".rstrip("?") == f"/r4/{path}"
        assert last.headers["Accept"] == "application/fhir+ndjson"
    assert (await export.follow(told["link"][0]["url"])).status == 200
    assert [call.operation for call, _ in bench.intents] == ["$export", *["$export-file"] * 3]


@pytest.mark.requirement("PX-2")
async def test_px2_the_links_of_an_export_are_for_who_started_it(bench: Any) -> None:
    export = Exporting(bench)
    place = await export.start()
    told = msgspec.json.decode((await export.follow(place)).body)
    sent = len(bench.upstream.requests)
    for link in (place, told["output"][0]["url"]):
        with pytest.raises(NotFound):
            await export.follow(link, principal=Principal(id="another", roles=("Admin",)))
        with pytest.raises(Denied):
            await export.follow(link, obligations=Obligations(compartment="p1"))
        with pytest.raises(BadRequest):
            await export.follow(link[:-6] + "AAAAAA")
    with pytest.raises(BadRequest):  # a link to a status is none to a file
        await export.follow(place.replace("$export-status", "$export-file"))
    for operation in ("$export-status", "$export-file"):
        with pytest.raises(BadRequest):
            await bench.perform("operation", "Patient", operation=operation)
    call = bench.call("operation", "Patient", operation="$export-file", query=urlsplit(told["output"][0]["url"]).query)
    call.face = Face.MCP
    with pytest.raises(NotAllowed):
        await bench.send(call)
    assert len(bench.upstream.requests) == sent, "the platform hears of none of it"


async def test_who_sees_masked_copies_gets_no_file(bench: Any) -> None:
    masked = Obligations(masks=(Mask(type="Patient", path="name", action="remove"),))
    export = Exporting(bench)
    place = await export.start(obligations=masked)
    told = msgspec.json.decode((await export.follow(place, obligations=masked)).body)
    outcome = await export.follow(told["output"][0]["url"], obligations=masked)
    assert (outcome.status, outcome.stream) == (404, None)


@pytest.mark.requirement("PX-3")
@pytest.mark.parametrize("url", ["https://bucket.example/1.ndjson", "../other/1", "urn:uuid:1", "", None, 7])
async def test_px3_a_file_that_lies_elsewhere_is_an_error_and_not_left_out(bench: Any, url: Any) -> None:
    export = Exporting(bench)
    place = await export.start()
    export.manifest["output"].append({"type": "Patient", "url": url})
    with pytest.raises(BadUpstream):
        await export.follow(place)
    export.manifest["output"] = "nonsense"
    with pytest.raises(BadUpstream):
        await export.follow(place)


async def test_a_kick_off_is_not_repeated_and_its_files_are_exports_in_the_record(bench: Any) -> None:
    export = Exporting(bench)
    bench.upstream.answer(b"", 503)
    await bench.perform("operation", "", operation="$export")
    assert len(bench.upstream.requests) == 1
    kinds = {
        name: bench.call("operation", "", operation=name) for name in ("$export", "$export-file", "$export-status")
    }
    assert {name: (classify(call)[0], announced(call)) for name, call in kinds.items()} == {
        "$export": ("export", True),
        "$export-file": ("export", True),
        "$export-status": ("access", False),
    }
    assert export.base

"""PX-8, PX-6, X-3: a platform's failures become clear problems without anything of its inside."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.errors import BadUpstream, PlatformDown, TimedOut, TooLarge
from wardmesh_fhir_proxy import faults

pytestmark = pytest.mark.anyio

STACK = (
    "HAPI-0389: Failed to call access method: java.lang.NullPointerException: null\n"
    "\tat ca.uhn.fhir.rest.server.RestfulServer.handle(RestfulServer.java:1131)\n\tat sun.reflect.X.y(Z.java:1)"
)
LEAKS = [
    "http://fhir-7.internal.example:8443/r4/Patient/1",
    "db-3.prod.local:5432",
    "10.1.2.3",
    "/opt/app/server/main.py",
    "C:\\app\\x.dll",
]


def oo(text: str) -> dict[str, Any]:
    return {
        "resourceType": "OperationOutcome",
        "text": {"status": "generated", "div": f"<div>{text}</div>"},
        "issue": [
            {
                "severity": "error",
                "code": "processing",
                "diagnostics": text,
                "details": {"text": text},
                "expression": ["Patient.name[0]"],
            }
        ],
    }


BODIES: list[tuple[str, Any, str]] = [
    ("outcome", oo(f"Name is wrong {' '.join(LEAKS)} {STACK}"), "application/fhir+json"),
    ("html", f"<html>nginx {LEAKS[0]} {STACK}</html>".encode(), "text/html"),
    ("text", STACK.encode(), "text/plain"),
    ("empty", b"", ""),
    ("json", {"error": LEAKS[0]}, "application/json"),
    ("broken", b'{"resourceType":"OperationOutcome","issue":', "application/fhir+json"),
]
STATUSES = {
    400: (400, None), 401: (401, "login"), 403: (403, "forbidden"), 404: (404, "not-found"), 409: (409, "conflict"),
    410: (410, "deleted"), 412: (412, "conflict"), 422: (422, "processing"), 429: (429, "throttled"), 500: (502, "transient"), 503: (502, "transient"),
}  # fmt: skip


@pytest.mark.requirement("PX-8", "X-3")
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("kind", "body", "media"), BODIES, ids=[b[0] for b in BODIES])
async def test_px8_every_kind_of_error_becomes_an_outcome_without_leaks(
    bench: Any, status: int, kind: str, body: Any, media: str
) -> None:
    bench.upstream.answer(body, status, Content_Type=media or "application/octet-stream")
    outcome = await bench.perform("create", "Patient", body=b'{"resourceType":"Patient"}')
    expected, code = STATUSES[status]
    assert outcome.status == expected
    document = msgspec.json.decode(outcome.body)
    assert document["resourceType"] == "OperationOutcome" and document["issue"]
    assert outcome.problem is not None and outcome.problem.issue
    if code and kind != "outcome":
        assert document["issue"][0]["code"] == code
    if kind == "outcome":
        assert document["issue"][0]["expression"] == ["Patient.name[0]"]
        assert document["issue"][0]["diagnostics"].startswith("Name is wrong")
    for leak in (
        "internal",
        "prod.local",
        "10.1.2.3",
        "/opt/",
        "C:\\",
        "RestfulServer",
        "NullPointer",
        "nginx",
        "127.0.0.1",
        "java",
    ):
        assert leak not in outcome.body.decode(), leak


@pytest.mark.requirement("PX-8")
async def test_px8_vendor_exceptions_come_from_the_descriptor(bench: Any) -> None:
    rules = [
        {"status": 404, "body": "Data Access Grant was Not Found", "means": "re-authorise"},
        {"status": 403, "body": "quota", "means": "throttled"},
    ]
    bench.describe(error_map=rules)
    bench.upstream.answer(oo("Data Access Grant was Not Found"), 404)
    assert (await bench.perform("read", "Patient", "p1")).status == 401
    bench.upstream.answer(b"daily quota used", 403, Content_Type="text/plain", Retry_After="7")
    outcome = await bench.perform("create", "Patient", body=b'{"resourceType":"Patient"}')
    assert (outcome.status, outcome.headers["Retry-After"], outcome.problem.retry_after) == (429, "7", 7)
    bench.upstream.answer(oo("something else"), 404)
    assert (await bench.perform("read", "Patient", "p1")).status == 404


def test_px8_profile_addresses_of_standards_stay_readable() -> None:
    text = "Profile http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient, code http://loinc.org|1-1, host a.b.example.com"
    cleaned = faults.clean(text)
    assert "us-core-patient" in cleaned and "loinc.org" in cleaned and "example.com" not in cleaned


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("text/html", b"<html>sign in</html>"),
        ("application/fhir+json", b"not json"),
        ("application/fhir+json", b"{bad"),
        ("application/fhir+xml", b"<Patient/>"),
    ],
)
async def test_a_success_that_is_not_fhir_json_is_a_bad_upstream(bench: Any, media: str, body: bytes) -> None:
    bench.upstream.answer(body, 200, Content_Type=media)
    with pytest.raises(BadUpstream):
        await bench.perform("read", "Patient", "p1")


@pytest.mark.requirement("X-3", "PX-8")
async def test_x3_a_dead_platform_is_down_and_a_slow_one_times_out(bench: Any) -> None:
    release = asyncio.Event()

    async def hang(seen: Any) -> web.Response:
        await release.wait()
        return web.Response()

    bench.upstream.respond = hang
    with pytest.raises(TimedOut) as late:
        await bench.perform("read", "Patient", "p1", seconds=0.5)
    release.set()
    bench.describe(bases={"patient": "http://127.0.0.1:9/r4"})
    with pytest.raises(PlatformDown) as down:
        await bench.perform("read", "Patient", "p1")
    for error in (late.value, down.value):
        assert "127.0.0.1" not in error.problem.detail


@pytest.mark.requirement("PX-8")
async def test_px8_redirects_are_not_followed(bench: Any) -> None:
    bench.upstream.respond = lambda _: web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
    outcome = await bench.perform("read", "Patient", "p1")
    assert outcome.status == 502 and b"169.254" not in outcome.body
    assert len(bench.upstream.requests) == 1


@pytest.mark.requirement("PX-6")
async def test_px6_compressed_answers_are_read_and_bombs_stop_at_the_cap(bench: Any) -> None:
    body = b'{"resourceType":"Patient","id":"p1","value":1.00}'
    bench.upstream.respond = lambda _: web.Response(
        body=gzip.compress(body), headers={"Content-Encoding": "gzip", "Content-Type": "application/fhir+json"}
    )
    assert (await bench.perform("read", "Patient", "p1")).body == body
    bomb = bomb_of(1 << 30)
    bench.upstream.respond = lambda _: web.Response(
        body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/fhir+json"}
    )
    tracemalloc.start()
    with pytest.raises(TooLarge):
        await bench.perform("read", "Patient", "p1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20, f"{peak} bytes"


def bomb_of(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


@pytest.mark.requirement("PX-6")
async def test_px6_a_cut_answer_and_an_unasked_compression_are_errors(bench: Any) -> None:
    whole = gzip.compress(b'{"resourceType":"Patient","id":"p1"}' * 50)
    for body, encoding in ((whole[:40], "gzip"), (whole, "br"), (b"garbage", "gzip")):
        named = {"Content-Encoding": encoding, "Content-Type": "application/fhir+json"}
        bench.upstream.respond = lambda _, body=body, named=named: web.Response(body=body, headers=named)
        with pytest.raises(BadUpstream):
            await bench.perform("read", "Patient", "p1")

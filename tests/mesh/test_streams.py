"""Content and files of exports pass through the whole mesh: for whom, byte for byte, recorded to their end."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from mesh.ledger import events, until_event
from mesh.platform_server import Platform
from mesh.test_large_answers import Gauge
from wardmesh_cli import identity
from wardmesh_cli.engines import PEOPLE

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(300)]
MEGABYTE = 1024 * 1024
SIZE = 24 * MEGABYTE
# What is read passes in pieces; what is written is held while policy and platform look at it, but not many times over.
READING, WRITING = 16 * MEGABYTE, 4 * SIZE
# More than what a process may have kept of earlier calls: what grows with it would show.
LONG = 160 * MEGABYTE
FHIR_JSON = "application/fhir+json"
NDJSON = "application/fhir+ndjson"
BYTES = "application/octet-stream"


@asynccontextmanager
async def client(mesh: Any, person: str) -> AsyncGenerator[httpx.AsyncClient]:
    """With a token of its own for the owner: generated requests of another test sign that person out everywhere."""
    ready = mesh.ready
    token = ready["people"][person]["token"]
    if person == "demo_owner":
        (owner,) = (each for each in identity.people(PEOPLE) if each.name == person)
        token = await identity.sign_in(ready["issuer"], ready["audience"], owner)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"{ready['gateway']}/fhir", headers=headers, timeout=90) as http:
        yield http


async def ended(mesh: Any, answer: httpx.Response, count: int) -> list[dict[str, Any]]:
    """The events of a call, once there are so many."""
    async with asyncio.timeout(90):
        while len(found := await events(mesh, answer.headers["x-request-id"])) < count:
            await asyncio.sleep(0.1)
    return found


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Class, phase and outcome of each event."""
    return [(one["type"].split(".")[3], one["data"]["phase"], one["data"]["outcome"]["code"]) for one in found]


async def followed(http: httpx.AsyncClient, place: str) -> httpx.Response:
    async with asyncio.timeout(90):
        while (answer := await http.get(place)).status_code == 202:
            await asyncio.sleep(0.2)
    return answer


@pytest.mark.requirement("PX-1")
async def test_an_export_runs_and_its_files_are_read_through_the_gateway(mesh: Any) -> None:
    async with client(mesh, "demo_admin") as admin:
        begun = await admin.get("/store/$export", headers={"prefer": "respond-async"})
        assert (begun.status_code, begun.content) == (202, b""), begun.text
        place = begun.headers["content-location"]
        assert place.startswith(f"{mesh.ready['gateway']}/fhir/store/$export-status?")
        answer = await followed(admin, place)
        assert answer.status_code == 200, answer.text
        manifest = answer.json()
        assert manifest["requiresAccessToken"] is True and len(manifest["output"]) > 3
        read: list[httpx.Response] = []
        written = {hashlib.sha256(path.read_bytes()).hexdigest() for path in mesh.ready_file.parent.rglob("*.ndjson")}
        for file in manifest["output"]:
            got = await admin.get(file["url"], headers={"accept": NDJSON})
            assert (got.status_code, got.headers["content-type"]) == (200, NDJSON)
            assert got.content.count(b"\n") == file["count"]
            assert hashlib.sha256(got.content).hexdigest() in written, "byte for byte what the store wrote"
            read.append(got)
    whole = [("export", "intent", "success"), ("export", "outcome", "success")]
    assert sorted(told(await ended(mesh, begun, 2))) == whole
    for got in read:
        assert sorted(told(await ended(mesh, got, 2))) == whole
    url = manifest["output"][0]["url"]
    for person, status in (("demo_owner", 404), ("demo_doctor", 403), ("demo_auditor", 403), ("demo_patient", 403)):
        async with client(mesh, person) as http:
            assert (await http.get(url, headers={"accept": NDJSON})).status_code == status, person
            assert (await http.get(place)).status_code == status, person
            kick_off = await http.get("/store/$export", headers={"prefer": "respond-async"})
            assert (kick_off.status_code == 202) == (person == "demo_owner"), "an owner may start one of their own"


async def made(doctor: httpx.AsyncClient, context: str) -> str:
    """A Binary that this stands in for."""
    body: dict[str, Any] = {"resourceType": "Binary", "contentType": "text/plain", "data": "dGV4dA=="}
    if context:
        body["securityContext"] = {"reference": context}
    answer = await doctor.post("/store/Binary", json=body, headers={"content-type": FHIR_JSON})
    assert answer.status_code == 201, answer.text
    return f"/store/Binary/{answer.json()['id']}"


async def test_who_reads_a_binary_is_who_reads_what_stands_in_for_it(mesh: Any) -> None:
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": "Patient/DP100"},
        "content": [{"attachment": {"contentType": "text/plain"}}],
    }
    async with client(mesh, "demo_doctor") as doctor:
        kept = await doctor.post("/store/DocumentReference", json=document, headers={"content-type": FHIR_JSON})
        assert kept.status_code == 201, kept.text
        own = [await made(doctor, "Patient/DP100"), await made(doctor, f"DocumentReference/{kept.json()['id']}")]
        others, nobodys = await made(doctor, "Patient/FCE57"), await made(doctor, "")
        unread = {"resourceType": "Binary", "contentType": "a/b", "securityContext": {"reference": "AuditEvent/a"}}
        denied = await doctor.post("/store/Binary", json=unread, headers={"content-type": FHIR_JSON})
        assert denied.status_code == 403, "nobody writes what they could not read"
    refused = dict.fromkeys(("demo_nurse", "demo_billing", "demo_reception", "demo_compliance", "demo_member"), 403)
    read = dict.fromkeys(("demo_doctor", "demo_admin", "demo_auditor", "demo_practitioner", "demo_owner"), 200)
    expected = {
        **dict.fromkeys(own, refused | read | {"demo_patient": 200}),
        **dict.fromkeys((others, nobodys), refused | read | {"demo_patient": 404}),
    }
    for person in expected[nobodys]:
        async with client(mesh, person) as http:
            for path, statuses in expected.items():
                for accept in ("text/plain", FHIR_JSON):
                    answer = await http.get(path, headers={"accept": accept})
                    assert answer.status_code == statuses[person], (person, path, accept, answer.text)
                    if answer.status_code == 200 and accept == "text/plain":
                        assert answer.content == b"text"
    async with client(mesh, "demo_patient") as patient:
        for path in own:
            (event,) = await until_event(mesh, (await patient.get(path)).headers["x-request-id"])
            assert event["data"]["patient"], "the record says whose it was"


async def test_a_large_binary_is_written_and_read_with_bounded_memory(mesh: Any) -> None:
    content = random.Random(24).randbytes(SIZE)
    async with client(mesh, "demo_doctor") as doctor:
        await doctor.get("/store/Patient/FCE57")  # connections and caches are there
        gauge = Gauge(mesh)
        stored = await doctor.post(
            "/store/Binary", content=content, headers={"content-type": BYTES, "prefer": "return=minimal"}
        )
        assert stored.status_code == 201, stored.text
        writing = gauge.growth()
        assert all(grown < WRITING for grown in writing.values()), writing
        path = stored.headers["location"].partition("/_history")[0]
        gauge, digest = Gauge(mesh), hashlib.sha256()
        async with doctor.stream("GET", path, headers={"accept": BYTES}) as answer:
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))
            async for piece in answer.aiter_raw():
                digest.update(piece)
        reading = gauge.growth()
    assert digest.digest() == hashlib.sha256(content).digest()
    assert all(grown < READING for grown in reading.values()), reading
    print(f"growth in MiB: writing {mib(writing)}, reading {mib(reading)}")
    assert sorted(told(await ended(mesh, stored, 2))) == [
        ("write", "intent", "success"),
        ("write", "outcome", "success"),
    ]
    (event,) = await ended(mesh, answer, 1)
    assert (event["data"]["outcome"]["code"], event["data"]["request"]["bytes"]) == ("success", SIZE)


def mib(growth: dict[str, int]) -> dict[str, int]:
    return {name: grown >> 20 for name, grown in growth.items()}


@pytest.mark.parametrize(("who", "enough"), [("caller", LONG), ("platform", 8 * MEGABYTE)])
async def test_content_that_breaks_off_is_recorded_with_what_had_left(
    mesh: Any, platform: Platform, who: str, enough: int
) -> None:
    platform.reset()
    got, gauge = 0, Gauge(mesh)
    try:
        async with client(mesh, "demo_doctor") as doctor:
            async with doctor.stream("GET", "/own/Binary/endless", headers={"accept": BYTES}) as answer:
                assert answer.status_code == 200
                try:
                    async for piece in answer.aiter_raw():
                        got += len(piece)
                        if got > enough and who == "caller":
                            break
                        if got > enough:
                            platform.hold.set()
                except httpx.RemoteProtocolError:
                    assert who == "platform", "half of it is never taken for the whole"
                else:
                    assert who == "caller"
            reading = gauge.growth()
            assert all(grown < READING for grown in reading.values()), reading
            first, second = await ended(mesh, answer, 2)
    finally:
        platform.hold.set()
    assert (first["data"]["outcome"]["code"], second["data"]["outcome"]["code"]) == ("success", "error")
    reason = "abandoned" if who == "caller" else "upstream_unavailable"
    assert second["data"]["outcome"]["reason"] == reason
    assert second["data"]["facts"]["broken_off_after"] >= got > enough
    print(f"{got >> 20} MiB read, growth in MiB {mib(reading)}")
    assert first["data"]["actor"]["id"] and second["data"]["patient"] is None

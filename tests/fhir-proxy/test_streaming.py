"""PX-6: content that nobody looks into passes through in pieces, as fast as it is taken and no faster."""

from __future__ import annotations

import asyncio
import functools
import gzip
import os
import random
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from engines import nats
from proxy_mesh import Mesh, proxy_mesh
from wardmesh_common.contracts import Outcome
from wardmesh_common.errors import BadUpstream, Busy, TooLarge
from wardmesh_common.leaf import draft_events
from wardmesh_common.streamed import UNKNOWN_SIZE, Streamed
from wardmesh_common.transfer import TransferBroken
from wardmesh_common.vocabulary import Mask, Obligations
from wardmesh_fhir_proxy.lanes import FAILURES_TO_OPEN, FIRST_OPEN_SECONDS, Lane

pytestmark = pytest.mark.anyio
NDJSON = "application/fhir+ndjson"
LINES = b'{"resourceType":"Observation","id":"o","valueString":"%s"}\n' % (b"x" * 3500) * 293  # about a megabyte
WORDS = b'{"resourceType":"Observation","valueString":"%s"}\n' % random.Random(6).randbytes(400_000).hex().encode()
PACKED = gzip.compress(WORDS)
ASKED: dict[str, Any] = {"headers": {"accept": NDJSON}}
GIGABYTE = 1 << 30
MAY_EXPORT = {"System": Obligations()}


class Export:
    """A file of a bulk export, sent line by line; counts what has left."""

    def __init__(self, blocks: int, *, compressed: bool = False, breaks_at: int = -1, sized: bool = False) -> None:
        self.blocks, self.compressed, self.breaks_at, self.sized = blocks, compressed, breaks_at, sized
        self.sent, self.hung_up = 0, asyncio.Event()

    async def respond(self, request: web.Request) -> web.StreamResponse:
        named = {"Content-Type": NDJSON, **({"Content-Encoding": "gzip"} if self.compressed else {})}
        if self.sized:
            named["Content-Length"] = str(self.blocks * len(LINES))
        response = web.StreamResponse(headers=named)
        await response.prepare(request)
        block = PACKED if self.compressed else LINES
        try:
            for number in range(self.blocks):
                if number == self.breaks_at:
                    assert request.transport is not None
                    request.transport.abort()
                    break
                await response.write(block)
                self.sent += len(LINES)
        except ConnectionError:
            self.hung_up.set()
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Any]:
    """A platform with one file."""

    class Platform:
        base, file, requests = "", Export(1), list[web.Request]()

    platform = Platform()

    async def handle(request: web.Request) -> web.StreamResponse:
        platform.requests.append(request)
        return await platform.file.respond(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    platform.base = f"http://127.0.0.1:{runner.addresses[0][1]}/r4"
    yield platform
    await runner.cleanup()


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with nats() as running:
        yield running.url


@pytest.fixture
async def mesh(server: Any, tmp_path: Path, nats_url: str) -> AsyncIterator[Mesh]:
    async with proxy_mesh(server, tmp_path, nats_url) as made:
        made.kinds = MAY_EXPORT
        yield made


@pytest.fixture
def bench(bench: Any) -> Any:
    """NDJSON is for who may export."""
    bench.policy.kinds = dict(MAY_EXPORT)
    return bench


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.requirement("PX-6")
async def test_px6_a_gigabyte_of_ndjson_passes_with_bounded_memory(mesh: Mesh, server: Any) -> None:
    server.file = Export(GIGABYTE // len(LINES))
    delivery = await mesh.send("read", "Binary", "export-1", **ASKED)
    assert (delivery.reply.status, delivery.reply.media_type) == (200, NDJSON)
    assert delivery.reply.chunked_bytes == UNKNOWN_SIZE
    before, highest, size, digest = resident(), 0, 0, 0
    async for part in delivery.stream():
        size += len(part)
        digest = zlib.crc32(part, digest)
        highest = max(highest, resident())
    assert size == server.file.blocks * len(LINES) > GIGABYTE * 0.99
    assert digest == functools.reduce(lambda crc, _: zlib.crc32(LINES, crc), range(server.file.blocks), 0)
    assert highest - before < 48 << 20, f"{(highest - before) >> 20} MiB more than before"
    assert len(mesh.records.outcomes) == 1, "recorded before the first piece left"


@pytest.mark.requirement("PX-6")
async def test_px6_a_slow_reader_holds_the_platform_back_and_one_who_leaves_ends_the_transfer(
    mesh: Mesh, server: Any
) -> None:
    server.file = Export(300)
    delivery = await mesh.send("read", "Binary", "export-1", **ASKED)
    parts = delivery.stream()
    await anext(parts)
    before = -1
    async with asyncio.timeout(60):
        while before != server.file.sent:
            before = server.file.sent
            await asyncio.sleep(0.2)
    assert server.file.sent < 30 * len(LINES), "the rest waits at the platform"
    await parts.aclose()
    async with asyncio.timeout(60):
        await server.file.hung_up.wait()


@pytest.mark.requirement("PX-6")
async def test_px6_a_stream_that_breaks_off_is_never_taken_for_a_whole_one(mesh: Mesh, server: Any) -> None:
    server.file = Export(20, breaks_at=5)
    delivery = await mesh.send("read", "Binary", "export-1", **ASKED)
    with pytest.raises(TransferBroken):
        async for _ in delivery.stream():
            pass


@pytest.mark.requirement("PX-6")
async def test_px6_the_size_is_told_when_the_platform_tells_it(mesh: Mesh, server: Any) -> None:
    server.file = Export(3, sized=True)
    delivery = await mesh.send("read", "Binary", "export-1", **ASKED)
    assert delivery.reply.chunked_bytes == 3 * len(LINES)
    assert await delivery.body() == LINES * 3


@pytest.mark.requirement("PX-6")
async def test_px6_compressed_content_passes_as_it_is_to_who_takes_it_and_opened_to_others(
    mesh: Mesh, server: Any
) -> None:
    server.file = Export(4, compressed=True)
    taken = {"headers": {"accept": NDJSON, "accept-encoding": "gzip"}}
    reply, body = await mesh.read("read", "Binary", "export-1", **taken)
    assert (reply.headers["Content-Encoding"], body) == ("gzip", PACKED * 4)
    assert server.requests[-1].headers["Accept-Encoding"] == "gzip"
    assert server.requests[-1].headers["Accept"] == NDJSON
    server.file = Export(4, compressed=True)
    reply, body = await mesh.read("read", "Binary", "export-1", **ASKED)
    assert body == WORDS * 4
    assert "Content-Encoding" not in reply.headers
    assert server.requests[-1].headers["Accept-Encoding"] == "identity"


async def outcome_of(bench: Any, export: Export, **more: Any) -> Any:
    """What the performer makes of it; `Upstream` hands the request on to the export."""
    bench.upstream.respond = lambda _: web.Response(body=LINES * export.blocks, headers={"Content-Type": NDJSON})
    return await bench.perform("read", "Binary", "b1", headers={"accept": NDJSON}, **more)


@pytest.mark.requirement("PX-6")
async def test_px6_a_place_at_the_platform_is_taken_until_the_stream_is_closed(bench: Any) -> None:
    bench.describe(max_concurrent=1)
    lane = bench.exchanges.lane(bench.platforms.descriptors["probe"])
    for read in (True, False):
        outcome = await outcome_of(bench, Export(2))
        assert lane._places.locked()
        if read:
            assert b"".join([part async for part in outcome.stream.parts]) == LINES * 2
        await outcome.stream.close()
        await outcome.stream.close()
        assert not lane._places.locked()


@pytest.mark.requirement("PX-6")
async def test_px6_what_may_not_be_looked_past_is_withheld_and_its_connection_given_back(bench: Any) -> None:
    bench.describe(max_concurrent=1)
    lane = bench.exchanges.lane(bench.platforms.descriptors["probe"])
    outcome = await outcome_of(bench, Export(2), obligations=Obligations(compartment="p1"))
    assert (outcome.status, outcome.stream) == (404, None)
    assert not lane._places.locked()


@pytest.mark.requirement("PX-6")
async def test_px6_a_bomb_inside_a_stream_ends_it(bench: Any) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9) * 8
    headers = {"Content-Type": NDJSON, "Content-Encoding": "gzip"}
    bench.upstream.respond = lambda _: web.Response(body=bomb, headers=headers)
    outcome = await bench.perform("read", "Binary", "b1", headers={"accept": NDJSON})
    seen = 0
    with pytest.raises((TooLarge, BadUpstream)):
        async for part in outcome.stream.parts:
            seen += len(part)
            assert len(part) <= 1 << 20
    await outcome.stream.close()
    assert seen < 64 << 20


@pytest.mark.requirement("PX-6")
async def test_px6_small_content_and_resources_in_json_are_read_as_a_whole(bench: Any) -> None:
    bench.upstream.respond = lambda _: web.Response(body=b"\x89PNG", headers={"Content-Type": "image/png"})
    outcome = await bench.perform("read", "Binary", "b1", headers={"accept": "image/png"})
    assert (outcome.body, outcome.stream, outcome.media_type) == (b"\x89PNG", None, "image/png")
    data = {"resourceType": "Binary", "id": "b1", "contentType": "image/png", "data": "A" * 400_000}
    bench.upstream.answer(data)
    outcome = await bench.perform("read", "Binary", "b1")
    assert msgspec.json.decode(outcome.body) == data
    for _ in range(FAILURES_TO_OPEN + 1):
        bench.upstream.answer(b"", 404, Content_Type="text/plain")
        assert (await bench.perform("read", "Binary", "b1", headers={"accept": NDJSON})).status == 404


@pytest.mark.requirement("PX-6")
async def test_px6_json_above_the_limit_is_413_too_costly(bench: Any) -> None:
    bench.upstream.answer(b'{"resourceType":"Bundle","x":"' + b"x" * (51 << 20) + b'"}')
    with pytest.raises(TooLarge) as refused:
        await bench.perform("search", "Observation")
    assert (refused.value.problem.status, refused.value.problem.issue) == (413, "too-costly")


@pytest.mark.requirement("PX-6")
async def test_px6_bytes_leave_only_for_who_is_shown_everything(bench: Any) -> None:
    lane = bench.exchanges.lane(bench.platforms.descriptors["probe"])
    masked = Obligations(masks=(Mask(type="Claim", path="diagnosis", action="remove"),))
    outcome = await outcome_of(bench, Export(1), obligations=masked)
    assert (outcome.status, outcome.stream) == (404, None)
    with pytest.raises(TooLarge):
        await outcome_of(bench, Export(1), obligations=Obligations(max_bytes=len(LINES) - 1))
    assert lane._streams == 0
    outcome = await outcome_of(bench, Export(1), obligations=Obligations(max_bytes=len(LINES)))
    assert outcome.stream.size == len(LINES)
    await outcome.stream.close()


@pytest.mark.requirement("PX-6")
async def test_px6_a_compression_nobody_asked_for_gives_the_connection_back(bench: Any) -> None:
    bench.describe(max_concurrent=1)
    headers = {"Content-Type": NDJSON, "Content-Encoding": "br"}
    bench.upstream.respond = lambda _: web.Response(body=LINES, headers=headers)
    for _ in range(3):
        with pytest.raises(BadUpstream):
            await bench.perform("read", "Binary", "b1", headers={"accept": NDJSON}, seconds=5.0)


async def test_streams_leave_half_of_the_places_to_everybody_else(bench: Any) -> None:
    bench.describe(max_concurrent=4)
    begun = [await outcome_of(bench, Export(1)) for _ in range(2)]
    with pytest.raises(Busy):
        await outcome_of(bench, Export(1))
    small = {"resourceType": "Observation", "id": "o1"}
    bench.upstream.answer(small)
    assert msgspec.json.decode((await bench.perform("read", "Observation", "o1")).body) == small
    for outcome in begun:
        await outcome.stream.close()
    await (await outcome_of(bench, Export(1))).stream.close()


async def test_a_stream_that_has_begun_closes_the_circuit_for_everybody(bench: Any) -> None:
    now = [0.0]
    lane = Lane(bench.platforms.descriptors["probe"], lambda: now[0])
    for _ in range(FAILURES_TO_OPEN):
        await lane.enter("p1", 1.0)
        lane.leave(failed=True)
    now[0] = FIRST_OPEN_SECONDS + 1
    await lane.enter("p1", 1.0)
    lane.begin_stream()
    await lane.enter("p2", 1.0)
    lane.leave(failed=False)
    lane.end_stream()
    assert not lane.circuit.open


@pytest.mark.parametrize(("size", "recorded"), [(7, 7), (UNKNOWN_SIZE, None)])
async def test_the_record_of_a_stream_has_its_size_or_none(bench: Any, size: int, recorded: int | None) -> None:
    async def nothing() -> None:
        """There is no connection."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"1234567"

    outcome = Outcome(status=200, stream=Streamed(parts(), size, nothing))
    (draft,) = draft_events(bench.call("read", "Binary", "b1"), outcome, (), 0.0)
    assert draft.data["request"].get("bytes") == recorded

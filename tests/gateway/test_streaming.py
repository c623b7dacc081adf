"""Large answers over the real HTTP server: back-pressure, hang-ups, and answers that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.rest_stage import FakeDelivery, Stage
from wardmesh_cli.ports import free_port
from wardmesh_common.contracts import Reply
from wardmesh_common.listening import reserve
from wardmesh_common.streamed import UNKNOWN_SIZE
from wardmesh_common.transfer import TransferBroken
from wardmesh_gateway.fhir import takes_gzip
from wardmesh_gateway.server import serving

pytestmark = pytest.mark.anyio
PART = b"x" * 128 * 1024
COUNT = 200
REQUEST = (
    b"GET /fhir/store/Patient?a=1 HTTP/1.1\r\nHost: gateway.test\r\n"
    b"Authorization: Bearer doctor:fhir.read\r\nConnection: close\r\n\r\n"
)


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Transfer(FakeDelivery):
    """A body in many pieces; counts those taken, notices when nobody wants more, breaks after `breaks_at`."""

    def __init__(self, breaks_at: int = COUNT, size: int = len(PART) * COUNT, kind: str = "application/json") -> None:
        super().__init__(Reply(call_id="", status=200, media_type=kind, chunked_bytes=size))
        self.breaks_at = breaks_at
        self.ended = asyncio.Event()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(COUNT):
                if number == self.breaks_at:
                    raise TransferBroken
                self.taken += 1
                yield PART
                await asyncio.sleep(0)  # as a real transfer does when the next piece is not there yet
        finally:
            self.ended.set()


@asynccontextmanager
async def served(
    transfer: Transfer, request: bytes = REQUEST
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    stage = Stage()
    stage.bus.reply = transfer
    port = free_port()
    async with serving(stage.router, reserve("127.0.0.1", port)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024)
        writer.write(request)
        try:
            async with asyncio.timeout(60):
                yield reader, writer
        finally:
            writer.close()


async def test_a_slow_reader_holds_up_the_transfer_and_still_gets_everything() -> None:
    transfer = Transfer()
    async with served(transfer) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != transfer.taken:
            before = transfer.taken
            await asyncio.sleep(0.1)
        assert transfer.taken < COUNT / 2
        body = await reader.read()
        rest = bytearray(body)
        while chunk := await reader.read(1 << 20):
            rest += chunk
        assert len(rest) == len(PART) * COUNT
        assert transfer.ended.is_set()


async def test_a_caller_that_hangs_up_in_the_middle_ends_the_transfer() -> None:
    transfer = Transfer()
    async with served(transfer) as (reader, writer):
        await reader.readexactly(len(PART))
        writer.transport.abort()
        await transfer.ended.wait()
        assert transfer.taken < COUNT


async def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(caplog: pytest.LogCaptureFixture) -> None:
    transfer = Transfer(breaks_at=3)
    async with served(transfer) as (reader, _):
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"content-length: {len(PART) * COUNT}".encode() in head.lower()
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(len(PART) * COUNT)
    assert "an answer broke off: unavailable" in caplog.text
    assert "Traceback" not in caplog.text


CONTENT = REQUEST.replace(b"Patient?a=1", b"Binary/export-1").replace(
    b"Connection:", b"Accept: text/html\r\nConnection:"
)


@pytest.mark.requirement("PX-6")
async def test_content_of_unknown_size_is_sent_in_chunks_and_is_no_page_of_ours() -> None:
    transfer = Transfer(size=UNKNOWN_SIZE, kind="text/html")
    async with served(transfer, CONTENT) as (reader, _):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"transfer-encoding: chunked" in head and b"content-length" not in head
        assert b"sandbox" in head, "a stored page may not run scripts under our address"
        size = 0
        while piece := await reader.read(1 << 20):
            size += len(piece)
        assert size > len(PART) * COUNT
    assert transfer.taken == COUNT


@pytest.mark.requirement("PX-6")
async def test_content_of_unknown_size_that_breaks_off_has_no_end() -> None:
    transfer = Transfer(breaks_at=3, size=UNKNOWN_SIZE, kind="application/fhir+ndjson")
    async with served(transfer, CONTENT) as (reader, _):
        answer = await reader.read(-1)
        assert not answer.endswith(b"0\r\n\r\n"), "the last chunk of a whole answer is missing"


@pytest.mark.requirement("PX-6")
@pytest.mark.parametrize("size", [len(PART) * COUNT, UNKNOWN_SIZE])
async def test_who_asks_for_the_head_alone_makes_nobody_send_the_content(size: int) -> None:
    transfer = Transfer(size=size, kind="application/fhir+ndjson")
    async with served(transfer, CONTENT.replace(b"GET ", b"HEAD ")) as (reader, _):
        head = (await reader.read(-1)).lower()
        assert head.startswith(b"http/1.1 200") and head.endswith(b"\r\n\r\n")
        assert (b"content-length: %d" % size in head) == (size > 0)
    assert transfer.declined and transfer.taken == 0, "its sender is told that nobody wants it"


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("GZIP ; q=1", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
def test_compressed_content_goes_to_who_says_so(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken

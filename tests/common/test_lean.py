"""The lean client against a server that behaves badly: fragments, errors, silence, TLS (NB-1)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_common import lean
from wardmesh_common.lean import LeanClient, NotConnected, PayloadTooLarge, field_of, header_block, status_of

pytestmark = pytest.mark.anyio

INFO = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n'
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A NATS server that says hello properly and then follows `script`."""
    finished = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        while await reader.readline() != b"PING\r\n":
            pass
        writer.write(b"PONG\r\n")
        with contextlib.suppress(ConnectionError):
            await script(reader, writer)
            await finished.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        finished.set()
        server.close()


async def connect(url: str, **options: object) -> LeanClient:
    nc = LeanClient()

    async def ignore(_error: Exception) -> None: ...

    await nc.connect(url, pending_size=0, allow_reconnect=False, **{"error_cb": ignore, **options})
    return nc


async def subscription(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(30):
        while not (await reader.readline()).startswith(b"SUB"):
            pass


@pytest.mark.requirement("NB-1")
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
async def test_messages_cut_anywhere_arrive_whole_and_in_order(step: int) -> None:
    payloads = [b"", b"x", b"MSG a 1 3\r\nfoo", b"\r\n" * 50, b"y" * 3000]
    header = header_block(Long_Header="h" * 900)
    wire = b"".join(b"MSG a 1 %d\r\n%b\r\n" % (len(p), p) for p in payloads)
    wire += b"HMSG a 1 _INBOX_x %d %d\r\n%bend\r\n" % (len(header), len(header) + 3, header)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await subscription(reader)
        for start in range(0, len(wire), step):
            writer.write(wire[start : start + step])
            await writer.drain()
            if step < 1000 and start % 97 == 0:
                await asyncio.sleep(0)

    seen: list[tuple[bytes, bytes | None]] = []
    done = asyncio.Event()

    def receive(_subject: bytes, _reply: bytes, data: bytes, head: bytes | None) -> None:
        seen.append((data, head))
        if head:
            done.set()

    async with scripted(script) as url:
        nc = await connect(url)
        nc.lean_subscribe("a", receive)
        async with asyncio.timeout(60):
            await done.wait()
        assert [data for data, _ in seen] == [*payloads, b"end"]
        assert seen[-1][1] == header
        await nc.close()


@pytest.mark.requirement("NB-1", "NB-16")
async def test_a_permission_error_is_reported_and_the_connection_lives_on() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await subscription(reader)
        writer.write(b"-ERR 'Permissions Violation for Publish to \"call.decide\"'\r\n")
        writer.write(b"MSG a 1 2\r\nok\r\n")

    errors: list[str] = []
    got = asyncio.Event()

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    async with scripted(script) as url:
        nc = await connect(url, error_cb=on_error)
        nc.lean_subscribe("a", lambda *_: got.set())
        async with asyncio.timeout(30):
            await got.wait()
        assert "permissions violation" in errors[0]
        assert nc.is_connected
        await nc.close()


@pytest.mark.requirement("NB-1", "NB-2")
async def test_a_server_that_stops_reading_does_not_make_the_client_grow() -> None:
    async def script(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)  # and never reads again

    async with scripted(script) as url:
        nc = await connect(url)
        block = b"z" * 500_000
        with pytest.raises(NotConnected):
            for _ in range(200):
                nc.lean_publish("a", block)
                await asyncio.sleep(0)
        assert nc.unsent_bytes <= lean.MAX_UNSENT_BYTES + 2 * len(block)
        writer = nc._transport._io_writer
        writer.transport.abort()
        await nc.close()


@pytest.mark.requirement("NB-1", "NB-11")
async def test_a_payload_above_the_servers_limit_is_refused_before_it_is_sent(nats_url: str) -> None:
    nc = await connect(nats_url)
    with pytest.raises(PayloadTooLarge):
        nc.lean_publish("a", b"x" * (nc.max_payload + 1))
    assert nc.is_connected
    await nc.close()
    with pytest.raises(NotConnected):
        nc.lean_publish("a", b"x")


@pytest.mark.requirement("NB-1")
@given(
    st.dictionaries(st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True), st.from_regex(r"[!-9;-~]{1,40}", fullmatch=True))
)
def test_header_fields_written_are_read_again(fields: dict[str, str]) -> None:
    block = header_block(**fields)
    assert status_of(block) == 0
    for name, value in fields.items():
        assert field_of(block, name.encode()) == value
    assert field_of(block, b"Absent-Name") == ""


@pytest.mark.requirement("NB-1")
def test_the_inline_status_of_no_responders_is_read() -> None:
    assert status_of(b"NATS/1.0 503\r\n\r\n") == 503
    assert status_of(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n") == 100
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == 0
    assert status_of(None) == 0

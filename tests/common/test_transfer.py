"""Bodies above the broker's limit travel in chunks, both ways, with bounded memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator

import pytest

from common.mesh_in_a_process import small_mesh
from wardmesh_common.contracts import Call, Outcome, Reply, encode
from wardmesh_common.station import Hop
from wardmesh_common.streamed import UNKNOWN_SIZE, Streamed
from wardmesh_common.transfer import CHUNK_BYTES, INLINE_BYTES, WINDOW, TransferBroken
from wardmesh_common.vocabulary import Interaction

pytestmark = pytest.mark.anyio
TWENTY_MB = bytes(range(256)) * (20_000_000 // 256)


async def answer_large(_call: Call, _hop: Hop) -> Outcome:
    return Outcome(status=200, body=TWENTY_MB)


@pytest.mark.requirement("NB-11")
async def test_a_twenty_megabyte_answer_arrives_whole_below_the_brokers_limit(nats_url: str) -> None:
    async with small_mesh(nats_url, answer_large) as mesh:
        assert mesh.gateway.nc.max_payload <= 8 * 1024 * 1024 < len(TWENTY_MB)
        delivery = await mesh.gateway.submit(mesh.call())
        assert delivery.reply.chunked_bytes == len(TWENTY_MB)
        assert hashlib.sha256(await delivery.body()).digest() == hashlib.sha256(TWENTY_MB).digest()


@pytest.mark.requirement("NB-11")
async def test_a_twenty_megabyte_request_reaches_the_performer_and_nobody_else(nats_url: str) -> None:
    async def measure(call: Call, hop: Hop) -> Outcome:
        assert call.body == b""
        return Outcome(status=200, body=hashlib.sha256(await hop.body()).hexdigest().encode())

    async with small_mesh(nats_url, measure) as mesh:
        delivery = await mesh.gateway.submit(mesh.call(interaction=Interaction.TRANSACTION), TWENTY_MB)
        assert await delivery.body() == hashlib.sha256(TWENTY_MB).hexdigest().encode()


@pytest.mark.requirement("NB-11")
async def test_a_slow_reader_holds_the_sender_back(nats_url: str) -> None:
    async with small_mesh(nats_url, answer_large) as mesh:
        delivery = await mesh.gateway.submit(mesh.call())
        arrived_before = mesh.gateway.nc.stats["in_bytes"]
        await asyncio.sleep(0.3)  # nothing is read meanwhile: what arrives is the open window and no more
        arrived = mesh.gateway.nc.stats["in_bytes"] - arrived_before
        assert arrived <= (WINDOW + 1) * (CHUNK_BYTES + 256)
        read = 0
        async for part in delivery.stream():
            read += len(part)
        assert read == len(TWENTY_MB)


@pytest.mark.requirement("NB-11", "NB-2")
async def test_a_broken_transfer_is_an_error_and_never_a_short_body(nats_url: str) -> None:
    async with small_mesh(nats_url, answer_large) as mesh:
        delivery = await mesh.gateway.submit(mesh.call())
        parts = delivery.stream()
        await anext(parts)
        mesh.buses.remove(mesh.performer)
        await mesh.performer.nc.close()
        mesh.gateway._on_lost()  # what the connection reports when it breaks
        with pytest.raises(TransferBroken):
            async for _ in parts:
                pass


@pytest.mark.requirement("NB-11")
@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 8 * CHUNK_BYTES, 8 * CHUNK_BYTES + 1])
async def test_every_size_around_the_limits_arrives_whole(nats_url: str, size: int) -> None:
    async def answer(_call: Call, _hop: Hop) -> Outcome:
        return Outcome(status=200, body=b"x" * size)

    async with small_mesh(nats_url, answer) as mesh:
        assert await (await mesh.gateway.submit(mesh.call())).body() == b"x" * size


@pytest.mark.requirement("NB-11")
async def test_a_reply_that_comes_as_its_caller_hangs_up_leaves_nothing_behind(nats_url: str) -> None:
    reached = asyncio.Event()

    async def never(_call: Call, _hop: Hop) -> Outcome:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with small_mesh(nats_url, never) as mesh:
        call = mesh.call()
        submitted = asyncio.create_task(mesh.gateway.submit(call))
        async with asyncio.timeout(60):
            await reached.wait()
        submissions = mesh.gateway._submissions
        assert submissions is not None
        submissions.on_reply(encode(Reply(call_id=call.id, status=200, chunked_bytes=UNKNOWN_SIZE)))
        submitted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitted
        assert not mesh.gateway._transfers._incoming


@pytest.mark.requirement("NB-11")
async def test_a_stream_may_pause_for_longer_than_its_call_had_time(nats_url: str) -> None:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        await asyncio.sleep(1.6)
        yield b"two"

    async def answer(_call: Call, _hop: Hop) -> Outcome:
        made = parts()
        return Outcome(status=200, stream=Streamed(made, UNKNOWN_SIZE, made.aclose))

    async with small_mesh(nats_url, answer) as mesh:
        delivery = await mesh.gateway.submit(mesh.call(seconds=1.4))
        assert await delivery.body() == b"onetwo"

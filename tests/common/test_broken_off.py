"""An answer that breaks off on its way is recorded as one that did, after so many bytes; before that, as given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from common.mesh_in_a_process import SmallMesh, records, small_mesh
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.errors import AuditUnavailable, BadUpstream
from wardmesh_common.leaf import draft_events
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.recorder import Recorder
from wardmesh_common.station import Hop, broken_off
from wardmesh_common.streamed import UNKNOWN_SIZE, Streamed
from wardmesh_common.transfer import ABANDONED, CHUNK_BYTES, WINDOW, TransferBroken
from wardmesh_common.vocabulary import Principal, Resource

pytestmark = pytest.mark.anyio
PART = b"x" * CHUNK_BYTES
MANY = 200


def streaming(breaks_at: int = -1, count: int = MANY) -> Callable[[Call, Hop], object]:
    """A performer whose answer is `count` pieces, or breaks off where the platform does."""

    async def parts() -> AsyncGenerator[bytes, None]:
        for number in range(count):
            if number == breaks_at:
                raise BadUpstream("The platform's answer ended early.")
            yield PART

    async def answer(_call: Call, _hop: Hop) -> Outcome:
        made = parts()
        return Outcome(status=200, stream=Streamed(made, UNKNOWN_SIZE, made.aclose))

    return answer


async def until_codes(bus: object, count: int) -> list[str]:
    async with asyncio.timeout(60):
        while len(records(bus).codes()) < count:  # type: ignore[arg-type]
            await asyncio.sleep(0.02)
    return records(bus).codes()  # type: ignore[arg-type]


async def taken(mesh: SmallMesh, pieces: int) -> int:
    """Bytes that a caller got who hangs up after so many pieces."""
    delivery = await mesh.gateway.submit(mesh.call())
    parts, size = delivery.stream(), 0
    async for part in parts:
        size += len(part)
        pieces -= 1
        if not pieces:
            break
    await parts.aclose()
    return size


@pytest.mark.parametrize("whole", [True, False])
async def test_a_caller_who_hangs_up_is_in_the_record_with_what_had_left(nats_url: str, whole: bool) -> None:
    async def at_once(_call: Call, _hop: Hop) -> Outcome:
        return Outcome(status=200, body=PART * MANY)

    async with small_mesh(nats_url, at_once if whole else streaming()) as mesh:  # type: ignore[arg-type]
        got = await taken(mesh, 5)
        assert await until_codes(mesh.performer, 2) == ["200", "abandoned"]
        (_, first), (call, second) = records(mesh.performer).outcomes
        assert first.broken_after == -1 and call.id
        assert got <= second.broken_after <= got + (WINDOW + 1) * CHUNK_BYTES, "never less than what was given"


async def test_a_caller_who_hangs_up_within_the_last_window_is_noticed_too(nats_url: str) -> None:
    async with small_mesh(nats_url, streaming(count=4)) as mesh:  # type: ignore[arg-type]
        assert await taken(mesh, 2) == 2 * CHUNK_BYTES
        assert await until_codes(mesh.performer, 2) == ["200", "abandoned"]
        assert records(mesh.performer).outcomes[1][1].broken_after == 4 * CHUNK_BYTES


async def test_a_platform_that_breaks_off_is_in_the_record(nats_url: str) -> None:
    async with small_mesh(nats_url, streaming(breaks_at=20)) as mesh:  # type: ignore[arg-type]
        delivery = await mesh.gateway.submit(mesh.call())
        with pytest.raises(TransferBroken):
            await delivery.body()
        assert await until_codes(mesh.performer, 2) == ["200", "upstream_unavailable"]
        assert records(mesh.performer).outcomes[1][1].broken_after == 20 * CHUNK_BYTES
        assert records(mesh.gateway).codes() == [], "it is recorded once"


async def test_a_performer_that_dies_is_recorded_by_the_gateway(nats_url: str) -> None:
    async def at_once(_call: Call, _hop: Hop) -> Outcome:
        return Outcome(status=200, body=PART * MANY)

    async with small_mesh(nats_url, at_once) as mesh:
        delivery = await mesh.gateway.submit(mesh.call(seconds=4.0))
        parts = delivery.stream()
        got = len(await anext(parts))
        await mesh.performer.nc.close()
        mesh.buses.remove(mesh.performer)
        with pytest.raises(TransferBroken):
            async for part in parts:
                got += len(part)
        assert records(mesh.gateway).codes() == ["unavailable"]
        assert records(mesh.gateway).outcomes[0][1].broken_after == got


async def test_what_arrives_whole_or_is_not_wanted_has_one_record(nats_url: str) -> None:
    async with small_mesh(nats_url, streaming()) as mesh:  # type: ignore[arg-type]
        assert len(await (await mesh.gateway.submit(mesh.call())).body()) == MANY * CHUNK_BYTES
        (await mesh.gateway.submit(mesh.call())).decline()
        async with asyncio.timeout(60):
            while mesh.performer.in_flight:
                await asyncio.sleep(0.02)
        assert records(mesh.performer).codes() == ["200", "200"]
        assert not mesh.gateway._transfers._incoming


class Stalled:
    """A stream that takes its time: what it got, it will store."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None:
        self.bodies.append(data)
        await asyncio.sleep(3600)


async def test_the_record_that_follows_names_nobody_needs_no_key_and_is_never_taken_back() -> None:
    call = SmallMesh("").call()
    call.resource = Resource(type="DocumentReference", id="d1")
    call.principal = Principal(id="somebody", patient="p1")
    (draft,) = draft_events(call, broken_off(ABANDONED, 7), (Touched(patient="store/Patient/p1"),), 0.0)
    assert (draft.subjects, draft.patient, draft.secrets) == ((), "", {})
    assert draft.data["outcome"] == {"code": "error", "http": 499, "reason": "abandoned"}
    assert (draft.data["request"]["id"], draft.data["facts"]) == (call.id, {"broken_off_after": 7})
    assert "p1" not in str(draft.data) and "d1" not in str(draft.data) and "somebody" not in str(draft.data)

    async def ask(_question: object) -> object:
        raise AuditUnavailable("There are no keys.")

    stream = Stalled()
    keys = KeyRing(ask)  # type: ignore[arg-type]
    recorder = Recorder(stream, keys, service="fhir-proxy", instance="i", deadline_seconds=0.05)
    with pytest.raises(AuditUnavailable):
        await recorder.outcome(call, broken_off(ABANDONED, 7))
    assert recorder.pending == 2, "the start of this producer and the event itself wait; nothing corrects it"
    assert b"withheld" not in b"".join(stream.bodies)
    recorder._lanes[0].batcher.abandon()
    for lane in recorder._lanes:
        lane.stop()

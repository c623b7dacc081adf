"""What recording adds to a call, as a ratio to a plain acknowledged publish on the same engines in the same round."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from statistics import median

from audit_cost import Latency, leaves
from audit_world import World, make_call, make_outcome, recorder_on
from wardmesh_common.batcher import Batcher, Ticket
from wardmesh_common.bus import Bus
from wardmesh_common.record_nats import BusPublisher


async def recording(w: World, clients: int, calls: int) -> Latency:
    """What recording adds to a call: from handing its outcome over until the stream has it."""
    async with recorder_on(w, deadline_seconds=30.0) as recorder:
        outcome, made = make_outcome("p1"), [make_call(number) for number in range(calls)]

        async def one(number: int) -> None:
            await recorder.outcome(made[number], outcome)

        await one(0)
        return await _clients(one, clients, calls)


async def alone(w: World, pairs: int = 200) -> float:
    """A single recorded call as a multiple of a plain acknowledged publish: medians of calls that take turns."""
    (leaf,) = leaves(1)
    took: dict[str, list[float]] = {"ours": [], "plain": []}
    async with recorder_on(w, deadline_seconds=30.0) as recorder:
        await recorder.outcome(make_call(0), make_outcome("p1"))
        for number in range(pairs):
            begun = time.perf_counter()
            await recorder.outcome(make_call(number), make_outcome("p1"))
            took["ours"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            await w.nc.request("audit.in.0", leaf, timeout=30)
            took["plain"].append(time.perf_counter() - begun)
    return median(took["ours"]) / median(took["plain"])


async def batching(w: World, clients: int, calls: int) -> Latency:
    """The producer alone: leaves that are made already, through the batcher, each waiting for its acknowledgement."""
    made = leaves(calls)
    bus = await Bus.connect("fhir-proxy", w.nats.url, "")
    publisher = BusPublisher(bus)

    async def publish(data: bytes, msg_id: str) -> None:
        await publisher.publish("audit.in.0", data, msg_id)

    batcher = Batcher(publish, name=f"bench.{secrets.token_hex(8)}")
    try:

        async def one(number: int) -> None:
            ticket = Ticket(1, asyncio.get_running_loop().create_future())
            batcher.queue(made[number], number, ticket)
            assert await ticket.future

        return await _clients(one, clients, calls)
    finally:
        await bus.close()


async def plain_publishing(w: World, clients: int, calls: int) -> Latency:
    """One acknowledged message for each event, without batching."""
    (leaf,) = leaves(1)

    async def one(_number: int) -> None:
        answer = await w.nc.request("audit.in.0", leaf, timeout=30)
        assert b'"error"' not in answer.data

    await one(0)
    return await _clients(one, clients, calls)


async def _clients(one: Callable[[int], Awaitable[None]], clients: int, calls: int) -> Latency:
    """So many clients, each of which does the next call when its last one is done."""
    took: list[float] = []
    numbers = iter(range(calls))

    async def client() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await one(number)
            took.append(time.perf_counter() - begun)

    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    took.sort()
    return Latency(
        p50=took[len(took) // 2], p99=took[int(len(took) * 0.99)], rate=len(took) / wall, cpu=cpu / len(took)
    )

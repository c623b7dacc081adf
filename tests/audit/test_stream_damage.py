"""A bit flips in a store of the broker, or a server of three is lost: nothing acknowledged is, or a gap says what."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.errors import Error as NatsError

from audit_cluster import Cluster, blocks, cluster, flip, stored
from audit_world import World, leaves_of, until, world
from engines import Nats, Postgres, nats
from wardmesh_audit import gaps
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.jetstream import api
from wardmesh_audit.streams import AUDIT_IN, StreamSettings
from wardmesh_common.lean import NotConnected

pytestmark = pytest.mark.anyio

REPLICATED = StreamSettings(replicas=3, in_max_bytes=64 * 1024 * 1024)


async def offer(w: World, lines: list[bytes]) -> None:
    """As a producer does: ten in a message, the same bytes until they are acknowledged."""
    for start in range(0, len(lines), 10):
        part = lines[start : start + 10]
        headers = {"Nats-Msg-Id": json.loads(part[0])["id"]}

        async def acknowledged(part: list[bytes] = part, headers: dict[str, str] = headers) -> bool:
            try:
                answer = await w.nc.request("audit.in.0", b"\n".join(part), timeout=1, headers=headers)
            except (NatsError, NotConnected, TimeoutError, OSError):
                return False
            return b'"stream"' in answer.data and b'"error"' not in answer.data

        await until(acknowledged, 60)


async def stopped(engine: Nats) -> None:
    await asyncio.to_thread(engine.kill)


def id_in(line: bytes) -> bytes:
    return json.loads(line)["id"].encode()


async def leader_of(w: World, servers: Cluster) -> int:
    info: dict[str, Any] = await api(w.nc, f"STREAM.INFO.{AUDIT_IN}")
    return int(info["cluster"]["leader"].removeprefix("n"))


@pytest.mark.requirement("AU-206")
async def test_three_servers_lose_nothing_when_the_leaders_store_is_damaged_and_then_another_server_is_lost(
    server: Postgres,
) -> None:
    lines = leaves_of(300)
    with cluster() as servers:
        async with world(servers, server, REPLICATED) as w:
            await offer(w, lines[:200])
            damaged = await leader_of(w, servers)
            node = servers.nodes[damaged]
            await stopped(node)
            (block,) = blocks(node, AUDIT_IN)
            flip(block, near=id_in(lines[55]))
            await offer(w, lines[200:250])
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(servers.healthy)
            # What the damaged one holds now it can only have from the others: lose one of these.
            await asyncio.to_thread(servers.wipe, (damaged + 1) % 3)
            await asyncio.to_thread(servers.healthy)
            assert {stored(each, AUDIT_IN)["state"]["messages"] for each in servers.nodes} == {25}
            await offer(w, lines[250:])
            async with w.writing(), w.publishing():
                await w.wait_signed(300, 60)
            assert {row["leaf"] for row in await w.query("select leaf from event")} == set(lines)
            assert (await w.verify()).exit_code == VERIFIED


async def found(w: World) -> list[gaps.Gap]:
    conn = await w.connect("audit_reader")
    try:
        return await gaps.find(conn, silent_seconds=3600, missing_seconds=0)
    finally:
        await conn.close()


@pytest.mark.requirement("AU-206")
async def test_a_single_server_that_loses_what_it_acknowledged_is_reported_as_a_gap_with_every_number(
    server: Postgres,
) -> None:
    lines = leaves_of(300)
    with nats() as broker:
        async with world(broker, server) as w:
            await offer(w, lines[:200])
            await stopped(broker)
            (block,) = blocks(broker, AUDIT_IN)
            flip(block, near=id_in(lines[55]))
            await asyncio.to_thread(broker.start)
            await offer(w, lines[200:])
            async with w.writing(), w.publishing():

                async def idle() -> bool:
                    return await w.size() > 100

                await until(idle)
                await w.wait_signed(await w.size())
                there = {row["leaf"] for row in await w.query("select leaf from event")}
                lost = {number for number, line in enumerate(lines) if line not in there}
                assert 55 in lost and lost.isdisjoint(range(200, 300)), "the damaged record is never passed on"
                (gap,) = await found(w)
            assert gap.kind == "missing" and gap.producer == "test-0001"
            reported = {number for first, last in gap.ranges for number in range(first, last + 1)}
            assert reported == lost, "not one more, not one less"
            assert (await w.verify()).exit_code == VERIFIED, "what is there is proven"


@pytest.mark.requirement("AU-206")
async def test_damage_behind_the_writer_costs_nothing_and_what_comes_later_still_arrives(server: Postgres) -> None:
    """The server cuts its stream at the damage, below what the writer has taken: numbers are given out again."""
    lines = leaves_of(300)
    with nats() as broker:
        async with world(broker, server) as w:
            async with w.writing(), w.publishing():
                await offer(w, lines[:200])
                await w.wait_signed(200)
            await stopped(broker)
            (block,) = blocks(broker, AUDIT_IN)
            flip(block, near=id_in(lines[55]))
            await asyncio.to_thread(broker.start)
            async with w.writing(), w.publishing():
                await offer(w, lines[200:])
                await w.wait_signed(300, 60)
            assert {row["leaf"] for row in await w.query("select leaf from event")} == set(lines)
            assert await found(w) == []
            assert (await w.verify()).exit_code == VERIFIED

"""What makes the service refuse to start or to work: unsafe databases and streams that are not as designed."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from audit_world import SMALL, World, remove_streams, world
from engines import Nats, Postgres, postgres
from wardmesh_audit.app import connector, in_our_words
from wardmesh_audit.assertions import Unsafe, check_guards
from wardmesh_audit.connect import nats_as
from wardmesh_audit.jetstream import api
from wardmesh_audit.streams import (
    AUDIT,
    AUDIT_CHECKPOINT,
    AUDIT_IN,
    WrongStream,
    assert_streams,
    consumer_config,
    consumer_of,
    provision,
    stream_configs,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        yield w


async def refuse(url: str, text: str) -> None:
    with pytest.raises(Unsafe, match=text):
        await connector(url)()


@pytest.mark.requirement("AU-407")
async def test_a_superuser_an_owner_or_an_asynchronous_commit_is_refused(ledger: World) -> None:
    await refuse(ledger.url("postgres"), "superuser")
    await refuse(ledger.url("audit_migrate"), "member of audit_owner")
    for setting, value in (("synchronous_commit", "off"), ("synchronous_commit", "local")):
        await ledger.query(f"alter role audit_writer in database {ledger.database} set {setting} = {value}")
        await refuse(ledger.url("audit_writer"), setting)
    await ledger.query(f"alter role audit_writer in database {ledger.database} reset all")
    await (await connector(ledger.url("audit_writer"))()).close()


@pytest.mark.requirement("AU-407")
async def test_a_server_without_fsync_is_refused() -> None:
    from wardmesh_audit.migrate import migrate

    with postgres() as pg:
        await migrate(pg.url("audit"))
        await refuse(pg.url("audit", "audit_writer"), "fsync")


@pytest.mark.requirement("AU-407", "X-26")
@pytest.mark.parametrize(
    "statement",
    [
        "alter table event disable trigger no_change",
        "alter table event enable trigger no_change",
        "alter table event_0_default disable trigger no_truncate",
        "alter table checkpoint disable trigger no_change",
        "alter table tree_state disable trigger no_shrink",
        "drop trigger no_truncate on malformed_payload",
        "drop table event_0_default",
    ],
)
async def test_a_disabled_trigger_or_a_missing_partition_is_refused(ledger: World, statement: str) -> None:
    await ledger.query(statement)
    writer, puller = ledger.writer()
    with pytest.raises(Unsafe):
        await asyncio.wait_for(writer.run(), 60)
    puller.stop()
    with pytest.raises(Unsafe):
        await asyncio.wait_for(ledger.publisher().run(), 60)


async def test_missing_months_are_made_by_the_writer_and_missed_by_everyone_else(ledger: World) -> None:
    name = (
        await ledger.query(
            "select max(relid::regclass::text) as n from pg_partition_tree('event')"
            " where relid::regclass::text ~ '[0-9]$' and isleaf"
        )
    )[0]["n"]
    await ledger.query(f"drop table {name}")
    conn: Any = await asyncpg.connect(ledger.url("audit_signer"))
    try:
        with pytest.raises(Unsafe, match=name):
            await check_guards(conn)
        async with ledger.writing() as (writer,):
            await ledger.send(b"x")
            await ledger.wait_size(1)
            assert writer.state.failures == 0
        await check_guards(conn)
    finally:
        await conn.close()


CHANGES = [
    (AUDIT_IN, {"discard": "old"}),
    (AUDIT_IN, {"max_age": 3_600_000_000_000}),
    (AUDIT_IN, {"max_bytes": 1024 * 1024}),
    (AUDIT_IN, {"max_msgs": 100_000}),
    (AUDIT_IN, {"subjects": ["audit.in.>", "other.>"]}),
    (AUDIT, {"duplicate_window": 1_000_000_000}),
    (AUDIT, {"max_msg_size": 1000}),
    (AUDIT, {"deny_delete": False}),
    (AUDIT, {"deny_purge": False}),
    (AUDIT, {"storage": "memory"}),
    (AUDIT, {"allow_atomic": False}),
    (AUDIT_CHECKPOINT, {"max_age": 3_600_000_000_000}),
    (AUDIT_CHECKPOINT, {"retention": "interest"}),
    (AUDIT_CHECKPOINT, {"max_msgs_per_subject": 5}),
]


@pytest.mark.requirement("AU-201")
async def test_streams_are_provisioned_once_and_every_difference_is_named(broker: Nats) -> None:
    async with nats_as("operations", broker.url, "") as nc:
        assert await provision(nc, SMALL) == [AUDIT_IN, AUDIT, AUDIT_CHECKPOINT, consumer_of(0)]
        assert await provision(nc, SMALL) == []
        await remove_streams(nc)
        for stream, change in CHANGES:
            configs = stream_configs(SMALL)
            configs[stream] = configs[stream] | change
            for name, config in configs.items():
                await api(nc, f"STREAM.CREATE.{name}", config)
            body = {"stream_name": AUDIT_IN, "config": consumer_config()}
            await api(nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{consumer_of(0)}", body)
            (setting,) = change
            with pytest.raises(WrongStream, match=f"{stream}: {setting}"):
                await assert_streams(nc, SMALL)
            with pytest.raises(WrongStream, match=f"{stream}: {setting}"):
                await provision(nc, SMALL)
            await remove_streams(nc)
        with pytest.raises(WrongStream, match="missing"):
            await assert_streams(nc, SMALL)


@pytest.mark.requirement("AU-201")
async def test_a_consumer_with_another_setting_is_named(broker: Nats) -> None:
    async with nats_as("operations", broker.url, "") as nc:
        await provision(nc, SMALL)
        body = {"stream_name": AUDIT_IN, "config": consumer_config() | {"max_deliver": 5}}
        await api(nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{consumer_of(0)}", body)
        with pytest.raises(WrongStream, match="max_deliver"):
            await assert_streams(nc, SMALL)
        await remove_streams(nc)


@pytest.mark.requirement("AU-201")
async def test_the_longer_wait_of_an_earlier_release_is_changed_by_provisioning_and_any_other_is_refused(
    broker: Nats,
) -> None:
    async with nats_as("operations", broker.url, "") as nc:
        await provision(nc, SMALL)
        for seconds, made in ((30, [consumer_of(0)]), (7, None)):
            body = {"stream_name": AUDIT_IN, "config": consumer_config() | {"ack_wait": seconds * 10**9}}
            await api(nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{consumer_of(0)}", body)
            with pytest.raises(WrongStream, match="ack_wait"):
                await assert_streams(nc, SMALL)
            if made is None:
                with pytest.raises(WrongStream, match="ack_wait"):
                    await provision(nc, SMALL)
            else:
                assert await provision(nc, SMALL) == made
        await remove_streams(nc)


def test_what_a_role_stumbled_over_is_not_quoted_when_it_ends() -> None:
    quoting = asyncpg.DataError("invalid input syntax: Canarius")
    assert "Canarius" in str(quoting) and in_our_words(quoting) == "DataError"
    assert in_our_words(WrongStream("AUDIT: max_age")) == "WrongStream: AUDIT: max_age"

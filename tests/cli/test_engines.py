"""The engines that other tests rely on start, answer and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncpg
import nats as nats_client
import pytest

import engines


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_nats_server_starts_with_jetstream_and_is_gone_afterwards() -> None:
    async def publish(url: str) -> int:
        client = await nats_client.connect(url, connect_timeout=5)
        try:
            stream = client.jetstream()
            await stream.add_stream(name="T", subjects=["t.>"])
            return (await stream.publish("t.one", b"x", timeout=5)).seq
        finally:
            await client.close()

    with engines.nats() as server:
        assert asyncio.run(publish(server.url)) == 1
        pid = server.pid
    assert gone(pid)


def test_postgres_18_starts_with_the_databases_asked_for_and_survives_a_kill() -> None:
    async def ask(url: str) -> tuple[str, str]:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            row = await connection.fetchrow("SELECT current_database(), current_setting('server_version')")
            assert row is not None
            return str(row[0]), str(row[1])
        finally:
            await connection.close()

    with engines.postgres("first", "second") as server:
        database, version = asyncio.run(ask(server.url("second")))
        assert database == "second"
        assert version.startswith("18.")
        server.kill()
        server.start()
        assert asyncio.run(ask(server.url()))[0] == "first"
        pid = server.pid
    assert gone(pid)


def test_cerbos_starts_on_a_directory_of_policies(tmp_path: Path) -> None:
    (tmp_path / "thing.yaml").write_text(
        "apiVersion: api.cerbos.dev/v1\nresourcePolicy:\n  resource: thing\n  version: default\n"
        "  rules: [{actions: ['read'], effect: EFFECT_ALLOW, roles: ['*']}]\n"
    )
    with engines.cerbos(tmp_path) as server:
        assert engines.answers(f"{server.http_url}/_cerbos/health")
        assert Path(server.target.removeprefix("unix:")).is_socket()


def test_an_engine_that_cannot_start_shows_its_log() -> None:
    with pytest.raises(RuntimeError, match="did not start"), engines.nats("no such setting {"):
        pass

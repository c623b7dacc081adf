"""The installed command: migrations, refusal of bad configuration, a real process behind the real NATS permissions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

import engines
from auth.stage import prepare
from wardmesh_auth.database import engine_for
from wardmesh_auth.migrate import migrate
from wardmesh_auth.tables import SCHEMA, metadata

pytestmark = pytest.mark.anyio
COMMAND = str(Path(sys.executable).parent / "wardmesh-auth")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [COMMAND, *arguments], env=clean | environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_migrating_twice_and_at_the_same_time_is_safe() -> None:
    with engines.postgres("fresh") as database:
        url = {"WARDMESH_DATABASE_URL": database.url()}
        started = [subprocess.Popen([COMMAND, "migrate"], env={"PATH": os.environ["PATH"]} | url) for _ in range(2)]
        assert [process.wait(60) for process in started] == [0, 0]
        assert run("migrate", **url).returncode == 0


async def test_the_migrations_make_exactly_the_declared_tables(postgres: engines.Postgres) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"include_schemas": True, "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA}
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, metadata)
        return [d for d in found if "alembic_version" not in str(d)]

    engine = engine_for(postgres.url())
    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def test_a_missing_or_bad_setting_ends_the_start_with_one_clear_line() -> None:
    nothing = run()
    assert nothing.returncode == 78
    assert nothing.stderr.count("\n") == 1
    assert "WARDMESH_" in nothing.stderr
    down = run("migrate", WARDMESH_DATABASE_URL="postgresql://u:CANARY@127.0.0.1:1/x")
    assert down.returncode == 1
    assert "CANARY" not in down.stderr
    assert "Traceback" not in down.stderr
    wrong = run("migrate", WARDMESH_DATABASE_URL="CANARY://x")
    assert wrong.returncode == 78
    assert "CANARY" not in wrong.stderr
    assert run("nonsense").returncode == 64


async def test_the_service_gets_ready_and_stops_on_sigterm(postgres: engines.Postgres, nats: engines.Nats) -> None:
    await prepare(postgres.url())
    port = engines.free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_NATS_URL": nats.url,
        "WARDMESH_ADMIN_PORT": str(port),
        "WARDMESH_DATABASE_URL": postgres.url(),
        "WARDMESH_ISSUER": "http://127.0.0.1:1",
        "WARDMESH_ISSUER_WAIT_SECONDS": "0.5",
        "WARDMESH_CATALOGUE_WAIT_SECONDS": "0.5",
        "WARDMESH_TOKEN_SEAL_KEY": "A" * 43,
    }
    process = subprocess.Popen([COMMAND], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(engines.answers, f"http://127.0.0.1:{port}/readyz"):
                assert process.poll() is None, process.communicate()[0]
                await asyncio.sleep(0.05)
        process.terminate()
        output = (await asyncio.to_thread(process.communicate, timeout=60))[0]
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "no master key is set" in output
    assert "the token issuer does not answer" in output
    assert "the platform catalogue cannot be had yet" in output

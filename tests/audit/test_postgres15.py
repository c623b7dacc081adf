"""The oldest PostgreSQL we support: schema, triggers, writing, signing and verifying on version 15."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_world import leaves_of, world
from engines import Nats, Postgres, free_port
from wardmesh_audit.findings import TAMPERED, VERIFIED
from wardmesh_cli import recipes
from wardmesh_cli.account import give

pytestmark = pytest.mark.anyio

BINARIES = Path("/usr/lib/postgresql/15/bin")  # where Debian puts it


class Old:
    def postgres_bin(self) -> Path:
        return BINARIES


@pytest.fixture
def fifteen() -> Iterator[Postgres]:
    if not (BINARIES / "initdb").exists():
        pytest.skip("NOT PROVEN: PostgreSQL 15 is not installed here")
    home = Path(tempfile.mkdtemp(prefix="wm-pg15-", dir="/tmp"))
    home.chmod(0o755)
    data = home / "data"
    data.mkdir(mode=0o700)
    give(home)
    recipes.prepare_postgres(Old(), data, durable=True)  # type: ignore[arg-type]
    port = free_port()
    recipe = recipes.postgres(Old(), data, port, durable=True)  # type: ignore[arg-type]
    engine = Postgres(recipe, home, lambda pid: recipes.postgres_ready(data, pid), stop_signal=signal.SIGINT, port=port)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.requirement("AU-309")
async def test_the_ledger_works_on_postgresql_15(broker: Nats, fifteen: Postgres) -> None:
    async with world(broker, fifteen) as w:
        version = (await w.query("show server_version_num"))[0][0]
        assert version.startswith("15")
        lines = leaves_of(600)
        async with w.writing(2), w.publishing():
            for start in range(0, 600, 50):
                await w.send(*lines[start : start + 50])
            await w.send(*lines[:50])
            await w.wait_signed(600)
        assert (await w.verify()).exit_code == VERIFIED
        assert {row["leaf"] for row in await w.query("select leaf from event")} == set(lines)
        await w.tamper("update event set outcome = 'denied' where seq = 17")
        report = await w.verify()
        assert (report.exit_code, report.findings[0].kind, report.findings[0].index) == (TAMPERED, "projection", 17)

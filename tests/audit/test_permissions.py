"""The whole service under the permissions file of the deployment: it gets what it needs and not more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nkeys
import pytest

from audit_world import PATIENT_SECONDS, World, encoded, make_call, make_outcome, until
from engines import Postgres, free_port, nats
from wardmesh_audit.connect import nats_as
from wardmesh_audit.jetstream import api
from wardmesh_common.bus import Bus
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.recorder import open_recorder

pytestmark = pytest.mark.anyio

CONFIG = Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"
USERS = ("gateway", "auth", "policy", "fhir-proxy", "audit", "fhir-store", "operations")


def key_pair() -> tuple[str, str]:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode(), nkeys.from_seed(seed).public_key.decode()


async def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    start: Any = subprocess.run
    line = [sys.executable, "-m", "wardmesh_audit", *args]
    return await asyncio.to_thread(start, line, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_the_service_does_its_work_as_the_nats_users_of_the_deployment(server: Postgres, tmp_path: Path) -> None:
    keys = {user: key_pair() for user in USERS}
    environ = {f"WARDMESH_NKEY_{user.upper().replace('-', '_')}": keys[user][1] for user in USERS}
    environ |= {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": f"127.0.0.1:{free_port()}"}
    database = f"audit_{os.urandom(4).hex()}"
    env = {f"WARDMESH_AUDIT_{name}": encoded(os.urandom(32)) for name in ("SIGNING_KEY", "KEK", "HANDLE_KEY")}
    env |= {
        "PATH": os.environ["PATH"],
        "WARDMESH_ADMIN_PORT": "0",
        "WARDMESH_NATS_SEED": keys["audit"][0],
        "WARDMESH_OPERATIONS_SEED": keys["operations"][0],
        "WARDMESH_AUDIT_OWNER_URL": server.url(database),
        "WARDMESH_AUDIT_WRITER_URL": server.url(database, "audit_writer"),
        "WARDMESH_AUDIT_SIGNER_URL": server.url(database, "audit_signer"),
        "WARDMESH_AUDIT_READER_URL": server.url(database, "audit_reader"),
        "WARDMESH_AUDIT_REPORT_URL": server.url(database, "audit_report"),
        "WARDMESH_AUDIT_OFFICER_URL": server.url(database, "audit_officer"),
        "WARDMESH_AUDIT_KEYS_URL": server.url(f"{database}_keys", "key_user"),
    }
    with nats(CONFIG.read_text(), environ) as broker:
        env["WARDMESH_NATS_URL"] = broker.url
        for step in ("migrate", "provision"):
            done = await run(env, step)
            assert done.returncode == 0, done.stderr
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "wardmesh_audit"], env=env, stdout=log, stderr=log)
        bus = await Bus.connect("fhir-proxy", broker.url, keys["fhir-proxy"][0])
        try:
            w = World(broker, server, bus.nc, database)
            recorder = open_recorder(bus, deadline_seconds=PATIENT_SECONDS)

            async def recorded() -> bool:
                try:
                    await recorder.outcome(make_call(), make_outcome("p1"))
                except AuditUnavailable:
                    return False
                return True

            await until(recorded)
            await recorder.close()
            await w.wait_signed(recorder.next_seq)
            done = await run(env, "verify", "--against", "stream")
            assert done.returncode == 0, done.stdout + done.stderr
            done = await run(env, "tail", "--start", "0", "--count", "2")
            assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stderr
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)
            await bus.close()
        assert "permissions violation" not in (tmp_path / "log").read_text().lower()
        assert "violation" not in broker.log().lower()
        async with nats_as("audit", broker.url, keys["audit"][0]) as nc:
            for verb in ("STREAM.DELETE.AUDIT", "STREAM.PURGE.AUDIT", "STREAM.UPDATE.AUDIT_IN"):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(api(nc, verb, {}), 1)
        assert "violation" in broker.log().lower()

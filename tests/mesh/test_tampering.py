"""One changed byte in the ledger of a running mesh: `wardmesh audit verify` ends with 1 and names the row."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from mesh.healthlake import until
from mesh.ledger import until_recorded

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

READS = 5


async def write_leaf(url: str, seq: int, leaf: bytes) -> None:
    """As superuser with the trigger off: the strongest thing that an intruder can do."""
    connection = await asyncpg.connect(url, timeout=60)
    try:
        async with connection.transaction():
            find = "select tableoid::regclass::text from event where log_id = 0 and seq = $1"
            month = await connection.fetchval(find, seq)
            await connection.execute(f"alter table {month} disable trigger no_change")
            done = await connection.execute(f"update {month} set leaf = $2 where log_id = 0 and seq = $1", seq, leaf)
            await connection.execute(f"alter table {month} enable always trigger no_change")
        assert done == "UPDATE 1"
    finally:
        await connection.close()


async def a_row(url: str, request_id: str) -> tuple[int, bytes]:
    connection = await asyncpg.connect(url, timeout=60)
    try:
        row = await connection.fetchrow("select seq, leaf from event where request_id = $1", request_id)
        assert row is not None
        return row["seq"], row["leaf"]
    finally:
        await connection.close()


def signed_beyond(mesh: Any, seq: int) -> bool:
    done = mesh.audit("status", "--json")
    return done.returncode == 0 and (json.loads(done.stdout)["checkpoint_size"] or 0) > seq


def verify(mesh: Any) -> subprocess.CompletedProcess[str]:
    """As a person types it."""
    wardmesh = str(Path(sys.executable).with_name("wardmesh"))
    command = [wardmesh, "audit", "--state", mesh.ready["state"], "verify"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.requirement("AU-501")
async def test_one_changed_byte_is_named_by_its_index_and_the_restored_row_verifies_again(lone_mesh: Any) -> None:
    headers = {"authorization": f"Bearer {lone_mesh.token('demo_doctor')}"}
    async with httpx.AsyncClient(base_url=lone_mesh.ready["gateway"], headers=headers, timeout=60) as http:
        answers = [await http.get("/fhir/store/Patient/FCE57") for _ in range(READS)]
    names = [answer.headers["x-request-id"] for answer in answers]
    assert not await until_recorded(lone_mesh, set(names))
    url = lone_mesh.ready["databases"]["wardmesh_audit"]
    seq, leaf = await a_row(url, names[READS // 2])
    # Nobody but `verify` reads the row again once it is published and signed: roles at work would meet the change too.
    await until(lambda: asyncio.to_thread(signed_beyond, lone_mesh, seq))
    good = verify(lone_mesh)
    assert good.returncode == 0, good.stdout + good.stderr
    place = leaf.index(b"demo_doctor")
    await write_leaf(url, seq, leaf[:place] + b"D" + leaf[place + 1 :])
    try:
        spoilt = verify(lone_mesh)
    finally:
        await write_leaf(url, seq, leaf)
    assert spoilt.returncode == 1, spoilt.stdout + spoilt.stderr
    assert f"index {seq}" in spoilt.stdout
    assert verify(lone_mesh).returncode == 0

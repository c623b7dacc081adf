"""Copies that verify alone: exported, moved to another place, checked offline, and refused after any change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from audit_world import SEED, World, leaves_of, make_call, make_outcome, recorder_on, world
from engines import Nats, Postgres
from wardmesh_audit.balp_rules import faults
from wardmesh_audit.export import export_ndjson, export_tlog
from wardmesh_audit.export_formats import FORMATS
from wardmesh_audit.merkle import leaf_hash
from wardmesh_audit.note import Signer
from wardmesh_audit.parquet import SCHEMA, BadCopy, read_manifest, verify_copy

pytestmark = pytest.mark.anyio
SIGNER = Signer("test/audit/0", SEED)
EVENTS = 302


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def copies(broker: Nats, server: Postgres, tmp_path_factory: pytest.TempPathFactory):
    """One ledger in every format, then moved away from where it was written; the ledger is gone."""
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved")
    async with world(broker, server) as w:
        await fill(w)
        conn = await w.connect("audit_reader")
        for name, export in {"ndjson": export_ndjson, "tlog": export_tlog, **FORMATS}.items():
            assert await export(conn, made / name) == EVENTS
        await conn.close()
    shutil.move(made, moved / "copy")
    return moved / "copy"


async def fill(w: World) -> None:
    async with w.writing(), w.publishing():
        async with recorder_on(w) as recorder:
            for number in range(100):
                await recorder.outcome(make_call(number), make_outcome("p1"))
        await w.send(*leaves_of(199))
        await w.send(b"this is no event")
        await w.wait_signed(EVENTS)


def offline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Without network: in a namespace of its own where that is allowed, always without any address."""
    line = [sys.executable, "-m", "wardmesh_audit", *arguments]
    if (
        shutil.which("unshare")
        and subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    ):
        line = ["unshare", "-rn", *line]
    return subprocess.run(line, env={}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.requirement("AU-609")
@pytest.mark.parametrize("name", ["parquet", "ndjson"])
async def test_a_moved_copy_verifies_alone(copies: Path, name: str) -> None:
    done = offline("verify-copy", str(copies / name), "--key", SIGNER.verifier.vkey())
    assert (done.returncode, done.stdout) == (0, f"{EVENTS} events are exactly what was signed\n"), done.stderr


@pytest.mark.requirement("AU-609")
async def test_the_columns_are_those_of_the_leaf_and_compressed_with_zstd(copies: Path) -> None:
    manifest = read_manifest(copies / "parquet")
    path = copies / "parquet" / manifest.parts[0].file
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(SCHEMA)
    assert {file.metadata.row_group(0).column(i).compression for i in range(len(SCHEMA))} == {"ZSTD"}
    rows = file.read().to_pylist()
    file.close()
    assert [row["index"] for row in rows] == list(range(EVENTS))
    for row in rows:
        assert row["leaf_hash"] == leaf_hash(row["leaf"])
        if row["event_type"] != "malformed":
            event = json.loads(row["leaf"])
            assert row["event_id"] == event["id"]
            assert row["patient_ref"] == (event["data"]["patient"] or {}).get("pseudonym")
    assert (rows[-1]["event_type"], rows[-1]["leaf"]) == ("malformed", b"this is no event")


def rewritten(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Another Parquet file in its place, with the digest of the manifest adapted: as a forger would."""
    import hashlib

    import pyarrow as pa

    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / manifest["parts"][0]["file"]
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
    manifest["parts"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def other_leaf(rows: list[dict[str, Any]]) -> None:
    leaf = rows[10]["leaf"].replace(b"success", b"denied1")
    rows[10] |= {"leaf": leaf, "leaf_hash": leaf_hash(leaf)}


def swap(rows: list[dict[str, Any]]) -> None:
    for name in ("leaf", "leaf_hash"):
        rows[3][name], rows[4][name] = rows[4][name], rows[3][name]


@pytest.mark.requirement("AU-609")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_leaf, "not what was signed"),
        (lambda rows: rows[10].update(leaf=b"x"), "index 10"),
        (lambda rows: rows.pop(10), "index 10 is missing"),
        (lambda rows: rows.pop(), "covers 302"),
        (swap, "not what was signed"),
    ],
)
async def test_a_changed_copy_is_refused_with_its_place(
    copies: Path, tmp_path: Path, change: Callable[[list[dict[str, Any]]], object], words: str
) -> None:
    shutil.copytree(copies / "parquet", tmp_path / "copy")
    rewritten(tmp_path / "copy", change)
    with pytest.raises(BadCopy, match=words):
        verify_copy(tmp_path / "copy", [SIGNER.verifier])
    done = offline("verify-copy", str(tmp_path / "copy"), "--key", SIGNER.verifier.vkey())
    assert (done.returncode, "tampered" in done.stderr) == (1, True)


@pytest.mark.requirement("AU-609")
async def test_missing_files_other_keys_and_changed_lines_are_refused(copies: Path, tmp_path: Path) -> None:
    shutil.copytree(copies / "ndjson", tmp_path / "lines")
    path = tmp_path / "lines" / "events.ndjson"
    path.write_bytes(path.read_bytes().replace(b"success", b"denied1", 1))
    assert offline("verify-copy", str(tmp_path / "lines"), "--key", SIGNER.verifier.vkey()).returncode == 1
    assert offline("verify-copy", str(tmp_path), "--key", SIGNER.verifier.vkey()).returncode == 1
    other = Signer("test/audit/0", bytes(32)).verifier.vkey()
    assert offline("verify-copy", str(copies / "parquet"), "--key", other).returncode == 3
    assert offline("verify-copy", str(copies / "parquet")).returncode == 3
    for part in (copies / "parquet").glob("*.parquet"):
        shutil.copytree(copies / "parquet", tmp_path / "less")
        (tmp_path / "less" / part.name).unlink()
        with pytest.raises(BadCopy, match="missing"):
            verify_copy(tmp_path / "less", [SIGNER.verifier])


async def test_exports_for_a_siem_and_for_a_fhir_server_hold_every_event(copies: Path) -> None:
    lines = [json.loads(line) for line in (copies / "ocsf" / "events.ocsf.ndjson").read_text().splitlines()]
    assert [line["metadata"]["sequence"] for line in lines] == list(range(EVENTS))
    assert {line["class_uid"] for line in lines} == {6003}
    bundles = [json.loads(path.read_text()) for path in sorted((copies / "balp").iterdir())]
    events = [entry["resource"] for bundle in bundles for entry in bundle["entry"]]
    assert len(events) == EVENTS - 1, "bytes that are no event are no AuditEvent"
    assert [fault for event in events for fault in faults(event)] == []

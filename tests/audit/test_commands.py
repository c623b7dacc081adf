"""The commands as processes: exit codes, proofs without network, exports that Go and openssl verify."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit_world import PATIENT_SECONDS, SEED, SMALL, World, encoded, leaves_of, make_call, make_outcome, until, world
from engines import Nats, Postgres, nats
from wardmesh_audit.note import Signer, open_note, parse_checkpoint, split_note
from wardmesh_audit.tiles import tiles_of
from wardmesh_common.bus import Bus
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.recorder import open_recorder

pytestmark = pytest.mark.anyio

EVENTS = 700


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        async with w.writing(), w.publishing():
            lines = leaves_of(EVENTS)
            for start in range(0, EVENTS, 50):
                await w.send(*lines[start : start + 50])
                if start in (100, 650):
                    await w.wait_signed(start + 50)
        yield w


def environ(w: World, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARDMESH_")}
    return kept | {
        "WARDMESH_NATS_URL": w.nats.url,
        "WARDMESH_DEPLOYMENT": "test",
        "WARDMESH_AUDIT_READER_URL": w.url("audit_reader"),
        "WARDMESH_AUDIT_PUBLIC_KEY": w.signer.verifier.vkey(),
        "WARDMESH_AUDIT_IN_MAX_BYTES": str(SMALL.in_max_bytes),
        **more,
    }


async def audit(w: World, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return await command(environ(w, **more), *args)


@pytest.mark.requirement("AU-503")
async def test_a_sound_ledger_is_0_and_the_pin_is_kept(ledger: World, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    done = await audit(ledger, "verify", "--json", WARDMESH_AUDIT_PIN_FILE=str(pin))
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["size"]) == (0, "verified", EVENTS)
    assert parse_checkpoint(open_note(pin.read_text(), [ledger.signer.verifier])).size == EVENTS
    again = await audit(ledger, "verify", "--against", "stream", WARDMESH_AUDIT_PIN_FILE=str(pin))
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.requirement("AU-503")
async def test_a_changed_row_is_1_and_is_named(ledger: World) -> None:
    event = (await ledger.query("select event_id::text as id, leaf from event where seq = 345"))[0]
    await ledger.tamper("update event set leaf = set_byte(leaf, 30, get_byte(leaf, 30) # 1) where seq = 345")
    try:
        done = await audit(ledger, "verify")
    finally:
        await ledger.tamper(f"update event set leaf = '\\x{event['leaf'].hex()}' where seq = 345")
    assert done.returncode == 1
    assert f"leaf_hash at index 345 (event {event['id']})" in done.stdout


@pytest.mark.requirement("AU-503")
async def test_a_month_that_is_gone_is_2(ledger: World) -> None:
    # A month between two existing ones is gone with its rows: incomplete, not tampered.
    months = await ledger.query(
        "select relid::regclass::text as name from pg_partition_tree('event') where isleaf order by 1"
    )
    names = [row["name"] for row in months if row["name"][-6:].isdigit()]
    this = (await ledger.query("select tableoid::regclass::text as name from event where seq = 300"))[0]["name"]
    conn = await ledger.connect()
    try:
        await conn.execute(f"create table kept as select * from {this} where seq >= 100")
        bounds = await conn.fetchval(f"select pg_get_expr(relpartbound, oid) from pg_class where relname = '{this}'")
        await conn.execute(f"alter table event_0 detach partition {this}")
        await conn.execute("insert into event_0_default select * from kept")
        done = await audit(ledger, "verify", "--json")
        await conn.execute("alter table event_0_default disable trigger user")
        await conn.execute("delete from event_0_default")
        await conn.execute("alter table event_0_default enable always trigger no_change")
        await conn.execute("alter table event_0_default enable always trigger no_truncate")
        await conn.execute(f"alter table event_0 attach partition {this} {bounds}")
        await conn.execute("drop table kept")
    finally:
        await conn.close()
    assert this in names[1:-1]
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (2, "incomplete"), done.stdout
    gaps = [finding for finding in report["findings"] if finding["kind"] == "missing_index"]
    assert gaps[0]["index"] == 0 and gaps[0]["incomplete"]
    assert (await audit(ledger, "verify")).returncode == 0


@pytest.mark.requirement("AU-503")
async def test_no_access_an_unknown_key_and_no_checkpoint_are_3(ledger: World, broker: Nats, server: Postgres) -> None:
    gone = await audit(ledger, "verify", WARDMESH_AUDIT_READER_URL="postgresql://audit_reader@127.0.0.1:9/x")
    assert gone.returncode == 3, gone.stderr
    other = Signer("test/audit/0", bytes(32)).verifier.vkey()
    assert (await audit(ledger, "verify", WARDMESH_AUDIT_PUBLIC_KEY=other)).returncode == 3
    none = await audit(ledger, "verify", WARDMESH_AUDIT_PUBLIC_KEY="")
    assert none.returncode == 3
    from wardmesh_audit.migrate import migrate

    await migrate(server.url("audit_without_checkpoint"))
    empty = server.url("audit_without_checkpoint", "audit_reader")
    assert (await audit(ledger, "verify", WARDMESH_AUDIT_READER_URL=empty)).returncode == 3


@pytest.mark.requirement("AU-503")
@pytest.mark.parametrize(
    "args", [("verfy",), ("verify", "--jsn"), ("prove", "no-uuid"), ("export", "--format", "x", "d")]
)
async def test_wrong_usage_is_64(ledger: World, args: tuple[str, ...]) -> None:
    assert (await audit(ledger, *args)).returncode == 64


@pytest.mark.requirement("AU-504")
async def test_a_proof_verifies_without_network_and_database_and_a_changed_one_does_not(
    ledger: World, tmp_path: Path
) -> None:
    file = tmp_path / "event.tlog-proof"
    await prove(ledger, 345, file)
    key = ledger.signer.verifier.vkey()
    # A network namespace without any interface where that is allowed; else addresses that lead nowhere.
    blocked = ["unshare", "-rn"] if shutil.which("unshare") and os.geteuid() == 0 else []
    command = [*blocked, sys.executable, "-m", "wardmesh_audit", "verify-proof", str(file), "--key", key]
    empty = {"PATH": os.environ["PATH"], "WARDMESH_NATS_URL": "nats://127.0.0.1:9"}
    run: Any = subprocess.run
    done = await asyncio.to_thread(run, command, env=empty, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "index 345" in done.stdout
    text = file.read_text()
    for old, new in (("index 345", "index 346"), ("extra ey", "extra ez"), (f"\n{EVENTS}\n", f"\n{EVENTS - 1}\n")):
        assert old in text
        file.write_text(text.replace(old, new))
        bad = await asyncio.to_thread(run, command, env=empty, capture_output=True, text=True, timeout=60, check=False)
        assert bad.returncode == 1, (old, bad.stderr)
    file.write_text(text)
    command[-1] = Signer("test/audit/0", bytes(32)).verifier.vkey()
    assert (await asyncio.to_thread(run, command, env=empty, capture_output=True, timeout=60)).returncode == 3


async def prove(w: World, seq: int, file: Path) -> None:
    event_id = (await w.query("select event_id::text as id from event where seq = $1", seq))[0]["id"]
    done = await audit(w, "prove", event_id, "-o", str(file))
    assert done.returncode == 0, done.stderr


async def test_an_unknown_event_cannot_be_proven(ledger: World) -> None:
    assert (await audit(ledger, "prove", "01900000-0000-7000-8000-000000000000")).returncode == 3


async def test_two_checkpoints_are_consistent_and_a_fork_is_not(ledger: World, tmp_path: Path) -> None:
    rows = await ledger.query("select size, note from checkpoint order by size")
    old, new, fork = tmp_path / "old", tmp_path / "new", tmp_path / "fork"
    old.write_text(rows[0]["note"])
    new.write_text(rows[-1]["note"])
    signer = Signer("test/audit/0", SEED)
    text = split_note(rows[0]["note"])[0].split("\n")
    fork.write_text(signer.sign(f"{text[0]}\n{text[1]}\n{'A' * 43}=\n"))
    assert rows[0]["size"] < rows[-1]["size"]
    assert (await audit(ledger, "consistency", str(old), str(new))).returncode == 0
    assert (await audit(ledger, "consistency", str(fork), str(new))).returncode == 1
    assert (await audit(ledger, "consistency", str(new), str(old))).returncode == 1


async def test_tail_prints_the_stream_from_a_cursor(ledger: World) -> None:
    done = await audit(ledger, "tail", "--start", "10", "--count", "5", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["cursor"] for line in lines] == [f"0:{i}" for i in range(10, 15)]
    stored = await ledger.query("select event_id::text as id from event where seq between 10 and 14 order by seq")
    assert [line["event"]["id"] for line in lines] == [row["id"] for row in stored]


async def test_an_ndjson_export_holds_the_leaves_and_a_manifest(ledger: World, tmp_path: Path) -> None:
    done = await audit(ledger, "export", str(tmp_path), "--format", "ndjson")
    assert done.returncode == 0, done.stderr
    leaves = (tmp_path / "events.ndjson").read_bytes().splitlines()
    stored = await ledger.query("select leaf from event order by seq")
    assert leaves == [row["leaf"] for row in stored]
    assert json.loads((tmp_path / "manifest.json").read_text())["last"] == EVENTS - 1


@pytest.mark.requirement("AU-402")
async def test_openssl_verifies_the_signature_of_a_checkpoint(ledger: World, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("NOT PROVEN: there is no openssl program here")
    text, lines = split_note((await ledger.query("select note from checkpoint limit 1"))[0]["note"])
    public = ledger.signer.verifier.public
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + public)
    (tmp_path / "text").write_text(text)
    (tmp_path / "sig").write_bytes(lines[0][2])
    command = [openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
    command += ["-inkey", str(tmp_path / "key.der"), "-in", str(tmp_path / "text"), "-sigfile", str(tmp_path / "sig")]
    run: Any = subprocess.run
    assert (await asyncio.to_thread(run, command, capture_output=True, timeout=60)).returncode == 0
    (tmp_path / "text").write_text(text.replace("test", "tost"))
    assert (await asyncio.to_thread(run, command, capture_output=True, timeout=60)).returncode != 0


@pytest.mark.requirement("AU-402", "AU-403")
@pytest.mark.timeout(400)
async def test_go_verifies_checkpoint_tiles_entries_and_proofs_and_rejects_a_tampered_entry(
    ledger: World, oracle: Path, tmp_path: Path
) -> None:
    exported, proof = tmp_path / "log", tmp_path / "p.tlog-proof"
    assert (await audit(ledger, "export", str(exported), "--format", "tlog")).returncode == 0
    await prove(ledger, 612, proof)
    for tile in tiles_of(EVENTS):
        assert (exported / tile.path).stat().st_size == 32 * tile.width
    command = [str(oracle), str(exported), ledger.signer.verifier.vkey(), str(proof)]
    run: Any = subprocess.run
    done = await asyncio.to_thread(run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith(f"entries {EVENTS} consistency 9 proofs 1"), done.stderr
    bundle = exported / "tile/entries/001"
    raw = bytearray(bundle.read_bytes())
    raw[100] ^= 1
    bundle.write_bytes(raw)
    bad = await asyncio.to_thread(run, command, capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == 1
    assert "entry 256" in bad.stderr


async def test_the_whole_service_runs_as_one_process_from_its_environment(server: Postgres) -> None:
    database = f"audit_{os.urandom(4).hex()}"
    env = {f"WARDMESH_AUDIT_{name}": encoded(os.urandom(32)) for name in ("SIGNING_KEY", "KEK", "HANDLE_KEY")}
    env |= {
        "PATH": os.environ["PATH"],
        "WARDMESH_ADMIN_PORT": "0",
        "WARDMESH_AUDIT_IN_MAX_BYTES": str(SMALL.in_max_bytes),
        "WARDMESH_AUDIT_OWNER_URL": server.url(database),
        "WARDMESH_AUDIT_WRITER_URL": server.url(database, "audit_writer"),
        "WARDMESH_AUDIT_SIGNER_URL": server.url(database, "audit_signer"),
        "WARDMESH_AUDIT_READER_URL": server.url(database, "audit_reader"),
        "WARDMESH_AUDIT_REPORT_URL": server.url(database, "audit_report"),
        "WARDMESH_AUDIT_OFFICER_URL": server.url(database, "audit_officer"),
        "WARDMESH_AUDIT_KEYS_URL": server.url(f"{database}_keys", "key_user"),
    }
    with nats() as broker:
        env["WARDMESH_NATS_URL"] = broker.url
        for step in ("migrate", "provision", "provision"):
            done = await command(env, step)
            assert done.returncode == 0, done.stderr
        process = subprocess.Popen(
            [sys.executable, "-m", "wardmesh_audit"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        bus = await Bus.connect("fhir-proxy", broker.url, "")
        try:
            w = World(broker, server, bus.nc, database)
            await record_once(w, bus)
            done = await command(env, "verify")
            assert done.returncode == 0, done.stdout + done.stderr
        finally:
            process.terminate()
            code = await asyncio.to_thread(process.wait, 20)
            await bus.close()
        assert code == 0


async def command(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    run: Any = subprocess.run
    line = [sys.executable, "-m", "wardmesh_audit", *args]
    return await asyncio.to_thread(run, line, env=env, capture_output=True, text=True, timeout=60, check=False)


async def record_once(w: World, bus: Bus) -> None:
    """Through the recorder that every station gets, with keys lent by the running service."""
    recorder = open_recorder(bus, deadline_seconds=PATIENT_SECONDS)

    async def recorded() -> bool:
        try:
            await recorder.outcome(make_call(), make_outcome("p1"))
        except AuditUnavailable:
            return False  # the keys role is not up yet
        return True

    await until(recorded)
    await recorder.close()
    await w.wait_signed(recorder.next_seq)
    rows = await w.query("select patient_ref from event where event_type = 'access' and outcome = 'success'")
    assert len(rows) == 1
    assert rows[0]["patient_ref"] is not None

"""The real service with two logs and a witness as processes: every command once, against what they have written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit_world import PATIENT_SECONDS, SEED, SMALL, World, encoded, make_call, make_outcome, until
from engines import Nats, Postgres, nats
from wardmesh_audit.__main__ import main
from wardmesh_audit.note import Signer, open_note, parse_checkpoint
from wardmesh_common.bus import Bus
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.recorder import open_recorder
from witness_world import WITNESS_NAME, witness_process

pytestmark = pytest.mark.anyio

LOGS, PATIENTS = 2, 12
KEYS = [Signer(f"wardmesh/audit/{log}", SEED).verifier for log in range(LOGS)]
ROLES = ("owner", "writer", "signer", "reader", "report", "officer", "detect", "retention")


@dataclass
class Site:
    """One deployment: its environment, a look into its database, and its service, which can be stopped and started."""

    env: dict[str, str]
    w: World
    service: subprocess.Popen[bytes]

    async def run(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        run: Any = subprocess.run
        line = [sys.executable, "-m", "wardmesh_audit", *args]
        env = self.env | more
        return await asyncio.to_thread(run, line, env=env, capture_output=True, text=True, timeout=90, check=False)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        rows = await self.w.query("select log_id, leaf from event where event_type = $1 order by log_id, seq", kind)
        return [{"log": row["log_id"], **json.loads(row["leaf"])["data"]} for row in rows]

    async def signed(self) -> None:
        """Everything is covered by a checkpoint."""

        async def covered() -> bool:
            rows = await self.w.query(
                "select 1 from tree_state t where size > coalesce((select max(size) from checkpoint c"
                " where c.log_id = t.log_id), 0)"
            )
            return not rows

        await until(covered)


def environment(server: Postgres, broker: Nats, witness: Any, home: Path) -> dict[str, str]:
    database = f"audit_{os.urandom(4).hex()}"
    env = {f"WARDMESH_AUDIT_{name}": encoded(os.urandom(32)) for name in ("KEK", "HANDLE_KEY")}
    for role in ROLES:
        user = "postgres" if role == "owner" else f"audit_{role}"
        env[f"WARDMESH_AUDIT_{role.upper()}_URL"] = server.url(database, user)
    return env | {
        "PATH": os.environ["PATH"],
        "DATABASE": database,
        "WARDMESH_NATS_URL": broker.url,
        "WARDMESH_ADMIN_PORT": "0",
        "WARDMESH_DEPLOYMENT": "wardmesh",
        "WARDMESH_AUDIT_LOGS": str(LOGS),
        "WARDMESH_AUDIT_IN_MAX_BYTES": str(SMALL.in_max_bytes),
        "WARDMESH_AUDIT_SIGNING_KEY": encoded(SEED),
        "WARDMESH_AUDIT_PUBLIC_KEY": KEYS[0].vkey(),
        "WARDMESH_AUDIT_KEYS_URL": server.url(f"{database}_keys", "key_user"),
        "WARDMESH_AUDIT_SHREDDER_URL": server.url(f"{database}_keys", "key_shredder"),
        "WARDMESH_AUDIT_EXPORT_DIR": str(home / "exports"),
        "WARDMESH_AUDIT_WITNESSES": json.dumps(
            {WITNESS_NAME: {"url": witness.url, "vkey": witness.address.key.vkey()}}
        ),
    }


@contextlib.asynccontextmanager
async def started(site_env: dict[str, str], home: Path) -> AsyncGenerator[subprocess.Popen[bytes]]:
    with (home / "service.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "wardmesh_audit"], env=site_env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0, (home / "service.log").read_text()[-1500:]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    home = tmp_path_factory.mktemp("site")
    keys = " ".join(key.vkey() for key in KEYS)
    with nats() as broker, witness_process(home, keys) as witness:
        env = environment(server, broker, witness, home)
        bus = await Bus.connect("fhir-proxy", broker.url, "")
        try:
            for step in ("migrate", "provision"):
                await check(env, step)
            async with started(env, home) as service:
                made = Site(env, World(broker, server, bus.nc, env["DATABASE"]), service)
                await record(bus)
                await made.signed()
                yield made
        finally:
            await bus.close()


async def check(env: dict[str, str], *args: str) -> None:
    run: Any = subprocess.run
    line = [sys.executable, "-m", "wardmesh_audit", *args]
    await asyncio.to_thread(run, line, env=env, capture_output=True, timeout=90, check=True)


async def record(bus: Bus) -> None:
    """One access of each patient, spread over the logs by the recorder that every station has."""
    recorder = open_recorder(bus, logs=LOGS, deadline_seconds=PATIENT_SECONDS)

    async def recorded() -> bool:
        try:
            await recorder.outcome(make_call(0), make_outcome("p0"))
        except AuditUnavailable:
            return False  # the keys role is not up yet
        return True

    await until(recorded)
    for number in range(1, PATIENTS):
        await recorder.outcome(make_call(number), make_outcome(f"p{number}"))
    await recorder.close()


@pytest.mark.requirement("AU-503")
async def test_every_log_verifies_against_every_place_and_each_run_is_kept(site: Site, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pins = tmp_path / "pins"
    pins.mkdir()
    for number, against in enumerate(("db", "stream", "witness", str(pins))):
        await site.signed()
        done = await site.run("verify", "--json", "--against", against, WARDMESH_AUDIT_PIN_FILE=str(pin))
        assert done.returncode == 0, (against, done.stdout, done.stderr)
        assert done.stderr == ""
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        assert [report["log"] for report in reports] == [key.name for key in KEYS]
        kept = await site.w.query("select log_id, exit_code, size from verification_run order by ended_at")
        assert len(kept) == LOGS * (number + 1)
        assert {(row["log_id"], row["size"]) for row in kept[-LOGS:]} == {
            (log, report["size"]) for log, report in enumerate(reports)
        }
        if not number:
            for log, file in enumerate((pin, tmp_path / "pin.1")):
                assert parse_checkpoint(open_note(file.read_text(), [KEYS[log]])).size == reports[log]["size"]
                shutil.copy(file, pins / f"log{log}")

    async def told() -> bool:
        runs = [each for each in await site.events("audit_status") if each["outcome"]["reason"] == "verification"]
        return sorted((run["log"], run["facts"]["against"], run["facts"]["exit_code"]) for run in runs) == [
            (log, against, 0) for log in range(LOGS) for against in ("db", "files", "stream", "witness")
        ]

    await until(told)


@pytest.mark.requirement("AU-503")
async def test_a_witness_that_is_not_there_or_not_configured_is_said_and_is_3(site: Site) -> None:
    none = await site.run("verify", "--against", "witness", WARDMESH_AUDIT_WITNESSES="{}")
    assert (none.returncode, "there is no witness: set WARDMESH_AUDIT_WITNESSES" in none.stdout) == (3, True)
    away = json.loads(site.env["WARDMESH_AUDIT_WITNESSES"])
    away[WITNESS_NAME]["url"] = "http://127.0.0.1:9"
    gone = await site.run("verify", "--against", "witness", WARDMESH_AUDIT_WITNESSES=json.dumps(away))
    assert (gone.returncode, f"no witness shows a checkpoint of this log: {WITNESS_NAME}" in gone.stdout) == (3, True)


async def test_tampering_in_the_second_log_alone_is_found_and_named(site: Site) -> None:
    await site.signed()
    row = (await site.w.query("select event_id::text as id, leaf from event where log_id = 1 and seq = 2"))[0]
    where = "where log_id = 1 and seq = 2"
    await site.w.tamper(f"update event set leaf = set_byte(leaf, 30, get_byte(leaf, 30) # 1) {where}")
    try:
        done = await site.run("verify", WARDMESH_AUDIT_SIGNER_URL="")
        alone = await site.run("verify", "--log", "0", WARDMESH_AUDIT_SIGNER_URL="")
    finally:
        await site.w.tamper(f"update event set leaf = '\\x{row['leaf'].hex()}' {where}")
    assert done.returncode == 1
    assert f"leaf_hash at index 2 (event {row['id']})" in done.stdout
    assert "not kept in the ledger" in done.stderr, "a run that leaves no trace says so"
    assert alone.returncode == 0


async def test_proofs_tail_and_exports_of_the_second_log(site: Site, tmp_path: Path) -> None:
    event = (await site.w.query("select event_id::text as id from event where log_id = 1 and seq = 1"))[0]["id"]
    proof = tmp_path / "proof"
    assert (await site.run("prove", event, "-o", str(proof))).returncode == 0
    assert (await site.run("verify-proof", str(proof), "--key", KEYS[1].vkey())).returncode == 0
    assert (await site.run("verify-proof", str(proof))).returncode == 3, "the key of log 0 is not that of log 1"
    told = json.loads((await site.run("prove", event, "--json")).stdout)
    assert (told["log"], told["index"]) == (1, 1) and told["proof"] == proof.read_text()
    tail = await site.run("tail", "--log", "1", "--start", "1", "--count", "1", "--json")
    line = json.loads(tail.stdout)
    assert (line["cursor"], line["event"]["id"]) == ("1:1", event)
    for form in ("ndjson", "tlog", "parquet", "ocsf", "balp"):
        folder = tmp_path / form
        done = await site.run("export", str(folder), "--format", form, "--log", "1", "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["log"], said["format"]) == (1, form) and said["events"] > 2
        if form in ("ndjson", "parquet"):
            assert (await site.run("verify-copy", str(folder), "--key", KEYS[1].vkey())).returncode == 0


async def test_consistency_and_status_of_both_logs(site: Site, tmp_path: Path) -> None:
    for log in range(LOGS):
        rows = await site.w.query("select note from checkpoint where log_id = $1 order by size", log)
        old, new = tmp_path / f"old{log}", tmp_path / f"new{log}"
        old.write_text(rows[0]["note"])
        new.write_text(rows[-1]["note"])
        done = await site.run("consistency", str(old), str(new), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["consistent"]
    assert (await site.run("consistency", str(tmp_path / "old0"), str(tmp_path / "new1"))).returncode == 1
    lines = [json.loads(line) for line in (await site.run("status", "--json")).stdout.splitlines()]
    assert [line["log"] for line in lines] == [0, 1]
    assert all(line["cosigned_by"] == [WITNESS_NAME] for line in lines), "each log is cosigned under its own name"
    text = (await site.run("status")).stdout
    assert "wardmesh/audit/1: size" in text and "cosigned" in text


async def test_a_hold_leaves_its_events_and_two_persons_release_it(site: Site) -> None:
    added = await site.run("hold", "add", "--actor", "issuer|doctor", "--reason", "case 7", "--by", "ann")
    assert added.returncode == 0, added.stderr
    hold = json.loads(added.stdout)["id"]
    assert (await site.run("hold", "release", hold, "--by", "ann")).returncode == 0
    assert (await site.run("hold", "release", hold, "--by", "ann")).returncode == 3, "ann asked; another one releases"
    assert hold in (await site.run("hold", "list")).stdout
    assert (await site.run("hold", "release", hold, "--by", "ben")).returncode == 0
    assert hold not in (await site.run("hold", "list")).stdout
    assert hold in (await site.run("hold", "list", "--all")).stdout

    async def told() -> bool:
        deeds = [each for each in await site.events("retention") if each["facts"].get("hold") == hold]
        ends = [(each["actor"]["id"], each["outcome"]["reason"]) for each in deeds if each["phase"] == "outcome"]
        assert sum(each["phase"] == "intent" for each in deeds) == 4
        return sorted(ends) == [
            ("ann", "conflict"), ("ann", "hold.placed"), ("ann", "hold.release_asked"), ("ben", "hold.released"),
        ]  # fmt: skip

    await until(told)


async def test_shred_shows_refuses_destroys_and_records(site: Site) -> None:
    subject = "store/Patient/p3"
    dry = await site.run("shred", subject, "--by", "ann", "--dry-run")
    assert (dry.returncode, json.loads(dry.stdout)["retained"]) == (3, 1), "the duty to retain stands in the way"
    assert (await site.run("shred", subject, "--by", "ann")).returncode == 3
    done = await site.run("shred", subject, "--by", "ann", "--basis", "gdpr17", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["effective_after_seconds"] == 300
    again = await site.run("shred", subject, "--by", "ann", "--basis", "gdpr17", "--no-wait")
    assert again.returncode == 3, "nothing leads to the subject any more"

    async def told() -> bool:
        deeds = [each for each in await site.events("key") if each.get("facts", {}).get("deed") == "subject_shred"]
        return [each["phase"] for each in deeds] == ["intent", "outcome"]

    await until(told)
    await site.signed()
    assert (await site.run("verify")).returncode == 0


async def test_gaps_fsck_retention_and_reports_run_as_commands(site: Site) -> None:
    none = await site.run("gaps", "--json")
    assert (none.returncode, json.loads(none.stdout)) == (0, [])
    assert (await site.run("gaps")).stdout == "no gaps\n"
    assert (await site.run("fsck", "--json")).returncode == 0
    dry = await site.run("retention", "--dry-run")
    assert dry.returncode == 0 and "not expired" in dry.stdout
    assert (await site.run("retention")).stdout == "", "nothing is due, nothing is dropped"
    report = await site.run("report", "patient", "store/Patient/p5", "--by", "ann")
    assert (report.returncode, len(json.loads(report.stdout)["lines"])) == (0, 1)
    assert (await site.run("public-key")).stdout.split() == [key.vkey() for key in KEYS]


@pytest.mark.requirement("AU-503")
@pytest.mark.parametrize(
    "args",
    [
        ("verify", "--since", "yesterday"), ("prove",), ("verify-proof",), ("consistency", "one"), ("fsck", "x"),
        ("tail", "--count", "many"), ("gaps", "--since", "x"), ("export",), ("verify-copy",), ("report", "patient"),
        ("hold", "add", "--actor", "a", "--by", "ann"), ("hold", "release", "no-uuid", "--by", "ann"), ("hold",),
        ("shred", "s"), ("retention", "--now"), ("witness", "walk"),
        ("status", "--jsn"), ("recover", "x"), ("migrate", "x"), ("provision", "x"), ("public-key", "x"), ("wat",),
    ],
)  # fmt: skip
def test_wrong_usage_of_any_command_is_64(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 64
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.requirement("AU-503")
async def test_a_hold_about_nothing_is_wrong_usage_as_well_and_leaves_no_event(site: Site) -> None:
    before = len(await site.events("retention"))
    for scope in ((), ("--patient", "anna")):
        done = await site.run("hold", "add", *scope, "--reason", "r", "--by", "ann")
        assert (done.returncode, "hold" in done.stderr) == (64, True), done.stderr
    assert len(await site.events("retention")) == before


@pytest.mark.requirement("AU-503")
@pytest.mark.parametrize(
    "args",
    [
        ("verify",), ("prove", "01900000-0000-7000-8000-000000000000"), ("verify-proof", "/nowhere"), ("fsck",),
        ("consistency", "/nowhere", "/nowhere"), ("gaps",), ("export", "/tmp/never"), ("status",),
        ("verify-copy", "/nowhere"), ("report", "user", "u", "--by", "ann"), ("hold", "list"), ("recover",),
        ("hold", "add", "--actor", "a", "--reason", "r", "--by", "ann"), ("shred", "s", "--by", "ann"),
        ("retention", "--dry-run"),
    ],
)  # fmt: skip
def test_no_access_is_3_for_any_command(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for role in (*ROLES, "keys", "shredder"):
        monkeypatch.setenv(f"WARDMESH_AUDIT_{role.upper()}_URL", "postgresql://x@127.0.0.1:9/x")
    for name in ("KEK", "HANDLE_KEY", "SIGNING_KEY"):
        monkeypatch.setenv(f"WARDMESH_AUDIT_{name}", encoded(SEED))
    monkeypatch.setenv("WARDMESH_NATS_URL", "nats://127.0.0.1:9")
    assert main(args) == 3


async def test_recover_finds_a_working_writer_and_changes_nothing_when_nothing_is_missing(site: Site) -> None:
    """The last one: it stops the service."""
    site.service.terminate()
    assert await asyncio.to_thread(site.service.wait, 30) == 0
    before = await site.w.query("select log_id, size, root from tree_state order by 1")
    conn = await site.w.connect("audit_writer")
    try:
        async with conn.transaction():
            await conn.fetch("select size from tree_state where log_id = 0 for update")
            busy = await site.run("recover")
    finally:
        await conn.close()
    assert (busy.returncode, "a writer is at work" in busy.stderr) == (3, True)
    done = await site.run("recover")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 events restored") == LOGS
    assert await site.w.query("select log_id, size, root from tree_state order by 1") == before

"""Go's checksum-database code judges what we make: proofs, cosignatures, and an export by the commands of the page."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_world import SEED, leaves_of, world
from engines import Nats, Postgres
from wardmesh_audit.export import export_tlog
from wardmesh_audit.merkle import consistency_ranges, inclusion_ranges, leaf_hash, verify_consistency, verify_inclusion
from wardmesh_audit.note import Signer, split_note
from witness_world import Log, witness_on

PAGE = Path(__file__).parents[2] / "docs" / "audit-stream.md"
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 127, 128, 255, 256, 257, 300)
VKEY = Signer("test/audit/0", SEED).verifier.vkey()
WRITTEN_KEY = '"local/audit/0+..."'  # what the page shows; a stranger writes the real one there


def line(kind: str, first: int, second: int, *hashes: bytes) -> str:
    return " ".join([kind, str(first), str(second), *(b64encode(each).decode() for each in hashes)])


def mutations(proof: list[bytes], pick: random.Random) -> Iterator[list[bytes]]:
    yield proof
    yield [*proof, leaf_hash(b"added")]
    if proof:
        at = pick.randrange(len(proof))
        yield proof[:at] + proof[at + 1 :]
        yield [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
    if len(proof) > 1:
        yield [*proof[1:], proof[0]]


def cases() -> Iterator[tuple[str, bool]]:
    """Every judgement of ours beside the line that asks Go for its own."""
    log, pick = Log().grow(300), random.Random(5)
    roots = {size: log.root(0, size) for size in SIZES}
    for new in SIZES:
        for old in [size for size in SIZES if size <= new]:
            hashed, index = leaf_hash(log.leaves[old - 1]), old - 1
            path = [log.root(*span) for span in inclusion_ranges(index, new)]
            steps = [log.root(*span) for span in consistency_ranges(old, new)]
            for proof in mutations(path, pick):
                verdict = verify_inclusion(hashed, index, new, proof, roots[new])
                yield line("record", index, new, roots[new], hashed, *proof), verdict
            for proof in mutations(steps, pick):
                verdict = verify_consistency(old, new, proof, roots[old], roots[new])
                yield line("tree", old, new, roots[old], roots[new], *proof), verdict


@pytest.mark.requirement("AU-402", "AU-401")
def test_go_and_we_agree_about_every_proof_and_every_mutated_one(oracle: Path) -> None:
    made = list(cases())
    text = "\n".join(asked for asked, _ in made) + "\n"
    done = subprocess.run([oracle, "vectors"], input=text, capture_output=True, text=True, timeout=60, check=True)
    verdicts = [answer == "ok" for answer in done.stdout.split()]
    assert verdicts == [ours for _, ours in made]
    assert sum(verdicts) == len(SIZES) * (len(SIZES) + 1), "exactly the proofs that nobody touched"


@pytest.mark.requirement("AU-402")
def test_go_reads_the_cosignature_of_our_witness(oracle: Path, tmp_path: Path) -> None:
    witness, store, cosigner = witness_on(tmp_path / "store")
    log = Log().grow(20)
    answer = witness.add_checkpoint(log.submission(0))
    store.close()
    note = tmp_path / "note"
    note.write_text(log.note() + answer.body)
    command = [oracle, "cosigned", note, cosigner.key.vkey()]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    note.write_text((log.note() + answer.body).replace("\n20\n", "\n21\n"))
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    assert split_note(log.note())[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.anyio
@pytest.mark.requirement("AU-402", "AU-609")
@pytest.mark.timeout(400)
async def test_a_stranger_who_follows_the_page_verifies_an_export_and_notices_every_change(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    """Nothing but the page, the public key, the export and a checkpoint; the commands are those of the page."""
    if shutil.which("go") is None:
        pytest.skip("NOT PROVEN: there is no Go compiler here")
    async with world(broker, server) as w:
        async with w.writing(), w.publishing():
            await w.send(*leaves_of(100))
            await w.wait_signed(100)
            await w.send(*leaves_of(500))
            await w.wait_signed(600)
        older = await w.query("select note from checkpoint where size >= 100 order by size limit 1")
        conn = await w.connect("audit_reader")
        await export_tlog(conn, tmp_path / "log")
        await conn.close()
    (tmp_path / "older-checkpoint").write_text(older[0]["note"])
    (tmp_path / "main.go").write_text(blocks("go")[0])
    build, with_older = blocks("sh")
    assert WRITTEN_KEY in build
    build = build.replace(WRITTEN_KEY, f'"{VKEY}"')
    done = stranger(tmp_path, build)
    if "go: golang.org/x/mod@" in done.stderr and not (tmp_path / "verify").exists():
        pytest.skip(f"NOT PROVEN: golang.org/x/mod cannot be had here: {done.stderr.strip()[-200:]}")
    assert done.stdout.splitlines()[-1] == "verified: 600 entries of test/audit/0, 0 older checkpoints", done.stderr
    done = stranger(tmp_path, with_older)
    assert done.stdout.splitlines()[-1] == "verified: 600 entries of test/audit/0, 1 older checkpoints", done.stderr
    tampered(tmp_path, with_older)


def stranger(folder: Path, commands: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARDMESH_")}
    line = ["bash", "-e", "-c", commands]
    return subprocess.run(
        line, cwd=folder, env={**kept, "KEY": VKEY}, capture_output=True, text=True, timeout=110, check=False
    )


def tampered(folder: Path, commands: str) -> None:
    """Changes that somebody might make on the way, each undone before the next."""
    forged = Log().grow(120, "forged").note()
    for name, change in {
        "log/tile/entries/001": lambda raw: raw.replace(b"probe", b"prove", 1),
        "log/checkpoint": lambda raw: raw.replace(b"\n600\n", b"\n599\n"),
        "older-checkpoint": lambda _raw: forged.encode(),
        "log/tile/entries/002.p/88": lambda raw: raw[: -(2 + int.from_bytes(raw[:2], "big"))],
    }.items():
        path = folder / name
        raw = path.read_bytes()
        assert change(raw) != raw
        path.write_bytes(change(raw))
        done = stranger(folder, commands)
        path.write_bytes(raw)
        assert (done.returncode, "verified:" in done.stdout) == (1, False), name

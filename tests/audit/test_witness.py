"""The witness: exact answers, one history per log under parallel submissions, refusals kept as evidence."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wardmesh_audit.cosignature import Cosigner, WitnessKey, cosignatures, cosigned, parse_witness_key
from wardmesh_audit.note import BadNote, BadSignature, Signer, open_note, split_note
from wardmesh_audit.witness import log_path, submission_text
from wardmesh_audit.witness_store import UNSIGNED_KEPT, Evidence, WitnessStore
from witness_world import ORIGIN, SEED, WITNESS_NAME, Log, WitnessProcess, witness_on, witness_process


@pytest.fixture
def running(tmp_path: Path) -> Iterator[WitnessProcess]:
    with witness_process(tmp_path, Signer(ORIGIN, SEED).verifier.vkey()) as witness:
        yield witness


def kinds(store: Path) -> list[str]:
    with sqlite3.connect(store) as conn:
        found = [row[0] for row in conn.execute("select kind from evidence order by id")]
    conn.close()
    return found


def mutated_proof(log: Log, old: int) -> bytes:
    proof = log.proof(old, len(log.leaves))
    return submission_text(old, [*proof[:-1], b64encode(bytes(32)).decode()], log.note()).encode()


def malformed(log: Log) -> list[bytes]:
    good = log.submission(10).decode()
    return [
        b"",
        b"old 10\n",
        good.replace("old 10", "old 010").encode(),
        good.replace("old 10", "new 10").encode(),
        good.replace("old 10", "old -1").encode(),
        good.replace("old 10", "old 99999999999999999999").encode(),
        good.replace("old 10\n", "old 10\nnot base64\n").encode(),
        good.replace("old 10\n", "old 10\nAAAA\n").encode(),
        good.replace("old 10\n", "old 10\n" + f"{b64encode(bytes(32)).decode()}\n" * 64).encode(),
        b"\xff" + good.encode(),
        good[:-5].encode(),
        b"x" * 100_000,
    ]


@pytest.mark.requirement("AU-409")
def test_every_situation_has_the_answer_of_the_protocol(running: WitnessProcess) -> None:
    log = Log().grow(10)
    first = running.add(log.submission(0))
    assert first[0] == 200
    log.grow(10)
    stranger = Log(log.leaves, Signer("other/audit/0", SEED))
    thief = Log(log.leaves, Signer(ORIGIN, bytes(32)))
    conflict = (409, "10\n", "text/x.tlog.size; charset=utf-8")
    same_size, grown, rolled_back = Log().grow(10, "x"), log.fork(5, 30), Log().grow(5)
    cases: list[tuple[bytes, int]] = [
        (stranger.submission(10), 404),
        (thief.submission(10), 403),
        (log.submission(10).replace(b"old 10", b"old 21"), 400),
        (mutated_proof(log, 10), 422),
        (grown.submission(10), 422),
        (log.submission(10).replace(b"old 10\n", b"old 10\n" + b64encode(bytes(32)) + b"\n"), 422),
        *((body, 400) for body in malformed(log)),
    ]
    for body, status in cases:
        assert running.add(body)[0] == status, body
    assert running.add(log.submission(0)) == conflict, "we do not know where it is: it says so"
    assert running.add(log.submission(5)) == conflict
    assert running.add(same_size.submission(10)) == conflict, "same size, other root"
    assert running.add(rolled_back.submission(0, 5)) == conflict, "an older tree"
    assert running.add(log.submission(10))[0] == 200
    assert running.add(log.submission(20))[0] == 200, "the same once more is no conflict"


@pytest.mark.requirement("AU-409")
def test_refusals_are_kept_as_evidence_and_asking_for_the_size_is_none(running: WitnessProcess) -> None:
    log = Log().grow(10)
    running.add(log.submission(0))
    log.grow(10)
    running.add(log.submission(0))
    assert kinds(running.store) == [], "a benign retry"
    fork, grown, old = Log().grow(10, "x"), log.fork(5, 30), Log().grow(5)
    for body in (fork.submission(10), grown.submission(10), old.submission(0), fork.submission(10)):
        running.add(body)
    assert kinds(running.store) == ["fork", "grown_fork", "rollback"], "each once, however often it comes"
    with sqlite3.connect(running.store) as conn:
        kept = conn.execute("select submission from evidence where kind = 'grown_fork'").fetchone()[0]
    conn.close()
    assert kept.encode() == grown.submission(10)
    note = kept.partition("\n\n")[2]
    assert open_note(note, [log.signer.verifier]), "the log's own signature is what convicts it"


@pytest.mark.requirement("AU-409")
def test_fifty_parallel_submissions_leave_one_history(running: WitnessProcess) -> None:
    log = Log().grow(10)
    running.add(log.submission(0))
    log.grow(50)
    honest = [log.submission(10, size) for size in range(11, 36)]
    forks = [log.fork(10, count).submission(10) for count in range(1, 26)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(running.add, [*honest, *forks]))
    won = [i for i, (status, _, _) in enumerate(answers) if status == 200]
    assert len(won) == 1, "each of them alone would have been fine: only one can be"
    assert set(Counter(status for status, _, _ in answers)) == {200, 409}
    size = 11 + won[0] if won[0] < 25 else won[0] - 25 + 11
    with urllib.request.urlopen(running.url + log_path(ORIGIN), timeout=10) as answer:
        note = answer.read().decode()
    assert split_note(note)[0].split("\n")[1] == str(size)
    assert list(cosigned(note, [running.address.key])) == [WITNESS_NAME]


@pytest.mark.requirement("AU-409")
def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    vkey = Signer(ORIGIN, SEED).verifier.vkey()
    log = Log().grow(12)
    with witness_process(tmp_path, vkey) as witness:
        assert witness.add(log.submission(0))[0] == 200
        witness.process.kill()
        witness.process.wait(20)
    with witness_process(tmp_path, vkey) as witness:
        assert witness.add(Log().grow(12, "x").submission(0))[0] == 409
        assert witness.add(log.grow(3).submission(12))[0] == 200


def test_the_witness_needs_nothing_of_the_ledger_and_says_what_is_missing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "wardmesh_audit", "witness", "run"]
    for environ, word in (
        ({}, "WARDMESH_WITNESS_KEY"),
        ({"WARDMESH_WITNESS_KEY": "A" * 43}, "WARDMESH_WITNESS_LOGS"),
        ({"WARDMESH_WITNESS_KEY": "A" * 43, "WARDMESH_WITNESS_LOGS": "nonsense"}, "no verifier key"),
    ):
        done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
        assert (done.returncode, word in done.stderr) == (78, True), done.stderr


def test_unsigned_refusals_cannot_fill_the_disk_and_signed_ones_stay(tmp_path: Path) -> None:
    store = WitnessStore(tmp_path / "store")
    with store.turn():
        store.keep(Evidence("fork", ORIGIN, 1, "signed", 0), signed=True)
        for n in range(UNSIGNED_KEPT + 50):
            store.keep(Evidence("malformed", "", 0, f"junk {n}", 0), signed=False)
    found = Counter(each.kind for each in store.evidence())
    store.close()
    assert found == {"fork": 1, "malformed": UNSIGNED_KEPT}


def test_a_failed_turn_leaves_nothing(tmp_path: Path) -> None:
    witness, store, _ = witness_on(tmp_path / "store")
    with pytest.raises(RuntimeError), store.turn():
        store.keep(Evidence("fork", ORIGIN, 1, "x", 0), signed=True)
        raise RuntimeError
    assert store.evidence() == []
    assert witness.latest(ORIGIN) is None
    store.close()


def test_a_cosignature_binds_text_time_and_key() -> None:
    cosigner = Cosigner(WITNESS_NAME, bytes(32), clock=lambda: 1_700_000_000.9)
    note = Log().grow(3).note()
    text, _ = split_note(note)
    signed = note + cosigner.cosign(text)
    assert cosigned(signed, [cosigner.key]) == {WITNESS_NAME: 1_700_000_000}
    assert cosigned(note, [cosigner.key]) == {}
    assert (cosignatures(note), cosignatures(signed)) == (0, 1)
    assert open_note(signed, [Signer(ORIGIN, SEED).verifier]) == text, "to others it is one more line"
    other = WitnessKey(WITNESS_NAME, Cosigner(WITNESS_NAME, SEED).key.public)
    assert cosigned(signed, [other]) == {}, "another key id is another witness"
    with pytest.raises(BadSignature):
        cosigned(signed.replace("\n3\n", "\n4\n"), [cosigner.key])


@pytest.mark.parametrize(
    "change", [lambda v: v[:-4], lambda v: v.replace("+", "-", 1), lambda v: "x" + v, lambda _v: "", lambda v: v + "="]
)
def test_a_witness_key_that_does_not_fit_together_is_refused(change: Callable[[str], str]) -> None:
    vkey = Cosigner(WITNESS_NAME, SEED).key.vkey()
    assert parse_witness_key(vkey).vkey() == vkey
    with pytest.raises(BadNote):
        parse_witness_key(change(vkey))
    with pytest.raises(BadNote):
        parse_witness_key(Signer(ORIGIN, SEED).verifier.vkey())

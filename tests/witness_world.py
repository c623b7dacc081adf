"""A log in memory that submits to a witness, and a witness that really listens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wardmesh_audit.cosignature import Cosigner, WitnessAddress
from wardmesh_audit.merkle import CompactRange, consistency_ranges, cover, fold, leaf_hash, node_hash
from wardmesh_audit.note import Checkpoint, Signer
from wardmesh_audit.witness import Witness, submission_text
from wardmesh_audit.witness_store import WitnessStore
from wardmesh_cli.ports import free_port

ORIGIN = "test/audit/0"
SEED = bytes(range(32))
WITNESS_SEED = bytes(range(32, 64))
WITNESS_NAME = "test/witness"


@dataclass
class Log:
    """Leaves, and what a log says about them."""

    leaves: list[bytes] = field(default_factory=list[bytes])
    signer: Signer = field(default_factory=lambda: Signer(ORIGIN, SEED))

    def grow(self, count: int, word: str = "leaf") -> Log:
        start = len(self.leaves)
        self.leaves += [f"{word} {n}".encode() for n in range(start, start + count)]
        return self

    def fork(self, at: int, count: int) -> Log:
        return Log(self.leaves[:at], self.signer).grow(count, "other")

    def root(self, start: int, end: int) -> bytes:
        def node(level: int, index: int) -> bytes:
            if level == 0:
                return leaf_hash(self.leaves[index])
            return node_hash(node(level - 1, index * 2), node(level - 1, index * 2 + 1))

        return fold([node(*each) for each in cover(start, end)])

    def note(self, size: int | None = None) -> str:
        tree = CompactRange()
        tree.extend(map(leaf_hash, self.leaves[:size]))
        return self.signer.sign(Checkpoint(self.signer.verifier.name, tree.size, tree.root()).text())

    def proof(self, old: int, new: int) -> list[str]:
        ranges = consistency_ranges(old, new) if 0 < old < new else []
        return [b64encode(self.root(*span)).decode() for span in ranges]

    def submission(self, old: int, new: int | None = None) -> bytes:
        size = len(self.leaves) if new is None else new
        return submission_text(old, self.proof(old, size), self.note(size)).encode()


def witness_on(path: Path, signer: Signer | None = None) -> tuple[Witness, WitnessStore, Cosigner]:
    store = WitnessStore(path)
    cosigner = Cosigner(WITNESS_NAME, WITNESS_SEED)
    verifier = (signer or Signer(ORIGIN, SEED)).verifier
    return Witness(store, [verifier], cosigner), store, cosigner


@dataclass
class WitnessProcess:
    url: str
    store: Path
    process: subprocess.Popen[bytes]
    address: WitnessAddress

    def add(self, body: bytes) -> tuple[int, str, str]:
        request = urllib.request.Request(f"{self.url}/add-checkpoint", data=body)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers["Content-Type"]


@contextlib.contextmanager
def witness_process(home: Path, vkey: str, *, port: int = 0) -> Iterator[WitnessProcess]:
    """`wardmesh-audit witness run`: nothing in its environment but its own key, its store and the log's public key."""
    port = port or free_port()
    key = Cosigner(WITNESS_NAME, WITNESS_SEED).key
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_WITNESS_NAME": WITNESS_NAME,
        "WARDMESH_WITNESS_KEY": urlsafe_b64encode(WITNESS_SEED).decode(),
        "WARDMESH_WITNESS_STORE": str(home / "witness.sqlite3"),
        "WARDMESH_WITNESS_LOGS": vkey,
        "WARDMESH_WITNESS_PORT": str(port),
    }
    log = (home / "witness.log").open("ab")
    line = [sys.executable, "-m", "wardmesh_audit", "witness", "run"]
    process = subprocess.Popen(line, env=environ, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        limit = time.monotonic() + 90
        while not _answers(f"{url}/readyz"):
            assert process.poll() is None and time.monotonic() < limit, (home / "witness.log").read_text()
            time.sleep(0.05)
        yield WitnessProcess(url, home / "witness.sqlite3", process, WitnessAddress(WITNESS_NAME, url, key))
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False

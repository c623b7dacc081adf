"""What a witness decides about a submitted checkpoint (C2SP tlog-witness): cosign it, or refuse and keep evidence."""

from __future__ import annotations

import hashlib
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence

from msgspec import Struct

from wardmesh_audit.cosignature import Cosigner
from wardmesh_audit.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from wardmesh_audit.note import (
    BadNote,
    BadSignature,
    Checkpoint,
    UnknownKey,
    Verifier,
    open_note,
    parse_checkpoint,
    split_note,
)
from wardmesh_audit.witness_store import Evidence, Latest, WitnessStore

MAX_PROOF_LINES = 63
MAX_SIZE = 2**63 - 1
_SIZE_DIGITS = 19


class Answer(Struct, frozen=True):
    """Status and body of one submission; `evidence` names what a refusal proves, if anything."""

    status: int
    body: str
    evidence: str = ""
    signed: bool = False  # the log's own key signed what was refused

    @property
    def media_type(self) -> str:
        return "text/x.tlog.size" if self.status == 409 else "text/plain"


class Contradicted(Exception):
    """To a log: a witness has cosigned something that its checkpoint is no continuation of."""

    def __init__(self, name: str, *, recorded: int, fork: bool) -> None:
        super().__init__(f"witness {name} holds another history" if fork else f"witness {name} is ahead")
        self.recorded = recorded
        self.fork = fork  # False: it has only seen a larger tree


class Submission(Struct, frozen=True):
    old: int
    proof: tuple[bytes, ...]
    note: str
    checkpoint: Checkpoint


class Witness:
    """Holds to one history per log. Checking, persisting and signing are one step."""

    def __init__(
        self,
        store: WitnessStore,
        logs: Sequence[Verifier],
        cosigner: Cosigner,
        *,
        clock: Callable[[], float] = time.time,
        alert: Callable[[Answer, str], None] = lambda _answer, _origin: None,
    ) -> None:
        self._store = store
        self._logs: dict[str, list[Verifier]] = {}
        for verifier in logs:
            self._logs.setdefault(verifier.name, []).append(verifier)
        self._cosigner = cosigner
        self._clock = clock
        self._alert = alert

    def add_checkpoint(self, body: bytes) -> Answer:
        """The answer to `POST /add-checkpoint`, durable before it is returned."""
        try:
            submission = parse_submission(body)
        except BadNote:
            answer, origin, recorded = Answer(400, "malformed\n", "malformed"), "", 0
            with self._store.turn():
                self._keep(answer, origin, recorded, body)
        else:
            origin = submission.checkpoint.origin
            with self._store.turn():
                latest = self._store.latest(origin) or Latest(0, EMPTY_ROOT)
                answer = self._judge(submission, latest)
                self._keep(answer, origin, latest.size, body)
        if answer.evidence:
            self._alert(answer, origin)
        return answer

    def latest(self, origin: str) -> str | None:
        """The newest cosigned checkpoint of a log."""
        found = self._store.latest(origin)
        return found.note if found else None

    def _judge(self, submission: Submission, latest: Latest) -> Answer:
        checkpoint = submission.checkpoint
        verifiers = self._logs.get(checkpoint.origin)
        if verifiers is None:
            return Answer(404, "unknown log\n", "unknown_log")
        try:
            open_note(submission.note, verifiers)
        except (UnknownKey, BadSignature):
            return Answer(403, "no valid signature of a known key\n", "bad_signature")
        return _refusal(submission, latest) or self._cosign(submission)

    def _cosign(self, submission: Submission) -> Answer:
        text, _ = split_note(submission.note)
        line = self._cosigner.cosign(text)
        checkpoint = submission.checkpoint
        note = submission.note + line
        self._store.advance(checkpoint.origin, Latest(checkpoint.size, checkpoint.root, note, int(self._clock())))
        return Answer(200, line)

    def _keep(self, answer: Answer, origin: str, recorded: int, body: bytes) -> None:
        if answer.evidence:
            text = body.decode(errors="backslashreplace")
            evidence = Evidence(answer.evidence, origin, recorded, text, int(self._clock()))
            self._store.keep(evidence, signed=answer.signed)


def _refusal(submission: Submission, latest: Latest) -> Answer | None:
    """Why a signed checkpoint cannot follow what is recorded; None when it does."""
    checkpoint = submission.checkpoint
    if submission.old > checkpoint.size:
        return Answer(400, "old size above the checkpoint size\n", "bad_old_size", signed=True)
    conflict = f"{latest.size}\n"
    if checkpoint.size == latest.size and checkpoint.root != latest.root:
        return Answer(409, conflict, "fork", signed=True)
    if submission.old != latest.size:
        # Somebody who does not know where we are asks for our size this way. An older tree is no question.
        return Answer(409, conflict, "rollback" if checkpoint.size < latest.size else "", signed=True)
    if not verify_consistency(submission.old, checkpoint.size, submission.proof, latest.root, checkpoint.root):
        return Answer(422, "the consistency proof does not verify\n", "grown_fork", signed=True)
    return None


def log_path(origin: str) -> str:
    """Where a witness serves the newest cosigned checkpoint of a log."""
    return f"/log/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"


def parse_submission(body: bytes) -> Submission:
    """Old size, proof lines, empty line, checkpoint. Raises BadNote."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadNote("not text") from None
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    digits = lines[0].removeprefix("old ")
    plain = digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")
    if not separator or not lines[0].startswith("old ") or not plain or len(digits) > _SIZE_DIGITS:
        raise BadNote("not a submission")
    if len(lines) > MAX_PROOF_LINES + 1:
        raise BadNote("too many proof lines")
    checkpoint = parse_checkpoint(split_note(note)[0])
    if max(int(digits), checkpoint.size) > MAX_SIZE:
        raise BadNote("no log is that large")
    return Submission(int(digits), tuple(_hash(line) for line in lines[1:]), note, checkpoint)


def submission_text(old: int, proof: Sequence[str], note: str) -> str:
    """The body that a log sends: the proof lines are base64 already."""
    return "".join(f"{line}\n" for line in (f"old {old}", *proof)) + "\n" + note


def _hash(line: str) -> bytes:
    try:
        raw = b64decode(line, validate=True)
    except (Base64Error, ValueError):
        raise BadNote("a proof line is not base64") from None
    if len(raw) != HASH_BYTES:
        raise BadNote("a proof line is not a hash")
    return raw

"""What a consumer trusts: the log's keys and a quorum of witnesses; checks checkpoints and proofs with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wardmesh_audit.client_cursor import Cursor
from wardmesh_audit.cosignature import cosigned, parse_witness_key
from wardmesh_audit.merkle import CompactRange
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, open_note, parse_checkpoint, parse_vkey
from wardmesh_audit.proof import Proof, check_proof, parse_proof


class Forked(Exception):
    """The log showed something that does not continue what it showed before: an alarm, never to be ignored."""


class TooFewWitnesses(Exception):
    """The checkpoint is signed, but not cosigned by as many witnesses as were asked for."""


class Trust:
    """Keys as text: `name+keyid+base64`. Raises BadNote when one of them is none."""

    def __init__(self, log_keys: Sequence[str], witness_keys: Sequence[str] = (), quorum: int = 0) -> None:
        self._logs = [parse_vkey(key) for key in log_keys]
        self._witnesses = [parse_witness_key(key) for key in witness_keys]
        self._quorum = quorum
        if not self._logs or not 0 <= quorum <= len(self._witnesses):
            raise BadNote("at least one key of the log, and no more witnesses asked for than there are keys")

    def checkpoint(self, note: str) -> Checkpoint:
        """Raises UnknownKey, BadSignature, BadNote or TooFewWitnesses."""
        checkpoint = parse_checkpoint(open_note(note, self._logs))
        if checkpoint.origin not in {key.name for key in self._logs}:
            raise UnknownKey("the checkpoint is from another log")
        self._cosigned(note)
        return checkpoint

    def proof(self, text: str) -> Proof:
        """A `.tlog-proof`, checked offline. Raises what `checkpoint` raises, or BadProof."""
        proof = parse_proof(text)
        check_proof(proof, self._logs)
        self._cosigned(proof.note)
        return proof

    def _cosigned(self, note: str) -> None:
        if len(cosigned(note, self._witnesses)) < self._quorum:
            raise TooFewWitnesses("too few witnesses have cosigned this checkpoint")


class VerifiedTree:
    """Leaf hashes in the order they came, and the tree as far as a checkpoint has confirmed it."""

    def __init__(self, cursor: Cursor) -> None:
        self._tree = CompactRange(cursor.size, cursor.frontier)
        self._pending: deque[bytes] = deque()
        self._confirmed: deque[Cursor] = deque([cursor])
        self._note = cursor.note

    @property
    def verified(self) -> int:
        return self._tree.size

    @property
    def received(self) -> int:
        return self._tree.size + len(self._pending)

    def add(self, leaf_hash: bytes) -> None:
        self._pending.append(leaf_hash)

    def confirm(self, checkpoint: Checkpoint, note: str, log: int) -> bool:
        """True: everything below the checkpoint is verified. False: not all of it is here yet. Raises Forked."""
        if checkpoint.size < self._tree.size:
            raise Forked("the newest checkpoint is older than one that was verified")
        if checkpoint.size > self.received:
            return False
        while self._tree.size < checkpoint.size:
            self._tree.append(self._pending.popleft())
        if self._tree.root() != checkpoint.root:
            raise Forked("the signed root is not the root of the events that were received")
        if note != self._note:
            size, frontier = self._tree.size, self._tree.frontier()
            self._confirmed.append(Cursor(log=log, next=size, size=size, frontier=frontier, note=note))
            self._note = note
        return True

    def cursor(self, next_index: int) -> Cursor:
        """For this place: the newest confirmed tree that is not ahead of it."""
        while len(self._confirmed) > 1 and self._confirmed[1].size <= next_index:
            self._confirmed.popleft()
        base = self._confirmed[0]
        return Cursor(log=base.log, next=next_index, size=base.size, frontier=base.frontier, note=base.note)


__all__ = ["BadNote", "BadSignature", "Forked", "TooFewWitnesses", "Trust", "UnknownKey", "VerifiedTree"]

"""The tlog-proof file: one event, its place in the log and the signed checkpoint, checkable offline."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable

from msgspec import Struct

from wardmesh_audit.merkle import leaf_hash, verify_inclusion
from wardmesh_audit.note import BadNote, Checkpoint, Verifier, open_note, parse_checkpoint

HEADER = "c2sp.org/tlog-proof@v1"


class BadProof(Exception):
    """The file is no proof, or what it proves is not true."""


class Proof(Struct, frozen=True, kw_only=True):
    """`leaf` travels in the format's `extra` line, so that the file needs no companion."""

    index: int
    leaf: bytes
    hashes: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        lines = [HEADER, f"extra {b64encode(self.leaf).decode()}", f"index {self.index}"]
        lines += [b64encode(part).decode() for part in self.hashes]
        return "\n".join(lines) + "\n\n" + self.note


def parse_proof(text: str) -> Proof:
    """Raises BadProof when the text is not a proof file."""
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines[0] != HEADER or len(lines) < 3:
        raise BadProof("not a tlog-proof file")
    if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise BadProof("the proof file holds no event or no index")
    digits = lines[2].removeprefix("index ")
    if not digits.isascii() or not digits.isdigit():
        raise BadProof("the index is not a number")
    try:
        leaf = b64decode(lines[1].removeprefix("extra "), validate=True)
        hashes = tuple(b64decode(line, validate=True) for line in lines[3:])
    except (Base64Error, ValueError):
        raise BadProof("not base64") from None
    if any(len(part) != 32 for part in hashes):
        raise BadProof("a proof line is not a hash")
    return Proof(index=int(digits), leaf=leaf, hashes=hashes, note=note)


def check_proof(proof: Proof, verifiers: Iterable[Verifier]) -> Checkpoint:
    """The checkpoint that contains the event. Raises UnknownKey, BadSignature or BadProof; works offline."""
    known = list(verifiers)
    text = open_note(proof.note, known)
    try:
        checkpoint = parse_checkpoint(text)
    except BadNote as error:
        raise BadProof(str(error)) from None
    if checkpoint.origin not in {verifier.name for verifier in known}:
        raise BadProof("the checkpoint is from another log")
    hashed = leaf_hash(proof.leaf)
    if not verify_inclusion(hashed, proof.index, checkpoint.size, proof.hashes, checkpoint.root):
        raise BadProof("the event is not at this index of the signed log")
    return checkpoint

"""Cosignatures: what a witness says about a checkpoint and when (C2SP tlog-cosignature, key type 4)."""

from __future__ import annotations

import hashlib
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from wardmesh_audit.note import BadNote, BadSignature, split_note

_TYPE = b"\x04"
_TIMESTAMP_BYTES = 8
_SIGNATURE_BYTES = 64


class WitnessKey(Struct, frozen=True):
    """A witness' public key with its name, written `name+keyid+base64` like a log's, with another type byte."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _TYPE + self.public).digest()[:4]

    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(_TYPE + self.public).decode()}"

    def when(self, text: str, signature: bytes) -> int:
        """The second in which this witness cosigned the text. Raises BadSignature when it did not."""
        if len(signature) != _TIMESTAMP_BYTES + _SIGNATURE_BYTES:
            raise BadSignature("a cosignature of a known witness has the wrong length")
        timestamp = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public)
            key.verify(signature[_TIMESTAMP_BYTES:], _message(timestamp, text))
        except (InvalidSignature, ValueError):
            raise BadSignature("a cosignature of a known witness is wrong") from None
        return timestamp


class WitnessAddress(Struct, frozen=True):
    """A witness that a log asks, and the key it answers with."""

    name: str
    url: str
    key: WitnessKey


class Cosigner:
    """The witness' own key: signs the text of a checkpoint together with the time."""

    def __init__(self, name: str, seed: bytes, *, clock: Callable[[], float] = time.time) -> None:
        if not name or any(c.isspace() or c == "+" for c in name):
            raise BadNote("a key name must not be empty or hold spaces or plus signs")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._clock = clock
        self.key = WitnessKey(name, self._key.public_key().public_bytes_raw())

    def cosign(self, text: str) -> str:
        """One signature line, with its newline."""
        timestamp = int(self._clock())
        signature = self._key.sign(_message(timestamp, text))
        raw = self.key.key_id + timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + signature
        return f"— {self.key.name} {b64encode(raw).decode()}\n"


def parse_witness_key(text: str) -> WitnessKey:
    """Reads `name+keyid+base64`; raises BadNote when the parts do not belong together."""
    name, _, rest = text.strip().partition("+")
    encoded = rest.partition("+")[2]
    try:
        raw = b64decode(encoded, validate=True)
    except (Base64Error, ValueError):
        raise BadNote("not base64") from None
    if not name or raw[:1] != _TYPE or len(raw) != 33:
        raise BadNote("not a witness key (type 4)")
    key = WitnessKey(name, raw[1:])
    if key.vkey() != text.strip():
        raise BadNote("the key id does not belong to this key")
    return key


def cosigned(note: str, witnesses: Iterable[WitnessKey]) -> dict[str, int]:
    """Which of these witnesses cosigned the note, and in which second.

    Lines of others are ignored. Raises BadSignature when a line claims to be from one of them and is not.
    """
    text, lines = split_note(note)
    known = {(key.name, key.key_id): key for key in witnesses}
    found: dict[str, int] = {}
    for name, identifier, signature in lines:
        key = known.get((name, identifier))
        if key is not None:
            found[name] = key.when(text, signature)
    return found


def cosignatures(note: str) -> int:
    """How many lines of a note are cosignatures, whoever made them: they are longer than a log's own signature."""
    return sum(len(signature) == _TIMESTAMP_BYTES + _SIGNATURE_BYTES for _, _, signature in split_note(note)[1])


def _message(timestamp: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()

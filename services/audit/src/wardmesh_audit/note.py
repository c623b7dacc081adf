"""Signed notes and checkpoints in the C2SP text formats: what auditors, witnesses and Go's sumdb tools can read."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

_ED25519 = b"\x01"
_SIGNATURE = "— "
_KEY_ID_BYTES = 4
_MAX_NOTE = 1_000_000


class BadNote(Exception):
    """The text is no signed note, no checkpoint or no verifier key; says which, never what it held."""


class UnknownKey(Exception):
    """No signature line is from a key we know."""


class BadSignature(Exception):
    """A signature line claims to be from a known key and is not."""


class Checkpoint(Struct, frozen=True):
    """What a log says about itself at one size."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


class Verifier(Struct, frozen=True):
    """A public key with its name: `name+keyid+base64`, as Go's note package writes it."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, self.public)

    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(_ED25519 + self.public).decode()}"

    def verify(self, text: str, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


class Signer:
    """Signs notes under one name with one Ed25519 key, or with two while keys change: the newer one first."""

    def __init__(self, name: str, *seeds: bytes) -> None:
        if not name or not seeds or any(c.isspace() or c == "+" for c in name):
            raise BadNote("a key name must not be empty or hold spaces or plus signs")
        self._keys = [Ed25519PrivateKey.from_private_bytes(seed) for seed in seeds]
        self.verifiers = [Verifier(name, key.public_key().public_bytes_raw()) for key in self._keys]
        self.verifier = self.verifiers[0]

    def sign(self, text: str) -> str:
        """The note: text, empty line, one signature line per key."""
        note = f"{text}\n"
        for key, verifier in zip(self._keys, self.verifiers, strict=True):
            signature = verifier.key_id + key.sign(text.encode())
            note += f"{_SIGNATURE}{verifier.name} {b64encode(signature).decode()}\n"
        return note


def key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID_BYTES]


def parse_vkey(text: str) -> Verifier:
    """Reads `name+keyid+base64`; raises BadNote when the parts do not belong together."""
    name, _, rest = text.strip().partition("+")
    identifier, _, encoded = rest.partition("+")
    raw = _base64(encoded)
    if not name or raw[:1] != _ED25519 or len(raw) != 33:
        raise BadNote("not an Ed25519 verifier key")
    if key_id(name, raw[1:]).hex() != identifier:
        raise BadNote("the key id does not belong to this key")
    return Verifier(name, raw[1:])


def open_note(note: str, verifiers: Iterable[Verifier]) -> str:
    """The text of a note with a signature of a known key. Lines of unknown keys are ignored, a wrong one raises."""
    text, lines = split_note(note)
    known = {(v.name, v.key_id): v for v in verifiers}
    good = 0
    for name, identifier, signature in lines:
        verifier = known.get((name, identifier))
        if verifier is None:
            continue
        if not verifier.verify(text, signature):
            raise BadSignature("a signature line of a known key is wrong")
        good += 1
    if not good:
        raise UnknownKey("no signature of a known key")
    return text


def split_note(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text (with its last newline) and signature lines as (name, key id, signature)."""
    if len(note) > _MAX_NOTE or not note.endswith("\n"):
        raise BadNote("not a signed note")
    at = note.rfind("\n\n")
    if at <= 0:
        raise BadNote("not a signed note")
    text, block = note[: at + 1], note[at + 2 :]
    lines: list[tuple[str, bytes, bytes]] = []
    for line in block.removesuffix("\n").split("\n"):
        name, _, encoded = line.removeprefix(_SIGNATURE).partition(" ")
        raw = _base64(encoded)
        if not line.startswith(_SIGNATURE) or not name or len(raw) <= _KEY_ID_BYTES:
            raise BadNote("not a signature line")
        lines.append((name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:]))
    return text, lines


def parse_checkpoint(text: str) -> Checkpoint:
    """Reads the text of a checkpoint; extension lines are ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or not all(lines[:-1]):
        raise BadNote("not a checkpoint")
    origin, digits, encoded = lines[0], lines[1], lines[2]
    if not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and digits != "0") or len(digits) > 19:
        raise BadNote("the size of the checkpoint is not a number")
    root = _base64(encoded)
    if len(root) != 32:
        raise BadNote("the root of the checkpoint is not a hash")
    return Checkpoint(origin, int(digits), root)


def _base64(text: str) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise BadNote("not base64") from None
    if b64encode(raw).decode() != text:
        raise BadNote("not base64")
    return raw

"""Encryption at rest: every row has its own data key, wrapped by a ring of master keys (FG-16)."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from wardmesh_common.errors import Internal
from wardmesh_common.token_seal import KEY_BYTES, parse_key

MIN_PASSPHRASE = 32
_NONCE_BYTES = 12
_ITERATIONS = 600_000
# Constant on purpose: replicas share nothing but the passphrase, and the data keys below it are random anyway.
_SALT = b"wardmesh master key, version 1"


class Envelope(Struct, frozen=True):
    """What a row stores: which master key wraps, the wrapped data key, the ciphertext."""

    key_id: str
    wrapped_key: bytes
    ciphertext: bytes


class Vault:
    """The first key of the ring seals, every key of it opens: that is how a master key is rotated."""

    def __init__(self, ring: tuple[bytes, ...]) -> None:
        if not ring:
            raise ValueError("the ring of master keys is empty")
        self._ring = {_name_of(key): AESGCM(key) for key in ring}
        self._current = _name_of(ring[0])

    def seal(self, plain: bytes, row: str) -> Envelope:
        """`row` is the identity of the row: an envelope copied to another row does not open."""
        data_key = os.urandom(KEY_BYTES)
        wrapped = _encrypt(self._ring[self._current], data_key, f"key|{self._current}|{row}")
        return Envelope(self._current, wrapped, _encrypt(AESGCM(data_key), plain, f"row|{row}"))

    @property
    def current(self) -> str:
        """Name of the master key that seals."""
        return self._current

    def rewrapped(self, envelope: Envelope, row: str) -> Envelope:
        """The same content under the current master key; only the data key is sealed anew. Raises Internal."""
        data_key = self._data_key(envelope, row)
        wrapped = _encrypt(self._ring[self._current], data_key, f"key|{self._current}|{row}")
        return Envelope(self._current, wrapped, envelope.ciphertext)

    def open(self, envelope: Envelope, row: str) -> bytes:
        """Raises Internal when no key of the ring fits or the row was tampered with."""
        data_key = self._data_key(envelope, row)
        try:
            return _decrypt(AESGCM(data_key), envelope.ciphertext, f"row|{row}")
        except (InvalidTag, ValueError):
            raise Internal("a stored secret does not open") from None

    def _data_key(self, envelope: Envelope, row: str) -> bytes:
        master = self._ring.get(envelope.key_id)
        if master is None:
            raise Internal("a stored secret was sealed with a master key that is not in the ring")
        try:
            return _decrypt(master, envelope.wrapped_key, f"key|{envelope.key_id}|{row}")
        except (InvalidTag, ValueError):
            raise Internal("a stored secret does not open") from None


def master_key(text: str) -> bytes:
    """A 32-byte base64url key as it is, or a passphrase stretched once, at start-up, never per request.

    Raises ValueError, without quoting, for anything shorter than 32 characters.
    """
    try:
        return parse_key(text)
    except ValueError:
        pass
    if len(text) < MIN_PASSPHRASE:
        raise ValueError("a master key must have at least 32 characters")
    return hashlib.pbkdf2_hmac("sha256", text.encode(), _SALT, _ITERATIONS, KEY_BYTES)


def _name_of(key: bytes) -> str:
    return hashlib.sha256(b"wardmesh master key id" + key).hexdigest()[:16]


def _encrypt(cipher: AESGCM, plain: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound_to.encode())


def _decrypt(cipher: AESGCM, sealed: bytes, bound_to: str) -> bytes:
    return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())

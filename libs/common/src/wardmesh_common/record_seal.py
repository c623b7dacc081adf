"""Sealing of audit events with a subject's data key, and the envelope in which audit lends such keys."""

from __future__ import annotations

import os
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from wardmesh_common.questions import KeyAnswer, LentKey

ALGORITHM = "A256GCM"
NONCE_BYTES = 12
_LEND_INFO = b"wardmesh audit key lend v1"
_encoder = msgspec.json.Encoder(order="sorted")


class OpenKey(Struct, frozen=True, kw_only=True):
    """A lent data key ready for use; lives in memory only, for five minutes at most."""

    kid: str
    pseudonym: str
    cipher: AESGCM


def seal(key: OpenKey, event_id: str, secrets: Mapping[str, Any], nonce: bytes) -> dict[str, str]:
    """The `enc` block of one event. The event id is authenticated: the block fits no other event.

    `nonce` is NONCE_BYTES of fresh chance.
    """
    ciphertext = key.cipher.encrypt(nonce, _encoder.encode(secrets), event_id.encode())
    return {
        "alg": ALGORITHM,
        "ct": b2a_base64(ciphertext, newline=False).decode(),
        "kid": key.kid,
        "n": b2a_base64(nonce, newline=False).decode(),
    }


def unseal(data_key: bytes, event_id: str, enc: Mapping[str, str]) -> dict[str, Any]:
    """Opens an `enc` block; raises InvalidTag when key, event and bytes do not belong together."""
    plain = AESGCM(data_key).decrypt(b64decode(enc["n"]), b64decode(enc["ct"]), event_id.encode())
    return msgspec.json.decode(plain, type=dict[str, Any])


def lend(borrower_public: bytes, keys: Iterable[tuple[str, str, bytes]]) -> KeyAnswer:
    """The audit side: seals (kid, pseudonym, data key) for the holder of the private key alone."""
    ours = X25519PrivateKey.generate()
    public = ours.public_key().public_bytes_raw()
    shared = ours.exchange(X25519PublicKey.from_public_bytes(borrower_public))
    cipher = _channel(shared, borrower_public, public)
    lent: list[LentKey] = []
    for kid, pseudonym, data_key in keys:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + cipher.encrypt(nonce, data_key, kid.encode())
        lent.append(LentKey(kid=kid, pseudonym=pseudonym, sealed_key=sealed))
    return KeyAnswer(public_key=public, keys=tuple(lent))


def receive(ours: X25519PrivateKey, answer: KeyAnswer) -> list[OpenKey]:
    """The station's side of `lend`; raises InvalidTag when the answer was not made for this question."""
    shared = ours.exchange(X25519PublicKey.from_public_bytes(answer.public_key))
    cipher = _channel(shared, ours.public_key().public_bytes_raw(), answer.public_key)
    opened: list[OpenKey] = []
    for key in answer.keys:
        nonce, body = key.sealed_key[:NONCE_BYTES], key.sealed_key[NONCE_BYTES:]
        data_key = cipher.decrypt(nonce, body, key.kid.encode())
        opened.append(OpenKey(kid=key.kid, pseudonym=key.pseudonym, cipher=AESGCM(data_key)))
    return opened


def _channel(shared: bytes, borrower: bytes, lender: bytes) -> AESGCM:
    info = _LEND_INFO + borrower + lender
    return AESGCM(HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared))

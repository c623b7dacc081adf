"""Sealing a platform token for one call: only auth and fhir-proxy hold the key (AR-6)."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardmesh_common.errors import Internal

KEY_BYTES = 32
_NONCE_BYTES = 12


def parse_key(text: str) -> bytes:
    """A 32-byte key in base64url, padded or not. Errors do not quote the text: it may be most of a key."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key must be base64url") from None
    if len(key) != KEY_BYTES:
        raise ValueError("a key must hold exactly 32 bytes")
    return key


def seal_token(key: bytes, token: str, *, call_id: str, platform: str, principal_id: str) -> bytes:
    """nonce || ciphertext; it opens only for this call, this platform and this principal."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, token.encode(), _bound_to(call_id, platform, principal_id))


def open_token(key: bytes, sealed: bytes, *, call_id: str, platform: str, principal_id: str) -> str:
    """Raises Internal when the seal does not fit: a token moved to another call is a fault or an attack."""
    try:
        token = AESGCM(key).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(call_id, platform, principal_id)
        )
        return token.decode()
    except (InvalidTag, ValueError):
        raise Internal("the platform token of this call cannot be opened") from None


def _bound_to(call_id: str, platform: str, principal_id: str) -> bytes:
    # Call and platform ids hold no bar, so the last part may hold anything and the text stays unambiguous.
    if "|" in call_id or "|" in platform:
        raise Internal("an id holds a reserved character")
    return f"{call_id}|{platform}|{principal_id}".encode()

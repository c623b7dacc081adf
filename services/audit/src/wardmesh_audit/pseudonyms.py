"""From a person to the pseudonyms in the ledger and, where policy allows, from a seal to what it holds."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from wardmesh_common.record_seal import unseal

_NONCE_BYTES = 12


class _Sealed(Struct):
    id: str
    data: dict[str, Any]


_events = msgspec.json.Decoder(_Sealed)


class Pseudonyms:
    """Reads the key database and never adds to it: asking for a stranger must not make one known."""

    def __init__(self, pool: asyncpg.Pool, kek: bytes, handle_key: bytes) -> None:
        self._pool = pool
        self._kek = AESGCM(kek)
        self._handle_key = handle_key

    async def find(self, tenant: str, reference: str) -> bytes | None:
        """The pseudonym of `<platform>/Patient/<id>`; None for a stranger and for one whose key was destroyed."""
        handle = hmac.digest(self._handle_key, f"{tenant}\x1f{reference}".encode(), hashlib.sha256)
        return await self._pool.fetchval("select pseudonym from subject_key where handle = $1", handle)

    async def erased(self, pseudonyms: list[bytes]) -> dict[bytes, str]:
        """Which of these were shredded, and when."""
        rows = await self._pool.fetch(
            "select pseudonym, destroyed_at from subject_key"
            " where pseudonym = any($1::bytea[]) and destroyed_at is not null",
            pseudonyms,
        )
        return {row["pseudonym"]: row["destroyed_at"].isoformat() for row in rows}

    async def open(self, leaf: bytes) -> dict[str, Any] | None:
        """What is sealed in an event; None when nothing is, or when its key is gone."""
        try:
            event = _events.decode(leaf)
        except msgspec.MsgspecError:
            return None
        sealed: Mapping[str, str] | None = event.data.get("enc")
        if not isinstance(sealed, dict):
            return None
        try:
            kid = bytes.fromhex(sealed.get("kid", ""))
        except (ValueError, TypeError):
            return None
        row = await self._pool.fetchrow("select kid, wrapped from subject_key where kid = $1", kid)
        if row is None or row["wrapped"] is None:
            return None
        try:
            wrapped: bytes = row["wrapped"]
            key = self._kek.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], row["kid"])
            return unseal(key, event.id, sealed)
        except (InvalidTag, KeyError, ValueError):
            return None

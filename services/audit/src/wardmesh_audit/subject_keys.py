"""The keys role: one data key and one pseudonym per subject, wrapped, in a database of its own (audit.md 4.4)."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from wardmesh_common.errors import BadRequest
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_seal import lend

MAX_PATIENTS = 512
_KEY_BYTES = 32
_NONCE_BYTES = 12

_FIND = "select handle, kid, pseudonym, wrapped from subject_key where handle = any($1::bytea[])"
_ADD = """
insert into subject_key (handle, kid, pseudonym, wrapped)
select * from unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[]) on conflict (handle) do nothing
"""


class SubjectKey(Struct, frozen=True):
    kid: bytes
    pseudonym: bytes
    data_key: bytes


def handle_of(handle_key: bytes, tenant: str, patient: str) -> bytes:
    """Where the key of a subject is found; without the deployment's key nobody can tell."""
    return hmac.digest(handle_key, f"{tenant}\x1f{patient}".encode(), hashlib.sha256)


class KeyBook:
    """Finds or makes the key of a subject. The handle is keyed, so the table alone leads from nobody to a pseudonym."""

    def __init__(self, pool: asyncpg.Pool, kek: bytes, handle_key: bytes) -> None:
        self._pool = pool
        self._kek = AESGCM(kek)
        self._handle_key = handle_key

    async def lend(self, question: KeyQuestion) -> KeyAnswer:
        """Answers a station; the keys are sealed for its public key. Raises BadRequest for a senseless question."""
        if not 0 < len(question.patients) <= MAX_PATIENTS or len(question.public_key) != _KEY_BYTES:
            raise BadRequest("A key question needs a public key and 1 to 512 subjects.")
        keys = await self.keys(question.tenant, question.patients)
        try:
            return lend(question.public_key, [(k.kid.hex(), k.pseudonym.hex(), k.data_key) for k in keys])
        except ValueError:
            raise BadRequest("The public key of a key question is no X25519 key.") from None

    async def keys(self, tenant: str, patients: Sequence[str]) -> list[SubjectKey]:
        """In the order asked for; new subjects get a key now."""
        handles = [self.handle(tenant, patient) for patient in patients]
        async with self._pool.acquire() as conn:
            found = await self._find(conn, handles)
            missing = [handle for handle in dict.fromkeys(handles) if handle not in found]
            if missing:
                await self._add(conn, missing)
                found = await self._find(conn, handles)
        return [found[handle] for handle in handles]

    def handle(self, tenant: str, patient: str) -> bytes:
        return handle_of(self._handle_key, tenant, patient)

    async def _find(self, conn: asyncpg.pool.PoolConnectionProxy, handles: list[bytes]) -> dict[bytes, SubjectKey]:
        return {row["handle"]: self._open(row) for row in await conn.fetch(_FIND, handles)}

    async def _add(self, conn: asyncpg.pool.PoolConnectionProxy, handles: list[bytes]) -> None:
        kids = [os.urandom(16) for _ in handles]
        wrapped = [self._wrap(kid, AESGCM.generate_key(256)) for kid in kids]
        await conn.execute(_ADD, handles, kids, [os.urandom(16) for _ in handles], wrapped)

    def _wrap(self, kid: bytes, data_key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._kek.encrypt(nonce, data_key, kid)

    def _open(self, row: asyncpg.Record) -> SubjectKey:
        wrapped = row["wrapped"]
        data_key = self._kek.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], row["kid"])
        return SubjectKey(row["kid"], row["pseudonym"], data_key)

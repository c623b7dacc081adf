"""Passwords as argon2id hashes, checked in a thread and a few at a time: each costs time and 64 MiB."""

from __future__ import annotations

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

_AT_ONCE = 2


class Passwords:
    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        # For names that do not exist: the answer must take as long as for one that does.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        async with self._turn:
            right = await asyncio.to_thread(self._right, stored or self._nobody, password)
        return right and stored is not None

    def outdated(self, stored: str) -> bool:
        """True when the parameters have become stricter since."""
        return self._hasher.check_needs_rehash(stored)

    def _right(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

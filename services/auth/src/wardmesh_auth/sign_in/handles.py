"""auth_handle: a signed note that stands for who began a sign-in, for clients without identity (FG-26)."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from wardmesh_auth.refusals import InvalidAuthHandle

LIFE_SECONDS = 24 * 3600
_MOST = 1024
_SKEW = 60.0


class _Note(Struct, forbid_unknown_fields=True):
    sid: str  # handle of the consent record; no session id and no name
    pid: str
    ts: int


_notes = msgspec.json.Decoder(_Note)


class AuthHandles:
    """All replicas share the key, which is derived from the sealing key, so there is no further secret to keep."""

    def __init__(self, seal_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(seal_key, b"wardmesh auth_handle, version 1", "sha256")
        self._clock = clock

    def issue(self, sid: str, platform: str) -> str:
        note = _text(msgspec.json.encode(_Note(sid, platform, int(self._clock()))))
        return f"{note}.{self._seal(note)}"

    def read(self, handle: str, platform: str) -> str:
        """The consent record behind it. Raises InvalidAuthHandle for everything that is not wholly good."""
        note, _, seal = handle.partition(".") if handle.isascii() else ("", "", "")
        if len(handle) > _MOST or not hmac.compare_digest(seal, self._seal(note)):
            raise refused()
        try:
            found = _notes.decode(base64.urlsafe_b64decode(note + "=" * (-len(note) % 4)))
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise refused() from None
        age = self._clock() - found.ts
        if found.pid != platform or not -_SKEW <= age < LIFE_SECONDS:
            raise refused()
        return found.sid

    def _seal(self, note: str) -> str:
        return _text(hmac.digest(self._key, note.encode(), "sha256"))


def refused() -> InvalidAuthHandle:
    return InvalidAuthHandle("the auth_handle is not valid for this platform and caller: call start_auth again")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""Opaque signed page links: what was asked, where the page ended and until when the link holds (ST-51)."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable
from hashlib import sha256

import msgspec
from msgspec import Struct

from wardmesh_fhir_store.faults import Fault, invalid

LINK_SECONDS = 3600
_SIGNATURE_BYTES = 16


class Cursor(Struct, frozen=True, array_like=True):
    """`query` is the applied query, `after` the sort values of the last row, `total` what page one counted."""

    expires: int
    path: str
    query: str
    after: list[str | None]
    total: int | None = None
    until: str = ""  # history: nothing newer than page one saw
    back: bool = False  # the page that ends before `after`


class CursorSealer:
    """The key is the datastore's own, so a link never works in another one."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    def issue(
        self,
        path: str,
        query: str,
        after: list[str | None],
        total: int | None = None,
        until: str = "",
        *,
        back: bool = False,
    ) -> str:
        cursor = Cursor(int(self._clock()) + LINK_SECONDS, path, query, after, total, until, back)
        payload = msgspec.msgpack.encode(cursor)
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")

    def open(self, token: str, path: str) -> Cursor:
        """400 when it is not ours or belongs elsewhere, 410 when it is too old."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._sign(payload)):
                raise invalid("The page link is not one of ours.")
            cursor = msgspec.msgpack.decode(payload, type=Cursor)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise invalid("The page link is not one of ours.") from None
        if cursor.path != path:
            raise invalid("The page link belongs to another search.")
        if cursor.expires < self._clock():
            raise Fault(410, "expired", "The page link has expired; search again.")
        return cursor

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, sha256)[:_SIGNATURE_BYTES]

"""Page cursors: an upstream page address sealed for one caller, platform and question (PX-2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, Denied, Gone, NotFound
from wardmesh_common.vocabulary import Obligations

PARAMETER = "_cursor"
LIFETIME_SECONDS = 3600.0
_AAD = b"wardmesh page cursor 1"
_NONCE = 12
_NAME = 4  # bytes of the key's name in front, so that a ring of keys costs one decryption


class Page(Struct, frozen=True, array_like=True):
    """What a cursor holds. `offset` entries of that upstream page were delivered already."""

    url: str
    offset: int
    expires: float
    platform: str
    principal: str
    session: str
    kind: str
    identity: str
    interaction: str
    operation: str
    scopes: bytes
    obligations: bytes


_pages = msgspec.msgpack.Decoder(Page)
_encoder = msgspec.msgpack.Encoder()


class Cursors:
    """Seals with the first key of the ring and opens with any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("at least one cursor key is needed")
        self._ring = {hashlib.sha256(key).digest()[:_NAME]: AESGCM(key) for key in keys}
        self._first = hashlib.sha256(keys[0]).digest()[:_NAME]

    def issue(
        self, call: Call, url: str, offset: int = 0, now: float | None = None, seconds: float = LIFETIME_SECONDS
    ) -> str:
        expires = (now or time.time()) + seconds
        nonce = os.urandom(_NONCE)
        sealed = self._ring[self._first].encrypt(nonce, _encoder.encode(page_of(call, url, offset, expires)), _AAD)
        return base64.urlsafe_b64encode(self._first + nonce + sealed).rstrip(b"=").decode()

    def open(self, call: Call, token: str, now: float | None = None) -> Page:
        """The page behind a cursor this very caller was given; refuses everything else."""
        page = self._unseal(token)
        wanted = page_of(call, page.url, page.offset, page.expires)
        if (page.platform, page.principal, page.session) != (wanted.platform, wanted.principal, wanted.session):
            raise NotFound("There is no such page.")
        if page.expires <= (now or time.time()):
            raise Gone("The page link has expired; start the search again.")
        if (page.scopes, page.obligations) != (wanted.scopes, wanted.obligations):
            raise Denied("What you may see has changed since the first page; start the search again.")
        if page != wanted:
            raise BadRequest("The page link belongs to another request.")
        return page

    def _unseal(self, token: str) -> Page:
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            key = self._ring[data[:_NAME]]
            plain = key.decrypt(data[_NAME : _NAME + _NONCE], data[_NAME + _NONCE :], _AAD)
            return _pages.decode(plain)
        except (binascii.Error, ValueError, KeyError, InvalidTag, msgspec.DecodeError):
            raise BadRequest("The page link is not one of ours.") from None


def page_of(call: Call, url: str, offset: int, expires: float) -> Page:
    principal, grant = call.principal, call.grant
    scopes = sorted({*(principal.scopes if principal else ()), *(grant.scopes if grant else ())})
    obligations = call.decision.obligations if call.decision else Obligations()
    return Page(
        url,
        offset,
        expires,
        call.platform,
        principal.id if principal else "",
        principal.session if principal else "",
        call.resource.type,
        call.resource.id,
        str(call.interaction),
        call.operation,
        hashlib.sha256(" ".join(scopes).encode()).digest()[:16],
        hashlib.sha256(_encoder.encode(obligations)).digest()[:16],
    )


def token_in(query: str) -> str:
    """The cursor of an incoming query string, or ""."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == PARAMETER:
            return value
    return ""

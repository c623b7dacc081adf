"""Break-glass: a pass for one patient's record, good for a short time and for one person only (B-14)."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, Struct

from wardmesh_auth.refusals import PassRefused
from wardmesh_auth.sign_in.results import answer
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Emergency, Principal

LIFE_SECONDS = 900.0
_MOST = 8192
_NONCE_BYTES = 12
REASON_CODES = ("unconscious", "life_threatening", "no_other_clinician", "system_failure", "other")


class OpenGlass(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    platform_id: Annotated[str, Meta(min_length=1, max_length=2048)]
    patient_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
    reason_code: str = ""
    reason: Annotated[str, Meta(max_length=1000)] = ""

    def __repr__(self) -> str:
        return "OpenGlass(...)"


class CloseGlass(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    platform_id: Annotated[str, Meta(min_length=1, max_length=2048)]
    emergency: Annotated[str, Meta(max_length=_MOST)] = ""

    def __repr__(self) -> str:
        return "CloseGlass(...)"


class _Pass(Struct, frozen=True, forbid_unknown_fields=True):
    emergency: Emergency
    tenant: str
    principal: str
    session: str  # in which it was opened: who signs out there takes the pass along
    issued: float


_passes = msgspec.msgpack.Decoder(_Pass)


class Passes:
    """Sealed, so that every replica reads what another has issued and nobody else learns whose record it is."""

    def __init__(
        self, seal_key: bytes, revoked: Callable[[str, str, float], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self._cipher = AESGCM(hmac.digest(seal_key, b"wardmesh break-glass, version 1", "sha256"))
        self._revoked = revoked
        self._clock = clock

    def issue(self, principal: Principal, asked: OpenGlass, platform: str) -> tuple[str, Emergency]:
        """Raises BadRequest without a reason in words and one of the codes."""
        reason = asked.reason.strip()
        if not reason or asked.reason_code not in REASON_CODES:
            codes = ", ".join(REASON_CODES)
            raise BadRequest(f"Emergency access needs a reason in words and a reason_code: one of {codes}.")
        now = self._clock()
        emergency = Emergency(
            id=os.urandom(16).hex(),
            platform=platform,
            patient=asked.patient_id,
            reason_code=asked.reason_code,
            reason=reason,
            expires=now + LIFE_SECONDS,
        )
        plain = msgspec.msgpack.encode(_Pass(emergency, principal.tenant, principal.id, principal.session, now))
        nonce = os.urandom(_NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, plain, None)).decode(), emergency

    def read(self, text: str, principal: Principal, platform: str) -> Emergency:
        """Raises PassRefused unless it is this person's, for this platform, not over, not closed and not signed out."""
        try:
            if len(text) > _MOST:
                raise ValueError
            sealed = base64.b64decode(text, altchars=b"-_", validate=True)
            found = _passes.decode(self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None))
        except (binascii.Error, ValueError, InvalidTag, msgspec.DecodeError):
            raise PassRefused("The emergency access is not valid.") from None
        emergency = found.emergency
        if (found.tenant, found.principal) != (principal.tenant, principal.id) or emergency.platform != platform:
            raise PassRefused("The emergency access is not valid for this person and platform.")
        ended = any(self._revoked(name, principal.id, found.issued) for name in (emergency.id, found.session))
        if ended or emergency.expires <= self._clock():
            raise PassRefused("The emergency access is over.")
        return emergency


class BreakGlass:
    """The two procedures. Both are records of the class `break_glass`, whatever comes of them."""

    def __init__(
        self,
        passes: Passes,
        admit: Callable[[Principal, Emergency], Awaitable[None]],
        close: Callable[[str], Awaitable[None]],
    ) -> None:
        self._passes, self._admit, self._close = passes, admit, close

    async def open(self, call: Call, asked: OpenGlass) -> Outcome:
        assert call.principal is not None, "the pair assertion comes first"
        text, emergency = self._passes.issue(call.principal, asked, call.platform)
        call.emergency = emergency  # from here on the record says for whom and why, also when it is refused
        await self._admit(call.principal, emergency)
        body = {"break_glass": text, "id": emergency.id, "expires_in": int(LIFE_SECONDS)}
        return answer(body, "break_glass.opened")

    async def close(self, call: Call, asked: CloseGlass) -> Outcome:
        assert call.principal is not None, "the pair assertion comes first"
        call.emergency = self._passes.read(asked.emergency, call.principal, call.platform)
        await self._close(call.emergency.id)
        return answer({"success": True, "id": call.emergency.id}, "break_glass.closed")

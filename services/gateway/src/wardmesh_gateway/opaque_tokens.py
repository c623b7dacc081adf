"""Access tokens that only auth can judge, opaque ones and those of local accounts; answers are kept for a moment."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_common.contracts import ASK_TOKEN
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.local_tokens import symmetric
from wardmesh_common.questions import TokenAnswer, TokenQuestion
from wardmesh_common.tokens import MAX_TOKEN_BYTES, VerifiedToken

GOOD_SECONDS, BAD_SECONDS = 60.0, 10.0
# Guesses wait for one another, so that they keep neither the bus nor auth busy.
MAX_ASKING = 16
MAX_KEPT = 10_000
_TEXT = "the access token is not valid here"


class VerifiesTokens(Protocol):
    """wardmesh_common.tokens.TokenVerifier: tokens that carry their own proof."""

    async def verify(self, token: str) -> VerifiedToken: ...

    def forget(self, *, digest: str = "", subject: str = "") -> None: ...


class AsksAuth(Protocol):
    async def ask(self, subject: str, question: Struct, answer_type: type[Any]) -> Any: ...


class BearerTokens:
    """What a public key proves is verified here; everything else is asked of auth (OA-4)."""

    def __init__(self, signed: VerifiesTokens, opaque: OpaqueTokens | None) -> None:
        self._signed, self._opaque = signed, opaque

    async def verify(self, token: str) -> VerifiedToken:
        """Raises Unauthenticated, Unavailable."""
        if self._opaque is not None and (token.count(".") != 2 or symmetric(token)):
            return await self._opaque.verify(token)
        return await self._signed.verify(token)

    def forget(self, *, digest: str = "", subject: str = "") -> None:
        self._signed.forget(digest=digest, subject=subject)
        if self._opaque is not None:
            self._opaque.forget(digest=digest, subject=subject)


class OpaqueTokens:
    """Bounded, never beyond `exp` (OA-9); a token that does not hold is not asked about again for a while."""

    def __init__(self, auth: AsksAuth, clock: Callable[[], float] = time.time) -> None:
        self._auth, self._clock = auth, clock
        self._kept: OrderedDict[str, tuple[VerifiedToken | None, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[VerifiedToken | None]] = {}
        self._turns = asyncio.Semaphore(MAX_ASKING)

    async def verify(self, token: str) -> VerifiedToken:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthenticated(_TEXT)
        digest = hashlib.sha256(token.encode()).hexdigest()
        found, until = self._kept.get(digest, (None, 0.0))
        if until <= self._clock():
            found = await self._shared(digest, token)
        if found is None or found.expires_at <= self._clock():
            raise Unauthenticated(_TEXT)
        return found

    def forget(self, *, digest: str = "", subject: str = "") -> None:
        gone = [
            kept
            for kept, (token, _) in self._kept.items()
            if kept == digest or (token is not None and subject in (token.subject, token.principal_id))
        ]
        for kept in gone:
            del self._kept[kept]

    async def _shared(self, digest: str, token: str) -> VerifiedToken | None:
        """Whoever comes with the same token in the meantime waits for the same answer."""
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._ask(digest, token))
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(task)

    async def _ask(self, digest: str, token: str) -> VerifiedToken | None:
        try:
            async with self._turns:
                answer: TokenAnswer = await self._auth.ask(ASK_TOKEN, TokenQuestion(token=token), TokenAnswer)
        except Refused as refused:
            if refused.problem.status != Unauthenticated.status:
                raise
            self._keep(digest, None, self._clock() + BAD_SECONDS)
            return None
        verified = VerifiedToken(
            issuer=answer.issuer,
            subject=answer.subject,
            principal_id=answer.principal_id,
            client_id=answer.client_id,
            scopes=answer.scopes,
            claims={"roles": list(answer.roles)},
            issued_at=0.0,
            expires_at=answer.expires_at,
            digest=digest,
        )
        self._keep(digest, verified, min(answer.expires_at, self._clock() + GOOD_SECONDS))
        return verified

    def _keep(self, digest: str, token: VerifiedToken | None, until: float) -> None:
        self._kept[digest] = (token, until)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

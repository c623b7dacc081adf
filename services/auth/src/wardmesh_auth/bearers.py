"""Every kind of access token that may come in, each judged by who can: signed, of a local account, or opaque."""

from __future__ import annotations

from wardmesh_auth.introspection import Introspection
from wardmesh_common.local_tokens import LocalTokens, symmetric
from wardmesh_common.tokens import TokenVerifier, VerifiedToken


class Bearers:
    def __init__(
        self, signed: TokenVerifier, local: LocalTokens | None = None, opaque: Introspection | None = None
    ) -> None:
        self._signed, self._local, self._opaque = signed, local, opaque

    async def verify(self, token: str) -> VerifiedToken:
        """Raises Unauthenticated for every token that is not wholly good, Unavailable when nobody can say."""
        if self._local is not None and symmetric(token):
            return self._local.verify(token)
        if self._opaque is not None and token.count(".") != 2:
            return await self._opaque.verify(token)
        return await self._signed.verify(token)

    def forget(self, *, digest: str = "", subject: str = "") -> None:
        self._signed.forget(digest=digest, subject=subject)
        if self._opaque is not None:
            self._opaque.forget(digest=digest, subject=subject)

    async def close(self) -> None:
        if self._opaque is not None:
            await self._opaque.close()

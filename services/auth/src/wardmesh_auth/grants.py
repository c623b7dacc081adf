"""What a principal may use of a platform for one call: nothing needed, a sealed token, or a refusal."""

from __future__ import annotations

from collections.abc import Callable

from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.grant_store import GrantKey, deployment_key
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_auth.refusals import TokenExpired
from wardmesh_auth.scope_needs import needs_of
from wardmesh_auth.scopes import everywhere, granted, narrowed, smart
from wardmesh_auth.settings import PlatformClient
from wardmesh_common.contracts import Call
from wardmesh_common.errors import (
    Denied,
    InsufficientScope,
    Internal,
    PlatformUnconfigured,
    SignInRequired,
    Unauthenticated,
)
from wardmesh_common.questions import PlatformFacts, RenewalAnswer, RenewalQuestion
from wardmesh_common.token_seal import open_token, seal_token
from wardmesh_common.vocabulary import Grant, Principal, is_write


class Grants:
    def __init__(
        self,
        platforms: Platforms,
        tokens: PlatformTokens,
        client_at: Callable[[PlatformFacts], PlatformClient | None],
        seal_key: bytes,
        *,
        anonymous_open: bool = True,
    ) -> None:
        self._platforms, self._tokens = platforms, tokens
        self._client_at, self._seal_key = client_at, seal_key
        self._anonymous_open = anonymous_open

    async def lend(self, call: Call, principal: Principal) -> Grant:
        """Raises the refusal that fits; a call without a platform needs no grant."""
        if not call.platform:
            return Grant(platform="")
        facts = await self._platforms.serving(call.platform)
        open_read = facts.open and not is_write(call.interaction, call.operation)
        if principal.anonymous and not (open_read and self._anonymous_open):
            raise Unauthenticated("sign in first: this platform is not open to everyone")
        _narrowed_by_caller(call, principal)
        if facts.auth_method == "none":
            return Grant(platform=call.platform)
        token = None if principal.anonymous else await self._token(facts, principal, open_read=open_read)
        if token is None:
            return Grant(platform=call.platform)
        if not granted(token.scopes, call):
            # No scopes at all is not "everything".
            raise InsufficientScope("the grant on this platform does not cover this interaction")
        return self._sealed(call, principal, token)

    async def _token(self, facts: PlatformFacts, principal: Principal, *, open_read: bool) -> PlatformToken | None:
        """None only where the platform asks nobody to sign in for this."""
        client = self._client_at(facts)
        if facts.auth_method == "client_credentials":
            if client is None:
                raise PlatformUnconfigured("no client is configured for this platform")
            return await self._tokens.deployment(facts, client)
        try:
            token = await self._tokens.granted(principal.tenant, principal.id, facts, client)
        except TokenExpired:
            if not open_read:
                raise
            token = None
        if token is not None or open_read:
            return token
        if client is None:
            raise PlatformUnconfigured("no client is configured for this platform")
        raise SignInRequired("sign in at this platform first: start_auth, or GET /auth/{platform_id}/login")

    async def renewed(self, question: RenewalQuestion) -> RenewalAnswer:
        """The platform refused the token of this call. Raises Denied, SignInRequired, the platform's trouble."""
        bound = {
            "call_id": question.call_id,
            "platform": question.platform,
            "principal_id": question.principal_id,
        }
        try:
            refused = open_token(self._seal_key, question.sealed_token, **bound)
        except Internal:
            raise Denied("this token was not lent for that call") from None
        facts = await self._platforms.serving(question.platform)
        client = self._client_at(facts)
        if client is None:
            raise PlatformUnconfigured("no client is configured for this platform")
        own = facts.auth_method != "client_credentials"
        key = GrantKey(question.tenant, question.principal_id, facts.id) if own else deployment_key(facts.id)
        token = await self._tokens.after_refusal(key, facts, client, refused)
        return RenewalAnswer(sealed_token=seal_token(self._seal_key, token.access_token, **bound))

    def _sealed(self, call: Call, principal: Principal, token: PlatformToken) -> Grant:
        sealed = seal_token(
            self._seal_key,
            token.access_token,
            call_id=call.id,
            platform=call.platform,
            principal_id=principal.id,
        )
        return Grant(
            platform=call.platform,
            sealed_token=sealed,
            scopes=token.scopes,
            patient=token.patient,
            everywhere=everywhere(token.scopes, call),
        )


def _narrowed_by_caller(call: Call, principal: Principal) -> None:
    """SMART scopes in the caller's own token narrow what that token may be used for; they never widen anything."""
    if smart(principal.scopes) and not narrowed(principal.scopes, call, principal.patient):
        wanted = dict.fromkeys(f"user/{need.type or '*'}.{need.letters}" for need in needs_of(call))
        raise InsufficientScope("the scopes of this token do not cover this interaction", scope=" ".join(wanted))

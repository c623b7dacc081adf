"""The second half of a platform sign-in: the callback of a browser, or a code that the client received itself."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from wardmesh_auth.grant_store import GrantKey, GrantStore
from wardmesh_auth.journal import Journal
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.refusals import InvalidRequest, InvalidState, OAuthNotConfigured, SignInFailed
from wardmesh_auth.sign_in.arguments import Complete, Finish
from wardmesh_auth.sign_in.attempts import Attempts
from wardmesh_auth.sign_in.browsers import caller
from wardmesh_auth.sign_in.consents import Consents
from wardmesh_auth.sign_in.pending import PERSON, Pending, PendingSignIns
from wardmesh_auth.sign_in.results import Page, answer, shown
from wardmesh_auth.sign_in.returned import returned
from wardmesh_auth.sign_in.starting import platform_of
from wardmesh_auth.smart.client import SmartClient
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadUpstream, PlatformUnknown, SignInRequired, Unavailable

log = logging.getLogger("wardmesh.auth")

_NO_ISSUER = "`iss` is missing: this platform says in its redirect who answers; give it, or all of it as `redirect_url`"

TellsGrant = Callable[[GrantKey], Awaitable[None]]
FinishesPerson = Callable[[Call, Pending, Finish], Awaitable[Outcome]]
# What the token endpoint may do to us; it ends an attempt and is never shown in its own words.
REFUSALS = (SignInRequired, BadUpstream, Unavailable)


class Finishing:
    def __init__(
        self,
        attempts: Attempts,
        pending: PendingSignIns,
        consents: Consents,
        smart: SmartClient,
        store: GrantStore,
        journal: Journal,
        tell: TellsGrant,
        finish_person: FinishesPerson,
    ) -> None:
        self._attempts, self._pending, self._consents = attempts, pending, consents
        self._smart, self._store = smart, store
        self._journal, self._tell, self._finish_person = journal, tell, finish_person

    async def finish(self, call: Call, asked: Finish) -> Outcome:
        """Every way back from a platform (FG-12)."""
        if not asked.error and not asked.code:
            return shown(Page(status=400, page="invalid_request"), "auth.failure")
        pending = await self._pending.take(asked.state) if asked.state else None
        if pending is not None and pending.purpose == PERSON:
            return await self._finish_person(call, pending, asked)
        if asked.error:
            return await self._refused_there(call, pending)
        if pending is None or not await self._of_path(pending, asked.path_platform):
            return shown(Page(status=400, page="invalid_state"), "security.invalid_state")
        if not same_browser(call, pending):
            await self._consents.fail(_key(pending))
            await self._tell(_key(pending))
            return shown(Page(status=400, page="session_mismatch"), "security.session_mismatch")
        await self._journal.beside(call, "auth.callback")
        return await self._exchanged(pending, asked)

    async def complete(self, call: Call, asked: Complete) -> Outcome:
        """complete_auth: only for the principal that started; every other state is simply not known."""
        site = await self._attempts.site(platform_of(call, asked.platform_id))
        principal = caller(call)
        back = returned(asked, self._attempts.redirect_uri)
        if back.code and not back.iss and await self._smart.names_itself(site.facts):
            # Told before the state is used up, so that the same sign-in can still be finished.
            raise InvalidRequest(_NO_ISSUER)
        pending = await self._pending.take(back.state)
        mine = GrantKey(principal.tenant, principal.id, site.facts.id)
        if pending is None or pending.purpose == PERSON or _key(pending) != mine:
            raise InvalidState("the state is not valid: it is unknown, used or expired; call start_auth again")
        if back.error:
            await self._failed(pending)
            raise SignInFailed("the platform did not grant access; call start_auth again")
        try:
            token = await self._exchange(pending, back.code, back.iss)
        except REFUSALS as error:
            await self._failed(pending)
            raise SignInFailed("the platform did not accept the code; call start_auth again") from error
        body = {
            "success": True,
            "platform_id": platform_of(call, asked.platform_id),
            "expires_in": seconds_left(token),
            "message": "Authentication completed",
        }
        return answer(body, "auth.success")

    async def _exchanged(self, pending: Pending, asked: Finish) -> Outcome:
        try:
            site = await self._attempts.site(pending.platform)
        except (PlatformUnknown, OAuthNotConfigured):
            await self._failed(pending)
            return shown(Page(status=400, page="platform_error", platform_id=pending.platform), "auth.failure")
        page = Page(status=200, page="success", platform_id=site.facts.id, platform_name=site.facts.name)
        try:
            await self._exchange(pending, asked.code, asked.iss)
        except REFUSALS as error:
            log.info("a sign-in at platform %s failed: %s", pending.platform, error.problem.code)
            await self._failed(pending)
            failed = msgspec.structs.replace(page, status=500, page="token_exchange_failed")
            return shown(failed, "auth.failure")
        return shown(page, "auth.success")

    async def _exchange(self, pending: Pending, code: str, iss: str) -> PlatformToken:
        site = await self._attempts.site(pending.platform)
        secrets = pending.secrets
        token = await self._smart.exchange(
            site.facts,
            site.client,
            code=code,
            verifier=secrets.verifier,
            redirect_uri=secrets.redirect_uri,
            nonce=secrets.nonce,
            iss=iss,
            scopes=secrets.scopes,
        )
        key = _key(pending)
        async with self._store.exclusively(key) as connection:
            wanted = await self._consents.grant(connection, key)
            if wanted:
                await self._store.write(connection, key, token)
        if not wanted:
            await self._smart.revoke(site.facts, site.client, token)
            raise SignInRequired("this sign-in was called off meanwhile")
        await self._tell(key)
        return token

    async def _refused_there(self, call: Call, pending: Pending | None) -> Outcome:
        if pending is None:
            return shown(Page(status=400, page="failed"), "auth.failure")
        if same_browser(call, pending):
            await self._failed(pending)
        return shown(Page(status=400, page="failed", platform_id=pending.platform), "auth.failure")

    async def _failed(self, pending: Pending) -> None:
        await self._consents.fail(_key(pending))
        await self._tell(_key(pending))

    async def _of_path(self, pending: Pending, path_platform: str) -> bool:
        """The platform in the path, if any, has to be the one that the state belongs to."""
        if not path_platform:
            return True
        try:
            return await self._attempts.serving(path_platform) == pending.platform
        except PlatformUnknown:
            return False


def same_browser(call: Call, pending: Pending) -> bool:
    """The browser that comes back is the one that left, and the person is the one who asked."""
    principal = caller(call)
    return (
        bool(pending.session)
        and hmac.compare_digest(principal.session, pending.session)
        and (principal.tenant, principal.id) == (pending.tenant, pending.principal_id)
    )


def seconds_left(token: PlatformToken) -> int:
    return max(0, int(token.expires_at - time.time()))


def _key(pending: Pending) -> GrantKey:
    return GrantKey(pending.tenant, pending.principal_id, pending.platform)

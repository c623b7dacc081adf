"""The end of a platform sign-in, and the end of a session, here or everywhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from wardmesh_auth.accounts.log_ins import LogIns
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantKey, GrantStore
from wardmesh_auth.identify import TOKEN
from wardmesh_auth.journal import Journal
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.refusals import OAuthNotConfigured
from wardmesh_auth.sessions import Sessions, is_session
from wardmesh_auth.sign_in.arguments import OfPlatform, SignOut
from wardmesh_auth.sign_in.attempts import Attempts
from wardmesh_auth.sign_in.browsers import caller
from wardmesh_auth.sign_in.consents import Consents
from wardmesh_auth.sign_in.finishing import TellsGrant
from wardmesh_auth.sign_in.pending import PendingSignIns
from wardmesh_auth.sign_in.results import answer
from wardmesh_auth.sign_in.starting import platform_of
from wardmesh_auth.smart.client import SmartClient
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import Internal
from wardmesh_common.vocabulary import Principal

log = logging.getLogger("wardmesh.auth")

RevokesToken = Callable[[str], Awaitable[None]]


class Ending:
    def __init__(
        self,
        database: Database,
        attempts: Attempts,
        pending: PendingSignIns,
        consents: Consents,
        sessions: Sessions,
        store: GrantStore,
        smart: SmartClient,
        journal: Journal,
        tell: TellsGrant,
        revoke_token: RevokesToken,
        log_ins: LogIns,
    ) -> None:
        self._database, self._attempts, self._pending = database, attempts, pending
        self._consents, self._sessions, self._store = consents, sessions, store
        self._smart, self._journal, self._tell = smart, journal, tell
        self._revoke_token, self._log_ins = revoke_token, log_ins

    async def revoke(self, call: Call, asked: OfPlatform) -> Outcome:
        """revoke_auth: gone here first, whatever the platform says then (FG-11)."""
        platform = platform_of(call, asked.platform_id)
        principal = caller(call)
        key = GrantKey(principal.tenant, principal.id, await self._attempts.serving(platform))
        async with self._store.exclusively(key) as connection:
            try:
                token = await self._store.read(connection, key)
            except Internal as error:
                log.warning("a grant that is revoked cannot be read: %s", error.problem.detail)
                token = None
            await self._store.forget(connection, key)
            await self._pending.forget(connection, key.tenant, key.principal_id, key.platform)
            await self._consents.revoke(connection, key)
        await self._tell(key)
        revoked = await self._revoked_there(key.platform, token) if token is not None else False
        body = {"success": True, "message": f"Revoked authentication for {platform}", "token_revoked": revoked}
        return answer(body, "auth.revoke")

    async def cancel(self, call: Call, asked: OfPlatform) -> Outcome:
        """cancel_auth: the link and whatever a browser began with it lead nowhere; what was granted before stays."""
        platform = platform_of(call, asked.platform_id)
        site = await self._attempts.site(platform)
        principal = caller(call)
        key = GrantKey(principal.tenant, principal.id, site.facts.id)
        async with self._database.transaction() as connection:
            cancelled = await self._consents.cancel(connection, key)
            await self._pending.forget(connection, key.tenant, key.principal_id, key.platform)
        await self._tell(key)
        return answer({"success": True, "cancelled": cancelled}, "auth.failure")

    async def _revoked_there(self, platform: str, token: PlatformToken) -> bool:
        try:
            site = await self._attempts.site(platform)
        except OAuthNotConfigured:
            return False  # our registration there is gone: nothing is left to ask with
        return await self._smart.revoke(site.facts, site.client, token)

    async def sign_out(self, call: Call, asked: SignOut) -> Outcome:
        principal = caller(call)
        if principal.anonymous:
            return answer({"success": True}, "session.destroy")
        if asked.everywhere and not is_session(principal.id):
            await self._forget(principal, grants=False)
            await self._log_ins.ended(principal)
            await self._sessions.revoke_principal(principal.id)
        elif principal.session.startswith(TOKEN):
            await self._revoke_token(principal.session.removeprefix(TOKEN))
        else:
            await self._end(principal)
        return answer({"success": True}, "session.destroy")

    async def replaced(self, call: Call, principal: Principal) -> None:
        """The session of a browser in which somebody has signed in meanwhile."""
        if principal.session:
            await self._end(principal)
            await self._journal.beside(call, "session.destroy", principal)

    async def _end(self, principal: Principal) -> None:
        if is_session(principal.id):
            await self._forget(principal, grants=True)
        if principal.session:
            await self._sessions.revoke(principal.session)

    async def _forget(self, principal: Principal, *, grants: bool) -> None:
        async with self._database.transaction() as connection:
            await self._pending.forget(connection, principal.tenant, principal.id)
            await self._consents.forget(connection, principal.tenant, principal.id)
            if grants:
                await self._store.forget_principal(connection, principal.tenant, principal.id)

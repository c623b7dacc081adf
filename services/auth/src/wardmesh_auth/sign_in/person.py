"""A person signs in here with a browser: at our issuer, or at the SMART server of the deployment (SM-1, SM-3)."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import msgspec

from wardmesh_auth.accounts.log_ins import LogIns, principal_of
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantKey, GrantStore
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.refusals import InvalidRequest
from wardmesh_auth.sessions import is_session
from wardmesh_auth.sign_in.arguments import Finish, SignIn
from wardmesh_auth.sign_in.browsers import Browsers, caller
from wardmesh_auth.sign_in.finishing import REFUSALS, TellsGrant, same_browser, seconds_left
from wardmesh_auth.sign_in.pending import PERSON, Pending, PendingSignIns, Secrets
from wardmesh_auth.sign_in.people import People, Place
from wardmesh_auth.sign_in.results import Page, answer, shown
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.one_time import new_nonce, new_state, new_verifier
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.vocabulary import Principal

_PATH = re.compile(r"/(?![/\\])[\x21-\x7E]*")  # a path on this host, whatever a browser makes of it
_FAILED = "Failed to obtain access token from FHIR client"  # SM-3

log = logging.getLogger("wardmesh.auth")

EndsSession = Callable[[Call, Principal], Awaitable[None]]


class PersonSignIn:
    def __init__(
        self,
        database: Database,
        people: People,
        pending: PendingSignIns,
        browsers: Browsers,
        smart: SmartClient,
        store: GrantStore,
        tell: TellsGrant,
        end_session: EndsSession,
        log_ins: LogIns,
    ) -> None:
        self._database, self._people, self._pending = database, people, pending
        self._browsers, self._smart = browsers, smart
        self._store, self._tell, self._end_session = store, tell, end_session
        self._log_ins = log_ins

    async def begin(self, call: Call, asked: SignIn) -> Outcome:
        if asked.username or asked.password:
            return await self._with_password(call, asked)
        return await self.first(call, asked.next or "/", bound=asked.bound, again=asked.again)

    async def _with_password(self, call: Call, asked: SignIn) -> Outcome:
        _require_path(asked.next)
        found = await self._log_ins.checked(call, asked.username, asked.password)
        before = caller(call)
        made = await self._browsers.new(call, principal_of(found, None))
        await self._end_session(call, before)
        call.principal = made.principal
        body = {"location": asked.next, "session": made.cookie.session, "max_age": made.cookie.max_age}
        return answer(body, "auth.success")

    async def first(self, call: Call, next_path: str, *, bound: bool = False, again: bool = False) -> Outcome:
        """Sends the browser to where people sign in, and afterwards to `next_path`. `again`: without being known."""
        _require_path(next_path)
        place = await self._people.place()
        browser = await self._browsers.known_or_new(call)
        one_time = {"state": new_state(), "verifier": new_verifier(), "nonce": new_nonce()}
        location = await self._smart.authorization(
            place.facts,
            place.client,
            redirect_uri=place.redirect_uri,
            scopes=place.scopes,
            prompt="login" if again else "",
            **one_time,
        )
        secrets = Secrets(**one_time, redirect_uri=place.redirect_uri, scopes=place.scopes, next=next_path)
        pending = Pending(
            purpose=PERSON,
            tenant=browser.principal.tenant,
            principal_id=browser.principal.id,
            platform=place.platform,
            session=browser.principal.session,
            secrets=msgspec.structs.replace(secrets, flavour="sm" if bound else ""),
        )
        async with self._database.transaction() as connection:
            await self._pending.begin(connection, pending)
        cookie = (
            {"session": browser.cookie.session, "max_age": browser.cookie.max_age} if browser.cookie.session else {}
        )
        return answer({"location": location, "state": one_time["state"], **cookie}, "auth.start")

    async def finish(self, call: Call, pending: Pending, asked: Finish) -> Outcome:
        if not same_browser(call, pending) or (pending.secrets.flavour and not asked.bound):
            return _refused(400, "session_mismatch", "State mismatch", "security.session_mismatch")
        if asked.error:
            return _refused(400, "failed", "FHIR callback processing failed", "auth.failure")
        try:
            place = await self._people.place()
            token = await self._smart.exchange(
                place.facts,
                place.client,
                code=asked.code,
                verifier=pending.secrets.verifier,
                redirect_uri=pending.secrets.redirect_uri,
                nonce=pending.secrets.nonce,
                iss=asked.iss,
                scopes=pending.secrets.scopes,
            )
            person = await self._people.principal(place, token, pending.session)
        except (*REFUSALS, Unauthenticated) as error:
            log.info("a person's sign-in failed: %s", error.problem.code)
            return _refused(500, "token_exchange_failed", _FAILED, "auth.failure")
        return await self._let_in(call, place, person, token, pending.secrets.next)

    async def _let_in(
        self, call: Call, place: Place, person: Principal, token: PlatformToken, next_path: str
    ) -> Outcome:
        """A new session with a new secret: what the browser held before signing in is worth nothing afterwards."""
        before = caller(call)
        made = await self._browsers.new(call, None if is_session(person.id) else person)
        if place.platform:
            key = GrantKey(made.principal.tenant, made.principal.id, place.platform)
            async with self._store.exclusively(key) as connection:
                await self._store.write(connection, key, token)
            await self._tell(key)
        await self._end_session(call, before)
        call.principal = made.principal  # the record names who has signed in
        age = min(made.cookie.max_age, seconds_left(token)) if place.platform else made.cookie.max_age
        page = Page(status=200, page="success", location=next_path, session=made.cookie.session, max_age=age)
        return shown(page, "auth.success")


def _require_path(next_path: str) -> None:
    if _PATH.fullmatch(next_path) is None or len(next_path) > 2048:
        raise InvalidRequest("`next` must be a path of this server")


def _refused(status: int, page: str, text: str, event: str) -> Outcome:
    return shown(Page(status=status, page=page, flavour="sm", error={"error": text}), event)

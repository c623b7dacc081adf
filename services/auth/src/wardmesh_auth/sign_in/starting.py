"""The first half of a platform sign-in: the link for an agent, and what happens when a browser opens it (B-4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec

from wardmesh_auth.sessions import is_session
from wardmesh_auth.sign_in.arguments import Open, Start
from wardmesh_auth.sign_in.attempts import Attempts, Begun
from wardmesh_auth.sign_in.browsers import Browser, Browsers, caller
from wardmesh_auth.sign_in.handles import AuthHandles
from wardmesh_auth.sign_in.pending import PendingSignIns
from wardmesh_auth.sign_in.results import Cookie, Page, answer, shown
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadRequest

_MESSAGE = (
    "Ask the user to open authorization_url in a browser, then call wait_for_auth with this platform_id and a timeout "
    "of at most 50 seconds; repeat it while it times out."
)

# Sends the browser to where people sign in here, and afterwards back to the link.
SendsToSignIn = Callable[[Call, str], Awaitable[Outcome]]


class Starting:
    def __init__(
        self,
        attempts: Attempts,
        pending: PendingSignIns,
        browsers: Browsers,
        handles: AuthHandles,
        sign_in_first: SendsToSignIn,
        public_url: str,
    ) -> None:
        self._attempts, self._pending, self._browsers = attempts, pending, browsers
        self._handles, self._sign_in_first = handles, sign_in_first
        self._public_url = public_url.rstrip("/")

    async def start(self, call: Call, asked: Start) -> Outcome:
        """start_auth: nothing is opened yet; the link is good for the principal that asked and nobody else."""
        platform = platform_of(call, asked.platform_id)
        site = await self._attempts.site(platform)
        begun = await self._attempts.begin(site, caller(call), asked, link=True)
        body: dict[str, Any] = {
            "authorization_url": self._link(platform, begun),
            "state": begun.pending.secrets.state,
            "platform_id": platform,
            "auth_handle": self._handles.issue(begun.consent.handle, site.facts.id),
            "message": _MESSAGE,
            "expires_at": int(begun.consent.expires_at),
        }
        return answer(body, "auth.start")

    async def open(self, call: Call, asked: Open) -> Outcome:
        """GET /auth/{platform}/login, with the one-time value of a link or without."""
        if asked.ticket:
            return await self._open_link(call, asked)
        platform = platform_of(call, asked.platform_id)
        site = await self._attempts.site(platform)
        principal = caller(call)
        if not principal.anonymous and not principal.session:
            # A caller with a token of its own is not the browser that will come back: it gets a link.
            begun = await self._attempts.begin(site, principal, asked, link=True)
            return answer({"location": self._link(platform, begun), "state": begun.pending.secrets.state}, "auth.start")
        browser = await self._browsers.known_or_new(call)
        begun = await self._attempts.begin(site, browser.principal, asked, session=browser.principal.session)
        return _go_on(begun.pending.secrets.location, begun.pending.secrets.state, browser)

    async def _open_link(self, call: Call, asked: Open) -> Outcome:
        owner = await self._pending.owner(asked.ticket)
        if owner is None:
            return shown(Page(status=400, page="invalid_state"), "security.invalid_state")
        principal = caller(call)
        if not is_session(owner.principal_id) and (principal.anonymous or is_session(principal.id)):
            platform = platform_of(call, asked.platform_id)
            return await self._sign_in_first(call, self._path(platform, asked.ticket))
        if (owner.tenant, owner.principal_id) != (principal.tenant, principal.id):
            # Somebody opened a link that another one had asked for: the platform must not even see it.
            return shown(
                Page(status=400, page="session_mismatch", platform_id=owner.platform), "security.session_mismatch"
            )
        if not principal.session:
            raise BadRequest("the link is for a browser, not for a client with a token")
        opened = await self._pending.open(asked.ticket, owner, principal.session)
        if opened is None:
            return shown(Page(status=400, page="invalid_state"), "security.invalid_state")
        return _go_on(opened.secrets.location, opened.secrets.state, Browser(principal, Cookie()))

    def _link(self, platform: str, begun: Begun) -> str:
        return f"{self._public_url}{self._path(platform, begun.ticket)}"

    def _path(self, platform: str, ticket: str) -> str:
        return f"/auth/{quote(platform, safe='')}/login?session={quote(ticket, safe='')}"


def _go_on(location: str, state: str, browser: Browser) -> Outcome:
    cookie = {name: value for name, value in msgspec.structs.asdict(browser.cookie).items() if value}
    return answer({"location": location, "state": state, **cookie}, "auth.start")


def platform_of(call: Call, named: str) -> str:
    """The gateway has resolved aliases: the call's own platform counts, the argument only says the same."""
    platform = call.platform or named
    if not platform:
        raise BadRequest("platform_id is missing")
    return platform

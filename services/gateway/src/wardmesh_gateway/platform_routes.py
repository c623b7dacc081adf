"""Sign-in at one platform over REST: login, status, wait, logout (FG-11)."""

from __future__ import annotations

import re
from typing import Any

from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.asgi import Request, Send
from wardmesh_gateway.browser import Browser, parameters
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.same_site import require_header
from wardmesh_gateway.sign_in import SignIn
from wardmesh_gateway.waiting import Waiters

LONGEST_WAIT = 300
_ALREADY = {"success": False, "message": "Authentication timed out or already waiting"}
_NO = frozenset({"false", "0", "no", "off"})


class PlatformRoutes:
    """The platform in the path may be an alias; what is asked of auth names the real one."""

    def __init__(self, entrance: Entrance, browser: Browser, sign_in: SignIn, waiters: Waiters) -> None:
        self._entrance, self._browser, self._sign_in, self._waiters = entrance, browser, sign_in, waiters

    async def login(self, request: Request, send: Send, name: str) -> None:
        """302 to the platform, or with `redirect=false` its address; both set the session cookie (X-4)."""
        facts = self._sign_in.platform(name, Face.REST)
        visit = await self._entrance.visit(request)
        given = parameters(request)
        redirect = given.get("redirect", "").lower() not in _NO
        arguments: dict[str, Any] = {"platform_id": facts.id, "redirect": redirect}
        arguments |= {key: given[key] for key in ("launch", "iss") if key in given}
        if "session" in given:
            arguments["ticket"] = given["session"]
        if scopes := re.split(r"[\s,]+", given.get("scopes", "").strip(" ,")):
            arguments["scopes"] = [scope for scope in scopes if scope]
        said = await self._browser.run("open_auth", arguments, visit, request)
        cookies = self._browser.session_cookies(said)
        location = said.text("location")
        if not location:
            await self._browser.send_page(send, said, cookies)
        elif redirect:
            await self._browser.send_on(send, location, cookies, call_id=said.call_id)
        else:
            body = {"authorization_url": location, "state": said.text("state"), "platform_id": facts.id}
            await self._browser.send_json(send, body, cookies, call_id=said.call_id)

    async def status(self, request: Request, send: Send) -> None:
        """What this session or token has signed in to; an empty object for a new one."""
        visit = await self._entrance.visit(request)
        said = await self._browser.run("get_auth_status", {}, visit, request)
        rows = {name: _row(state) for name, state in said.object.get("platforms", {}).items()}
        await self._browser.send_json(send, {"platforms": rows}, [], call_id=said.call_id)

    async def wait(self, request: Request, send: Send, name: str) -> None:
        """Until the sign-in is done; one waiter per caller and platform, on whichever replica."""
        facts = self._sign_in.platform(name, Face.REST)
        seconds = _seconds(parameters(request).get("timeout", ""))
        visit = await self._entrance.visit(request)
        async with self._waiters.only(_waiter(visit, facts.id)) as mine:
            if not mine:
                await self._browser.send_json(send, _ALREADY, [])
                return
            work = self._sign_in.wait(facts.id, seconds, visit, Face.REST, request.header(b"traceparent"))
            said, answered = await request.unless_hung_up(work)
        if said.get("success"):
            body = {"success": True, "message": "Authentication completed", "expires_in": said.get("expires_in")}
        else:
            body = _ALREADY
        await self._browser.send_json(send, body, [], call_id=answered.call_id)

    async def logout(self, request: Request, send: Send, name: str) -> None:
        """Revoked at the platform where it can be, deleted here in any case."""
        require_header(request)
        facts = self._sign_in.platform(name, Face.REST)
        visit = await self._entrance.visit(request)
        said, call_id = await self._sign_in.revoke(facts.id, visit, request.header(b"traceparent"))
        body = {
            "success": True,
            "message": f"Logged out from {facts.id}",
            "token_revoked": bool(said.get("token_revoked")),
        }
        await self._browser.send_json(send, body, [], call_id=call_id)


def _row(state: dict[str, Any]) -> dict[str, Any]:
    """A status in the words of the REST contract."""
    return {
        "platform_id": state.get("platform_id"),
        "authenticated": state.get("authenticated"),
        "has_token": state.get("has_token"),
        "token_expires_at": state.get("expires_at"),
        "scopes": state.get("scopes", []),
    }


def _seconds(text: str) -> int:
    if not text:
        return LONGEST_WAIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= LONGEST_WAIT:
        raise BadRequest(f"Invalid timeout: a whole number from 1 to {LONGEST_WAIT} is expected.")
    return int(text)


def _waiter(visit: Visit, platform: str) -> str:
    """Who waits; only ever kept as a digest."""
    who = visit.caller.cookie if visit.token is None else visit.token.principal_id
    return f"{who}\x1f{platform}"

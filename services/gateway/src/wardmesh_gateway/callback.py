"""Where platforms and our own issuer send a browser back to: pages of FG-12, JSON of SM-3, or on to where it began."""

from __future__ import annotations

from collections.abc import Sequence

from wardmesh_common.errors import RateLimited, WardmeshError
from wardmesh_gateway.asgi import Header, Request, Send
from wardmesh_gateway.browser import Browser, Said, parameters, wants_page
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.cookies import SmLogin, sm_login
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.pages import HTML, result_page
from wardmesh_gateway.problem import rest_detail

_MOST = 4096
_INCOMPLETE = "Missing code or state from callback"
_FAILED = "FHIR callback processing failed"


class Callback:
    """`state` decides whose way back this is (C-4); an SM login is recognised by the cookies of its browser."""

    def __init__(self, entrance: Entrance, browser: Browser, keys: Sequence[bytes], *, limit: int) -> None:
        self._entrance, self._browser, self._keys, self._limit = entrance, browser, keys, limit

    async def __call__(self, request: Request, send: Send, path_platform: str) -> None:
        try:
            self._entrance.ration("callback", request, self._limit)
            visit = await self._entrance.visit(request)
        except RateLimited as error:
            if not wants_page(request):
                raise
            await self._entrance.refuse(error.problem, request, send, lambda _: result_page("too_many_requests"), HTML)
            return
        given = {name: value[:_MOST] for name, value in parameters(request).items()}
        login = sm_login(request.scope)
        state = given.get("state", "")
        mine = bool(state) and login.state == state
        if mine and (complaint := _sm_complaint(given, login, self._keys)):
            await self._sm_error(send, 400, {"error": complaint})
            return
        await self._finish(request, send, visit, given, path_platform, mine)

    async def _finish(
        self, request: Request, send: Send, visit: Visit, given: dict[str, str], path_platform: str, sm: bool
    ) -> None:
        arguments: dict[str, object] = {
            name: given[name] for name in ("code", "state", "error", "iss") if name in given
        }
        arguments |= {"path_platform": path_platform, "bound": sm}
        try:
            said = await self._browser.run("finish_auth", arguments, visit, request)
        except WardmeshError as error:
            if wants_page(request) and not sm:
                raise
            body = {"error": _FAILED, "details": rest_detail(error.problem)}
            await self._sm_error(send, 500, body, error.call_id)
            return
        await self._answer(request, send, said, given, sm)

    async def _answer(self, request: Request, send: Send, said: Said, given: dict[str, str], sm: bool) -> None:
        cookies = self._browser.session_cookies(said, sm=sm)
        if sm:
            cookies += self._browser.cookies.without_login()
        if location := said.text("location"):
            await self._browser.send_on(send, location, cookies, call_id=said.call_id)
            return
        error = said.object.get("error")
        # SM-3 has no word for a person who said no: that person gets a page.
        declined = said.text("page") == "failed" and wants_page(request)
        if sm and error and not declined:
            await self._sm_error(send, said.status, error, said.call_id, cookies)
        elif _nobodys(said, given) and not wants_page(request):
            body = {"error": _unknown(given, sm_login(request.scope), self._keys)}
            await self._sm_error(send, 400, body, said.call_id, cookies)
        else:
            await self._browser.send_page(send, said, cookies)

    async def _sm_error(
        self,
        send: Send,
        status: int,
        body: dict[str, str],
        call_id: str = "",
        cookies: Sequence[Header] = (),
    ) -> None:
        await self._browser.send_json(send, body, [*cookies], status=status, call_id=call_id)


def _sm_complaint(given: dict[str, str], login: SmLogin, keys: Sequence[bytes]) -> str:
    if not given.get("code") and not given.get("error"):
        return _INCOMPLETE
    return login.complaint(given["state"], keys)


def _nobodys(said: Said, given: dict[str, str]) -> bool:
    """The state is missing or unknown: then `Accept` decides how that is said (C-4)."""
    page = said.text("page")
    if page == "invalid_request":
        return not given.get("state")
    return page == "invalid_state" or (page == "failed" and not said.text("platform_id"))


def _unknown(given: dict[str, str], login: SmLogin, keys: Sequence[bytes]) -> str:
    """What SM-3 calls a callback that belongs to nothing."""
    if not given.get("state") or not given.get("code"):
        return _INCOMPLETE
    return login.complaint(given["state"], keys) or "State mismatch"

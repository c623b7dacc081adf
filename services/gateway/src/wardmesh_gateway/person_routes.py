"""A person at this gateway itself: the start page, login and logout (SM-1, SM-2, SH-22)."""

from __future__ import annotations

from collections.abc import Sequence

from wardmesh_common.errors import RateLimited, WardmeshError
from wardmesh_gateway.asgi import Header, Request, Send, respond
from wardmesh_gateway.browser import NO_STORE, Browser, asked, parameters
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.pages import HTML, Connection, start_page
from wardmesh_gateway.problem import rest_detail
from wardmesh_gateway.same_site import SameSite

_YES = frozenset({"true", "1", "yes", "on"})
_ENVIRONMENT = "Some environment variables are missing or are invalid"


class PersonRoutes:
    """What is shown here names nobody."""

    def __init__(
        self, entrance: Entrance, browser: Browser, platforms: Platforms, same_site: SameSite, keys: Sequence[bytes]
    ) -> None:
        self._entrance, self._browser, self._platforms = entrance, browser, platforms
        self._same_site, self._keys = same_site, keys

    async def start(self, request: Request, send: Send) -> None:
        """`/`: where a login ends."""
        visit = await self._entrance.visit(request)
        headers: list[Header] = [HTML, NO_STORE]
        if visit.anonymous:
            await respond(send, 200, headers, start_page(known=False, connections=()))
            return
        said = await self._browser.run("get_auth_status", {}, visit, request)
        held = said.object.get("platforms", {})
        rows = [Connection(self._name(name), bool(state.get("authenticated"))) for name, state in held.items()]
        rows.sort(key=lambda row: row.name.lower())
        await respond(send, 200, [*headers, *asked(said.call_id)], start_page(known=True, connections=rows))

    async def login(self, request: Request, send: Send) -> None:
        """302 to where people sign in; the cookies bind the way back to this browser."""
        visit = await self._entrance.visit(request)
        given = parameters(request)
        try:
            arguments = {"next": given.get("next", "/"), "bound": True}
            if given.get("again", "").lower() in _YES:
                arguments["again"] = True
            said = await self._browser.run("sign_in", arguments, visit, request)
        except RateLimited:
            raise
        except WardmeshError as error:
            await self._failed(send, error)
            return
        # The state as auth made it: the address is partly the word of the place where people sign in.
        login = self._browser.cookies.login(said.text("state"), self._keys[0])
        cookies = [*self._browser.session_cookies(said), *login]
        await self._browser.send_on(send, said.text("location"), cookies, call_id=said.call_id)

    async def logout(self, request: Request, send: Send) -> None:
        """Ends the session on our side; a link on somebody else's page does not."""
        visit = await self._entrance.visit(request)
        call_id = ""
        if not visit.anonymous:
            self._same_site.own_page(request)
            everywhere = parameters(request).get("everywhere", "").lower() in _YES
            said = await self._browser.run("sign_out", {"everywhere": everywhere}, visit, request)
            call_id = said.call_id
        await self._browser.send_on(send, "/", self._browser.cookies.without_session(request.headers), call_id=call_id)

    async def _failed(self, send: Send, error: WardmeshError) -> None:
        """In the words of SM-1 and SM-3; details are texts of ours and hold no secret."""
        detail, status = rest_detail(error.problem), 500
        if error.problem.code == "oauth_not_configured":
            body = {"code": "BAD_ENVIRONMENT", "message": _ENVIRONMENT, "errors": detail}
        else:
            body = {"error": "FHIR Login initiation failed", "details": detail}
            status = 400 if error.problem.status == 400 else 500  # a wrong parameter is no failure of ours
        await self._browser.send_json(send, body, [], status=status, call_id=error.call_id)

    def _name(self, platform: str) -> str:
        facts = self._platforms.platform(platform)
        return facts.name if facts is not None else platform

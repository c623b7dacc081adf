"""A browser at the door of sign-in: procedures in its name, cookies, and errors as pages when it wants pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_common.errors import BadRequest, Problem
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.asgi import Header, Request, Send, respond
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.cookies import CookieWords
from wardmesh_gateway.entrance import Render
from wardmesh_gateway.pages import HTML, result_page
from wardmesh_gateway.problem import JSON, rest, rest_detail
from wardmesh_gateway.sign_in import SignIn

NO_STORE: Header = (b"cache-control", b"no-store")
_OVER = "invalid_token"

Json = dict[str, Any]


class Said(Struct, frozen=True):
    """What a procedure answered: its object, the status of the page that it stands for, the id of its record."""

    object: Json
    status: int
    call_id: str

    def text(self, name: str) -> str:
        value = self.object.get(name)
        return value if isinstance(value, str) else ""


class Browser:
    """Shared by the routes; keeps nothing."""

    def __init__(self, sign_in: SignIn, cookies: CookieWords) -> None:
        self._sign_in = sign_in
        self.cookies = cookies

    async def run(self, name: str, arguments: Mapping[str, Any], visit: Visit, request: Request) -> Said:
        """A procedure that anyone may start. A cookie whose session is over counts as no cookie."""
        try:
            return await self._run(name, arguments, visit, request)
        except Refused as refused:
            if refused.problem.code != _OVER or visit.token is not None or not visit.caller.cookie:
                raise
        stranger = msgspec.structs.replace(visit.caller, cookie="")
        return await self._run(name, arguments, msgspec.structs.replace(visit, caller=stranger), request)

    async def _run(self, name: str, arguments: Mapping[str, Any], visit: Visit, request: Request) -> Said:
        traceparent = request.header(b"traceparent")
        work = self._sign_in.run(name, arguments, visit, Face.REST, anyone=True, traceparent=traceparent)
        answered = await request.unless_hung_up(work)
        said = msgspec.json.decode(answered.body, type=dict[str, Any])
        return Said(said, answered.status, answered.call_id)

    def session_cookies(self, said: Said, *, sm: bool = False) -> list[Header]:
        """The cookie of a session that the procedure has opened; nothing when it opened none."""
        secret = said.text("session")
        return self.cookies.session(secret, int(said.object.get("max_age", 0)), sm=sm) if secret else []

    # --- answers ---

    async def send_json(
        self, send: Send, said: Mapping[str, Any], headers: list[Header], *, status: int = 200, call_id: str = ""
    ) -> None:
        await respond(send, status, [JSON, NO_STORE, *asked(call_id), *headers], msgspec.json.encode(said))

    async def send_on(self, send: Send, location: str, headers: list[Header], *, call_id: str = "") -> None:
        """A redirect. Locations come from auth or are paths of ours, never from the request."""
        target = location.encode("ascii", "ignore").translate(None, b"\r\n")
        await respond(send, 302, [(b"location", target), NO_STORE, *asked(call_id), *headers], b"")

    async def send_page(self, send: Send, said: Said, headers: list[Header]) -> None:
        page = result_page(said.text("page"), platform=said.text("platform_name") or said.text("platform_id"))
        await respond(send, said.status, [HTML, NO_STORE, *asked(said.call_id), *headers], page)

    # --- errors ---

    def type(self, request: Request) -> Header:
        return HTML if wants_page(request) else JSON

    def render(self, request: Request) -> Render:
        return page_of if wants_page(request) else rest


def wants_page(request: Request) -> bool:
    """True when `Accept` names HTML: a person looks at the answer."""
    return "text/html" in request.joined(b"accept").lower()


def page_of(problem: Problem) -> bytes:
    if problem.status == 429:
        return result_page("too_many_requests")
    if problem.status >= 500:
        return result_page("unavailable")
    return result_page("problem", detail=rest_detail(problem))


def asked(call_id: str) -> list[Header]:
    return [(b"x-request-id", call_id.encode())] if call_id else []


def parameters(request: Request) -> dict[str, str]:
    """The query, the first value of each name. Raises BadRequest."""
    try:
        found = parse_qs(request.query, max_num_fields=32)
    except ValueError:
        raise BadRequest("The query has too many parameters.") from None
    return {name: values[0] for name, values in found.items()}

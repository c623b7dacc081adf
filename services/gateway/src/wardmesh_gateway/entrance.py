"""What every raw route does first and last: who is it, is there budget left; and how an error leaves in its shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from wardmesh_common.contracts import Reply
from wardmesh_common.errors import Internal, Problem, Unauthenticated, WardmeshError
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.asgi import Header, HungUp, Message, Request, Send, respond
from wardmesh_gateway.caller import Callers, Visit
from wardmesh_gateway.problem import Challenges
from wardmesh_gateway.ratelimit import RateLimits, address_key
from wardmesh_gateway.same_site import SameSite
from wardmesh_gateway.security_records import SecurityRecords, event_of

_log = logging.getLogger("wardmesh.gateway")

Render = Callable[[Problem], bytes]
Route = Callable[[Request, Send], Awaitable[None]]

# So many times the general budget all sessions of one address have together.
SESSIONS_PER_ADDRESS = 10

# PX-4: what a caller may say to a platform, and what of the platform's answer reaches the caller.
REQUEST_HEADERS = {
    name.encode(): name for name in ("if-match", "if-none-match", "if-modified-since", "if-none-exist", "prefer")
}
RESPONSE_HEADERS = {
    name: name.encode()
    for name in (
        "etag",
        "last-modified",
        "location",
        "content-location",
        "content-encoding",
        "retry-after",
        "x-progress",
        "expires",
        "vary",
    )
}


class Entrance:
    """Identifies the caller and charges its budget."""

    def __init__(
        self,
        callers: Callers,
        limits: RateLimits,
        challenges: Challenges,
        same_site: SameSite,
        security: SecurityRecords,
    ) -> None:
        self._callers = callers
        self._limits = limits
        self._challenges = challenges
        self._same_site = same_site
        self._security = security

    async def visit(self, request: Request, *, form: bool = False) -> Visit:
        """Raises Unauthenticated, RateLimited, Unavailable. Bad tokens are paid for by their address.

        `form`: a form of our own page, whose token the route compares: no form can send a header.
        """
        try:
            visit = await self._callers.visit(request.scope)
        except Unauthenticated:
            self._limits.take(address_key(self._callers.address(request.scope)))
            raise
        self._limits.take(visit.budget)
        if visit.own_session:
            # Sessions are free to open: a hundred of them must not be a hundred budgets.
            self.ration("sessions", request, self._limits.limit * SESSIONS_PER_ADDRESS)
        if visit.caller.cookie:
            (self._same_site.own_page if form else self._same_site.check)(request)
        return visit

    def stranger(self, request: Request) -> Visit:
        """For routes where who somebody is stands in the body: no credential is looked at. Raises RateLimited."""
        visit = self._callers.stranger(request.scope)
        self._limits.take(visit.budget)
        return visit

    def ration(self, purpose: str, request: Request, limit: int) -> None:
        """A tighter budget per address for one purpose. Raises RateLimited."""
        self._limits.take(f"{purpose}:{address_key(self._callers.address(request.scope))}", limit)

    async def run(self, route: Route, request: Request, send: Send, render: Render, media_type: Header) -> None:
        """Run a route and turn whatever it raises into the face's own shape."""
        started = False
        call_id = ""

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await route(request, watched)
            return
        except HungUp:
            return
        except WardmeshError as error:
            problem, call_id = error.problem, error.call_id
        except Exception:  # noqa: BLE001
            # The edge: a bug of ours becomes an answer, and its place a line in the log.
            _log.exception("unexpected failure in a route")
            problem = Internal("Something went wrong inside the mesh.").problem
        if started:
            # Half of an answer is out. Left unfinished, the server closes the connection short of its length.
            _log.warning("an answer broke off: %s", problem.code)
            return
        await self.refuse(problem, request, send, render, media_type, call_id)

    async def refuse(
        self, problem: Problem, request: Request, send: Send, render: Render, media_type: Header, call_id: str = ""
    ) -> None:
        """`call_id`, when a call was made, is what the ledger calls this refusal."""
        token_sent = bool(request.header(b"authorization"))
        if not call_id:
            self._note(problem, request, credential=token_sent)
        headers = [media_type, *self._challenges.headers(problem, token_sent=token_sent)]
        if call_id:
            headers.append((b"x-request-id", call_id.encode()))
        await respond(send, problem.status, headers, render(problem), head=request.method == "HEAD")

    def _note(self, problem: Problem, request: Request, *, credential: bool) -> None:
        """No call was made, so no station has recorded this (FG-19)."""
        event = event_of(problem, credential=credential)
        if event:
            face = Face.FHIR if request.path.startswith("/fhir/") else Face.REST
            self._security.note(event, problem, self._callers.stranger(request.scope).caller, face)


def request_headers(request: Request) -> dict[str, str]:
    """The conditional headers of a request, for the platform."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        kept = REQUEST_HEADERS.get(name)
        if kept is not None:
            found[kept] = value.decode("latin-1").strip()
    return found


def response_headers(reply: Reply, platform: str) -> list[Header]:
    """What of the platform's headers may reach the caller, which platform answered (FG-27: maybe a stand-in), and the
    id under which the audit ledger knows this call."""
    answered = (b"x-wardmesh-platform", platform.encode())
    asked = (b"x-request-id", reply.call_id.encode())
    kept = ((RESPONSE_HEADERS.get(name.lower()), value) for name, value in reply.headers.items())
    return [answered, asked, *((name, value.encode("latin-1")) for name, value in kept if name is not None)]


def as_json(media_type: str) -> Header:
    return (b"content-type", media_type.encode("latin-1"))

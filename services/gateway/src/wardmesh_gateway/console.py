"""The page for compliance at /console/audit: every view is rendered here and asks the ledger through the one door."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from wardmesh_common.errors import (
    BadRequest,
    Denied,
    NotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
    WardmeshError,
)
from wardmesh_gateway import console_events, console_logs, console_views
from wardmesh_gateway.asgi import Header, Message, Request, Send, respond
from wardmesh_gateway.audit_door import Asked, AuditDoor
from wardmesh_gateway.audit_routes import EVENTS, TAIL, asked_events, parameters, typed
from wardmesh_gateway.audit_tail import SSE, Tails
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.console_markup import Part, tag
from wardmesh_gateway.console_page import HOME, HTML, NO_STORE, PAGE_POLICY, ROOT, STATIC, filters, notice, page
from wardmesh_gateway.console_refusals import refusal_at
from wardmesh_gateway.entrance import Entrance

_FILES = Path(__file__).with_name("static")
_STATIC = {
    f"{STATIC}/console.css": ("console.css", b"text/css; charset=utf-8"),
    f"{STATIC}/console.js": ("console.js", b"text/javascript; charset=utf-8"),
    f"{STATIC}/icon.svg": ("icon.svg", b"image/svg+xml"),
}
_MOST_FORM = 32 * 1024
_PAGE_EVENTS = 50
_LABEL = b"wardmesh console csrf v1:"
_event = re.compile(rf"{ROOT}/event/([0-9a-f-]{{36}})").fullmatch
_review = re.compile(rf"{ROOT}/reviews/([0-9a-f-]{{36}})").fullmatch


def _row(cursor: str, line: bytes) -> bytes:
    """A live row is HTML made here; it has no line break, so it is one line of data."""
    html = console_events.row(line).encode()
    return b"id: %b\nevent: row\ndata: %b\n\n" % (cursor.encode(), html)


_ROWS = msgspec.structs.replace(SSE, event=_row)


class Console:
    """Signs nobody in: a browser without a session is sent to /auth/login and comes back."""

    def __init__(self, door: AuditDoor, entrance: Entrance, tails: Tails, key: bytes) -> None:
        self._door = door
        self._entrance = entrance
        self._tails = tails
        self._key = key
        self._logs: list[int] = []

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, _protected(send), refusal_at(request), HTML)

    async def _route(self, request: Request, send: Send) -> None:
        if request.path in _STATIC:
            await _file(request, send)
            return
        if request.path.rstrip("/") == HOME:
            await respond(send, 303, [(b"location", ROOT.encode())], b"")
            return
        try:
            visit = await self._visit(request)
            await self._view(request, send, visit)
        except WardmeshError as error:
            streaming = request.header(b"accept").startswith("text/event-stream")
            if error.problem.status != 401 or request.method != "GET" or streaming:
                raise
            onward = urlencode({"next": request.path})
            headers = [(b"location", f"/auth/login?{onward}".encode()), NO_STORE]
            await respond(send, 303, headers, b"")

    async def _visit(self, request: Request) -> Visit:
        """A form of ours carries its own token instead of the header that scripts send."""
        visit = await self._entrance.visit(request, form=request.method == "POST")
        if visit.anonymous:
            raise Unauthenticated("Sign in to see this page.")
        return visit

    async def _view(self, request: Request, send: Send, visit: Visit) -> None:
        path, method = request.path.rstrip("/"), request.method
        if method not in ("GET", "POST"):
            raise NotAllowed("This method is not offered here.")
        if method == "POST":
            await self._posted(request, send, visit)
        elif path == f"{ROOT}/stream":
            await self._stream(request, send, visit)
        elif path == ROOT:
            await _page(send, await self._live(request, visit))
        elif path == f"{ROOT}/events":
            await _page(send, await self._search(request, visit))
        elif path == f"{ROOT}/patient":
            form = console_views.patient_form(self._csrf(visit), {})
            await _page(send, page("patient", "Who accessed a record", form))
        elif path == f"{ROOT}/reviews":
            await _page(send, await self._reviews(request, visit))
        elif path == f"{ROOT}/verification":
            status = await self._status(request, visit)
            await _page(send, page("verification", "Verification", console_views.verification(status)))
        elif found := _event(path):
            line = await self._ask(Asked(tool="read_event", arguments={"id": found[1]}), request, visit)
            await _page(send, page("", "Event", console_events.detail(line)))
        else:
            raise NotFound("There is nothing at this address.")

    # --- views ---

    async def _live(self, request: Request, visit: Visit) -> bytes:
        given = parameters(request, TAIL)
        status = await self._status(request, visit)
        shown = self._shown(given)
        found = await console_logs.search(self._asking(request, visit), _newest(given), shown, _PAGE_EVENTS)
        rows = [console_events.row_of(line) for line in found.events]
        start = console_logs.start_of([each for each in status["logs"] if each["log"] in shown], found.events)
        stream = f"{ROOT}/stream?{urlencode({**given, 'cursor': start} if start else given)}"
        controls = tag(
            "div",
            tag("button", "Pause", type="button", id="pause", aria_pressed="false", aria_keyshortcuts="p"),
            tag("span", "Connecting", id="state", role="status"),
            class_="controls",
        )
        table = tag("div", console_events.table(rows, live=True), id="live", data_stream=stream)
        form = filters(ROOT, given, live=True, logs=self._logs)
        return page("live", "Live", console_views.strip(status), form, controls, table)

    async def _stream(self, request: Request, send: Send, visit: Visit) -> None:
        """Every log that the page shows in one stream; a browser that comes back says where it was in each."""
        given = parameters(request, TAIL)
        if not self._logs:
            await self._status(request, visit)
        place = request.header(b"last-event-id") or given.pop("cursor", "")
        given.pop("cursor", None)
        cursors = console_logs.split(place)
        followed = [
            {**given, "log": str(log), **({"cursor": cursors[log]} if log in cursors else {})}
            for log in self._shown(given)
        ]
        asked = [asked_events(each, self._door, "follow_events", request.query) for each in followed]
        await self._tails.serve(asked, request, send, visit, _ROWS)

    async def _search(self, request: Request, visit: Visit) -> bytes:
        given = parameters(request, EVENTS)
        if not self._logs:
            await self._status(request, visit)
        wanted = dict(given) if "sort" in given else _newest(given)
        # What is sorted by an element has cursors that only its log understands.
        shown = self._shown(given)[:1] if "sort" in given else self._shown(given)
        limit = int(str(typed(given).get("limit", _PAGE_EVENTS)))
        found = await console_logs.search(self._asking(request, visit), wanted, shown, limit)
        rows = [console_events.row_of(line) for line in found.events]
        onward: Part = None
        if found.next:
            query = urlencode({**given, "cursor": found.next})
            onward = tag("p", tag("a", "Next page", href=f"{ROOT}/events?{query}", class_="button", rel="next"))
        table = console_events.table(rows) if rows else notice("quiet", "No event matches.")
        form = filters(f"{ROOT}/events", given, live=False, logs=self._logs)
        narrowed = len(shown) < len(self._shown(given))
        said = notice("quiet", f"Sorted: log {shown[0]} only. Choose another log above.") if narrowed else None
        return page("search", "Search", form, said, table, onward)

    def _shown(self, given: Mapping[str, str]) -> list[int]:
        """The log that was chosen, or all of them."""
        log = typed({"log": given["log"]})["log"] if "log" in given else None
        return list(self._logs) if log is None else [log]

    def _asking(self, request: Request, visit: Visit) -> console_logs.Ask:
        async def ask(given: dict[str, str]) -> Mapping[str, Any]:
            return await self._ask(asked_events(given, self._door, "read_events", request.query), request, visit)

        return ask

    async def _status(self, request: Request, visit: Visit) -> dict[str, Any]:
        """How the ledger stands; which logs there are is remembered, it only changes with a deployment."""
        status = await self._ask(Asked(tool="read_status", arguments={}), request, visit)
        self._logs = [each["log"] for each in status["logs"]]
        return status

    async def _reviews(self, request: Request, visit: Visit, *, said: Part = None) -> bytes:
        status = parameters(request, frozenset({"status"})).get("status", "open")
        asked = Asked(tool="list_reviews", arguments={"status": status})
        found = await self._ask(asked, request, visit)
        other = "closed" if status == "open" else "open"
        link = tag(
            "p",
            tag("a", f"Show {other} reviews", href=f"{ROOT}/reviews?status={other}", class_="button"),
            " ",
            tag("a", "All reviews as CSV", href="/v1/reviews?status=all&format=csv", download=True, class_="button"),
            " ",
            tag("a", "What the rules look for", href="/docs/detection", class_="button"),
            class_="buttons",
        )
        queue = console_views.reviews(found["reviews"], self._csrf(visit))
        return page("reviews", f"Reviews: {status}", said, queue, link)

    # --- forms ---

    async def _posted(self, request: Request, send: Send, visit: Visit) -> None:
        given = await _form(request)
        if not hmac.compare_digest(given.pop("csrf", ""), self._csrf(visit)):
            raise Denied("This form is too old. Load the page again.")
        path = request.path.rstrip("/")
        if path == f"{ROOT}/patient":
            await _page(send, await self._patient(given, request, visit))
        elif found := _review(path):
            arguments = {"id": found[1], "outcome": given.get("outcome", ""), "evidence": given.get("evidence", "")}
            await self._ask(Asked(tool="close_review", arguments=arguments), request, visit)
            await respond(send, 303, [(b"location", f"{ROOT}/reviews".encode()), NO_STORE], b"")
        else:
            raise NotFound("There is nothing at this address.")

    async def _patient(self, given: dict[str, str], request: Request, visit: Visit) -> bytes:
        platform, patient, reference = self._door.about(given.get("patient", ""), given.get("platform", ""))
        period = {name: given[name] for name in ("from", "to") if given.get(name)}
        asked = Asked(
            tool="access_report", arguments={**typed(period), "patient": reference}, platform=platform, patient=patient
        )
        report = await self._ask(asked, request, visit)
        form = console_views.patient_form(self._csrf(visit), given)
        alerts = await self._alerts(report["about"], period, request, visit) if report["lines"] else []
        return page("patient", "Who accessed a record", form, console_views.timeline(report, alerts))

    async def _alerts(
        self, pseudonym: str, period: Mapping[str, str], request: Request, visit: Visit
    ) -> list[Mapping[str, Any]]:
        """About one patient; none for who may see who read a record, but not the events: the patient himself."""
        wanted = _newest({**period, "type": "alert", "pseudonym": pseudonym})
        try:
            if not self._logs:
                await self._status(request, visit)
            return (await console_logs.search(self._asking(request, visit), wanted, self._logs, _PAGE_EVENTS)).events
        except WardmeshError as error:
            if error.problem.status != 403:
                raise
            return []

    # --- shared ---

    async def _ask(self, asked: Asked, request: Request, visit: Visit) -> dict[str, Any]:
        body = await request.unless_hung_up(self._door.answer(asked, request, visit))
        return msgspec.json.decode(body)

    def _csrf(self, visit: Visit) -> str:
        """Bound to the session; who authenticates otherwise is no browser that could be tricked."""
        return hmac.new(self._key, _LABEL + visit.caller.cookie.encode(), sha256).hexdigest()


def _newest(given: Mapping[str, str]) -> dict[str, str]:
    return {"order": "newest", **given}


async def _page(send: Send, body: bytes) -> None:
    await respond(send, 200, [HTML, NO_STORE], body)


def _protected(send: Send) -> Send:
    """Every page of the console, refusals included, under the console's own policy."""

    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start" and HTML in message["headers"]:
            message["headers"] = [*message["headers"], PAGE_POLICY]
        await send(message)

    return protected


async def _file(request: Request, send: Send) -> None:
    if request.method not in ("GET", "HEAD"):
        raise NotAllowed("This method is not offered here.")
    name, media_type = _STATIC[request.path]
    headers: list[Header] = [(b"content-type", media_type), (b"cache-control", b"no-cache")]
    await respond(send, 200, headers, (_FILES / name).read_bytes(), head=request.method == "HEAD")


async def _form(request: Request) -> dict[str, str]:
    if request.header(b"content-type").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise BadRequest("A form was expected.")
    body = await request.body()
    if len(body) > _MOST_FORM:
        raise TooLarge("The form is too long.")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=16, errors="strict"))
    except ValueError:
        raise BadRequest("The form cannot be read.") from None

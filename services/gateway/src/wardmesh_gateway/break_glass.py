"""Emergency access at the gateway: opened and closed here by a person at a browser, used by a header on any face."""

from __future__ import annotations

from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.asgi import Request, Send
from wardmesh_gateway.bodies import check_json, media_type_of
from wardmesh_gateway.browser import Browser
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.sign_in import SignIn

_SHOWN = "Invalid body: a JSON object with platform_id, patient_id, reason_code and reason is expected."


class _Open(msgspec.Struct, frozen=True):
    platform_id: str
    patient_id: str
    reason_code: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        return "_Open(...)"


class _Close(msgspec.Struct, frozen=True):
    platform_id: str
    break_glass: str

    def __repr__(self) -> str:
        return "_Close(...)"


class BreakGlassRoutes:
    """Auth issues the pass when policy lets it; nothing is kept here."""

    def __init__(self, entrance: Entrance, browser: Browser, sign_in: SignIn) -> None:
        self._entrance, self._browser, self._sign_in = entrance, browser, sign_in

    async def open(self, request: Request, send: Send) -> None:
        given = await self._given(request, _Open, _SHOWN)
        asked = msgspec.structs.asdict(given)
        await self._run("open_break_glass", given.platform_id, asked, request, send)

    async def close(self, request: Request, send: Send) -> None:
        shown = "Invalid body: a JSON object with platform_id and break_glass is expected."
        given = await self._given(request, _Close, shown)
        await self._run("close_break_glass", given.platform_id, {"emergency": given.break_glass}, request, send)

    async def _run(self, name: str, platform: str, asked: dict[str, Any], request: Request, send: Send) -> None:
        visit = await self._entrance.visit(request)
        arguments = asked | {"platform_id": self._sign_in.reached(platform).id}
        traceparent = request.header(b"traceparent")
        work = self._sign_in.run(name, arguments, visit, Face.REST, traceparent=traceparent)
        answered = await request.unless_hung_up(work)
        said = msgspec.json.decode(answered.body, type=dict[str, Any])
        await self._browser.send_json(send, said, [], call_id=answered.call_id)

    async def _given(self, request: Request, shape: type[Any], shown: str) -> Any:
        check_json(media_type_of(request.header(b"content-type")))
        try:
            return msgspec.json.decode(await request.body(), type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
            raise BadRequest(shown) from None

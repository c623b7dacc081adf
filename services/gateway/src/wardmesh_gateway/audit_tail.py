"""Following the ledger over HTTP: server-sent events or NDJSON, resumed by cursor, with a sign of life in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.errors import BadRequest, Busy, Problem, WardmeshError
from wardmesh_gateway.asgi import Header, Request, Send
from wardmesh_gateway.audit_door import Asked
from wardmesh_gateway.caller import Visit

WAIT_SECONDS = 15.0
MOST_CALLS = 32  # of one replica: every log that somebody follows has one under way all the time
_NO_STORE: Header = (b"cache-control", b"no-store")
_NO_BUFFER: Header = (b"x-accel-buffering", b"no")


class TailedEvent(Struct):
    """What following needs of an event; the rest is passed on as it came."""

    cursor: str


class Batch(Struct):
    events: list[msgspec.Raw]
    cursor: str


class Form(Struct, frozen=True):
    """How one format writes an event, a sign of life and an end with a problem."""

    media_type: bytes
    event: Callable[[str, bytes], bytes]
    alive: Callable[[str], bytes]
    problem: Callable[[Problem], bytes]


def _sse_problem(problem: Problem) -> bytes:
    return b"event: problem\ndata: " + msgspec.json.encode({"code": problem.code, "detail": problem.detail}) + b"\n\n"


# A heartbeat carries the cursor too: who follows a rare filter resumes near the end.
SSE = Form(
    media_type=b"text/event-stream",
    event=lambda cursor, data: b"id: " + cursor.encode() + b"\nevent: audit\ndata: " + data + b"\n\n",
    alive=lambda cursor: b"id: " + cursor.encode() + b"\nevent: alive\ndata: {}\n\n",
    problem=_sse_problem,
)
NDJSON = Form(
    media_type=b"application/x-ndjson",
    event=lambda _cursor, data: data + b"\n",
    alive=lambda cursor: msgspec.json.encode({"alive": True, "cursor": cursor}) + b"\n",
    problem=lambda problem: msgspec.json.encode({"problem": {"code": problem.code, "detail": problem.detail}}) + b"\n",
)

_batches = msgspec.json.Decoder(Batch)
_events = msgspec.json.Decoder(TailedEvent)


class Answers(Protocol):
    """The part of the door to the ledger that is used here."""

    async def answer(self, asked: Asked, request: Request, visit: Visit) -> bytes: ...


class Tails:
    """All followers of one gateway replica; `close` lets them go when it stops."""

    def __init__(self, door: Answers, *, most_calls: int = MOST_CALLS) -> None:
        self._door = door
        self._most = most_calls
        self._calls = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        self._closing.set()

    async def serve(self, asked: Sequence[Asked], request: Request, send: Send, visit: Visit, form: Form) -> None:
        """One stream of what each question follows, a log each; the place in it names one cursor of every log.

        Raises like any question until the first byte is out; afterwards a problem is part of the stream.
        """
        if len(asked) > self._most:
            raise BadRequest(f"At most {self._most} logs can be followed at once: choose one.")
        if self._calls + len(asked) > self._most:
            raise Busy("Too many follow the ledger already.", retry_after=5)
        self._calls += len(asked)
        try:
            first = await asyncio.gather(*(self._ask(each, request, visit, 0.0) for each in asked))
            headers = [(b"content-type", form.media_type), _NO_STORE, _NO_BUFFER]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            heads = [self._batches(*pair, request, visit) for pair in zip(first, asked, strict=True)]
            await request.unless_hung_up(self._follow(heads, send, form), patience=0.0)
        finally:
            self._calls -= len(asked)

    async def _follow(self, heads: Sequence[AsyncGenerator[Batch]], send: Send, form: Form) -> None:
        places = [""] * len(heads)
        try:
            async with contextlib.aclosing(_first_come(heads)) as batches:
                async for number, batch in batches:
                    parts: list[bytes] = []
                    for event in batch.events:
                        places[number] = _events.decode(event).cursor
                        parts.append(form.event(_place(places), bytes(event)))
                    places[number] = batch.cursor
                    body = b"".join(parts) or form.alive(_place(places))
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        except WardmeshError as error:
            body = form.problem(error.problem)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _batches(self, first: Batch, asked: Asked, request: Request, visit: Visit) -> AsyncGenerator[Batch]:
        """Each further question is judged and recorded anew: a right that ends, ends the stream."""
        batch = first
        closing = asyncio.create_task(self._closing.wait())
        try:
            while not self._closing.is_set():
                yield batch
                arguments: dict[str, Any] = {**asked.arguments, "cursor": batch.cursor}
                onward = msgspec.structs.replace(asked, arguments=arguments)
                asking = asyncio.create_task(self._ask(onward, request, visit, WAIT_SECONDS))
                try:
                    await asyncio.wait({asking, closing}, return_when=asyncio.FIRST_COMPLETED)
                    if not asking.done():
                        return
                    batch = asking.result()
                finally:
                    asking.cancel()
        finally:
            closing.cancel()

    async def _ask(self, asked: Asked, request: Request, visit: Visit, wait: float) -> Batch:
        arguments = {**asked.arguments, "wait_seconds": wait}
        body = await self._door.answer(msgspec.structs.replace(asked, arguments=arguments), request, visit)
        return _batches.decode(body)


def _place(cursors: Sequence[str]) -> str:
    return ",".join(filter(None, cursors))


async def _first_come(heads: Sequence[AsyncGenerator[Batch]]) -> AsyncGenerator[tuple[int, Batch]]:
    """Batches of all as they come, each with the number of its follower; ends when one ends."""
    waiting = {asyncio.create_task(_next(head)): number for number, head in enumerate(heads)}
    try:
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number, batch = waiting.pop(task), task.result()
                if batch is None:
                    return
                yield number, batch
                waiting[asyncio.create_task(_next(heads[number]))] = number
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for head in heads:
            await head.aclose()


async def _next(head: AsyncGenerator[Batch]) -> Batch | None:
    return await anext(head, None)


def resumed(asked: Asked, request: Request) -> Asked:
    """What a browser says when it comes back after a broken connection counts more than the address."""
    last = request.header(b"last-event-id")
    return msgspec.structs.replace(asked, arguments={**asked.arguments, "cursor": last}) if last else asked


def form_of(request: Request) -> Form:
    return SSE if "text/event-stream" in request.header(b"accept") else NDJSON

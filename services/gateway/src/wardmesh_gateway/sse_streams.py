"""GET /sse: streams of change notifications, and the older transport whose answers all travel on one stream (SM-4)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mcp.server.subscriptions import PromptsListChanged, ResourcesListChanged, ServerEvent, ToolsListChanged
from msgspec import Struct

from wardmesh_common.contracts import Caller
from wardmesh_gateway.asgi import Header, Message, Receive, Send
from wardmesh_gateway.edge_answers import NO_STORE, Refusal
from wardmesh_gateway.mcp_events import ReplicaEvents
from wardmesh_gateway.mcp_narrowing import Narrowing
from wardmesh_gateway.mcp_wire import Wire

MOST_STREAMS = 1024
MOST_OF_ONE = 32  # streams of one principal, session or address: nobody takes the place of all others
MOST_WAITING = 4 * 1024 * 1024  # bytes of answers that a slow reader leaves lying
COMMENT_SECONDS = 15.0
_TOPIC = "sse"
_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)
_REPLICA = re.compile(r"gateway-[A-Za-z0-9_-]{1,64}")
_NOTIFICATIONS: dict[type[Any], str] = {
    ToolsListChanged: "notifications/tools/list_changed",
    PromptsListChanged: "notifications/prompts/list_changed",
    ResourcesListChanged: "notifications/resources/list_changed",
}


class SsePost(Struct, kw_only=True):
    """A message of the older transport on its way to the replica that holds its stream."""

    stream: str  # digest of the session
    principal: str
    caller: Caller
    body: bytes
    narrowing: Narrowing = Narrowing()


class Stream:
    """One open GET: what is put in comes out at the client; `said` is what its `initialize` told."""

    def __init__(self, session: str, principal: str, payer: str) -> None:
        self.session, self.principal, self.payer = session, principal, payer
        self.client_info: Any = None
        self.capabilities: Any = None
        self.version = ""
        self.gone = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._size = 0

    def put(self, piece: bytes) -> None:
        """A reader that does not keep up loses its stream, never single messages. One piece may be of any size."""
        if self.gone.is_set() or (self._size and self._size + len(piece) > MOST_WAITING):
            self.gone.set()
            return
        self._size += len(piece)
        self._waiting.put_nowait(piece)

    async def piece(self) -> bytes:
        """The next piece, or a comment that keeps the connection open."""
        try:
            async with asyncio.timeout(COMMENT_SECONDS):
                piece = await self._waiting.get()
        except TimeoutError:
            return b": alive\n\n"
        self._size -= len(piece)
        return piece


Work = Callable[[Stream, SsePost], Awaitable[None]]


class SseStreams:
    """The streams of this replica. `work` answers a message of the older transport by putting into its stream."""

    def __init__(self, wire: Wire, events: ReplicaEvents, work: Work) -> None:
        self._wire, self._work = wire, work
        self._open: dict[int, Stream] = {}
        wire.on(_TOPIC, SsePost, self._take)
        events.subscribe(self._tell)

    async def notifications(self, stream: Stream, receive: Receive, send: Send) -> None:
        """Until the client goes away or the session ends."""
        await self._hold(stream, b"", receive, send)

    async def answers(self, stream: Stream, endpoint: str, receive: Receive, send: Send) -> None:
        """The older transport: the first event names the address for POSTs, which then leads to this replica."""
        address = f"{endpoint}~{self._wire.replica}"
        first = f"event: endpoint\ndata: {address}\n\n".encode()
        await self._hold(stream, first, receive, send)

    async def forward(self, replica: str, post: SsePost) -> None:
        """To the replica of the stream; when that is gone, so is the stream, and its client knows."""
        if _REPLICA.fullmatch(replica):
            await self._wire.tell_replica(replica, _TOPIC, post)

    def end(self, session: str) -> None:
        """The session is over."""
        for stream in self._open.values():
            if stream.session == session:
                stream.gone.set()

    def close(self) -> None:
        for stream in self._open.values():
            stream.gone.set()

    async def _hold(self, stream: Stream, first: bytes, receive: Receive, send: Send) -> None:
        own = sum(each.payer == stream.payer for each in self._open.values())
        if own >= MOST_OF_ONE or len(self._open) >= MOST_STREAMS:
            raise Refusal(503, "Too many streams are open", headers=((b"retry-after", b"5"),))
        self._open[id(stream)] = stream
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM]})
            await send({"type": "http.response.body", "body": first or b": open\n\n", "more_body": True})
            await _pump(stream, receive, send)
        finally:
            stream.gone.set()
            del self._open[id(stream)]
            for task in stream.tasks:
                task.cancel()
            await asyncio.gather(*stream.tasks, return_exceptions=True)

    async def _take(self, post: SsePost) -> None:
        stream = next((each for each in self._open.values() if each.session == post.stream), None)
        if stream is None or stream.principal != post.principal or stream.gone.is_set():
            return
        # Beside: this is called for one message after the other, and a call may take long.
        task = asyncio.create_task(self._answer(stream, post), name="sse post")
        stream.tasks.add(task)
        task.add_done_callback(stream.tasks.discard)

    async def _answer(self, stream: Stream, post: SsePost) -> None:
        await self._work(stream, post)

    def _tell(self, event: ServerEvent) -> None:
        method = _NOTIFICATIONS.get(type(event))
        if method is None:
            return
        message = msgspec.json.encode({"jsonrpc": "2.0", "method": method})
        for stream in self._open.values():
            stream.put(b"event: message\ndata: " + message + b"\n\n")


async def _pump(stream: Stream, receive: Receive, send: Send) -> None:
    async def write() -> None:
        while True:
            await send({"type": "http.response.body", "body": await stream.piece(), "more_body": True})

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    ending = [asyncio.create_task(each) for each in (write(), watch(), _ended(stream))]
    try:
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        if not ending[1].done():
            last: Message = {"type": "http.response.body", "body": b""}
            ending[0].cancel()
            await asyncio.gather(ending[0], return_exceptions=True)
            with contextlib.suppress(OSError):
                await send(last)
    finally:
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def _ended(stream: Stream) -> None:
    await stream.gone.wait()

"""Bodies larger than one message: numbered chunks with a window that the receiver opens (NB-11).

The sender keeps at most WINDOW chunks ahead of the receiver's credit and waits for the socket, so neither side
nor the broker holds more than a few hundred KiB of a transfer, however slow the reader is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator

import msgspec

from wardmesh_common.contracts import Chunk, Credit, Parked, encode
from wardmesh_common.errors import Unavailable, WardmeshError
from wardmesh_common.lean import LeanClient, NotConnected
from wardmesh_common.streamed import UNKNOWN_SIZE, Streamed

CHUNK_BYTES = 128 * 1024
WINDOW = 8
# Above this a body does not travel inside its envelope.
INLINE_BYTES = 256 * 1024
SOCKET_PATIENCE_BYTES = 1024 * 1024
# A streamed body outlives the deadline of its call, which is about when it begins: these are about its progress.
IDLE_SECONDS = 30.0
STREAM_SECONDS = 3600.0

_chunks = msgspec.msgpack.Decoder(Chunk)
_credits = msgspec.msgpack.Decoder(Credit)


class TransferBroken(Unavailable):
    def __init__(self) -> None:
        super().__init__("The transfer of the answer was interrupted.")


class _Outgoing:
    def __init__(self) -> None:
        self.upto = WINDOW
        self.moved = asyncio.Event()


class _Incoming:
    def __init__(self, size: int) -> None:
        self.size = size
        self.queue: asyncio.Queue[Chunk] = asyncio.Queue()
        self.expected = 0
        self.received = 0


class Transfers:
    """Both directions of chunked transfers over one connection; a transfer is named by its call id."""

    def __init__(self, nc: LeanClient) -> None:
        self._nc = nc
        self._outgoing: dict[str, _Outgoing] = {}
        self._incoming: dict[str, _Incoming] = {}

    # --- receiving ---

    def expect(self, call_id: str, size: int) -> None:
        """Must be called before the first chunk can arrive."""
        self._incoming[call_id] = _Incoming(size)

    def forget(self, call_id: str) -> None:
        """Nobody is going to receive it."""
        self._incoming.pop(call_id, None)

    def on_chunk(self, data: bytes) -> None:
        chunk = _chunks.decode(data)
        incoming = self._incoming.get(chunk.call_id)
        if incoming is not None:
            incoming.queue.put_nowait(chunk)

    def fail_all(self) -> None:
        """The connection is gone: a gap in the sequence tells every receiver and sender to stop."""
        for call_id, incoming in self._incoming.items():
            incoming.queue.put_nowait(Chunk(call_id=call_id, seq=-1, last=True, data=b""))
        for outgoing in self._outgoing.values():
            outgoing.upto = -1
            outgoing.moved.set()

    async def receive(self, call_id: str, credit_to: str, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield the chunks in order, giving credit as they are consumed. Raises TransferBroken."""
        incoming = self._incoming[call_id]
        finished = False
        try:
            while not finished:
                async with asyncio.timeout(timeout_seconds):
                    chunk = await incoming.queue.get()
                if chunk.seq != incoming.expected:
                    raise TransferBroken
                incoming.expected += 1
                incoming.received += len(chunk.data)
                finished = chunk.last
                if not finished:
                    self._credit(credit_to, call_id, incoming.expected + WINDOW)
                yield chunk.data
            if incoming.size not in (incoming.received, UNKNOWN_SIZE):
                raise TransferBroken
        except TimeoutError:
            raise TransferBroken from None
        finally:
            self._incoming.pop(call_id, None)
            if not finished:
                self._credit(credit_to, call_id, -1)

    def _credit(self, credit_to: str, call_id: str, upto: int) -> None:
        try:
            self._nc.lean_publish(credit_to, encode(Credit(call_id=call_id, upto=upto)))
        except NotConnected:
            self.fail_all()

    async def fetch(self, call_id: str, parked: Parked, timeout_seconds: float) -> bytes:
        """Collect a body that waits at the gateway, and check that it is the one policy decided about."""
        self.expect(call_id, parked.size)
        opening = Credit(call_id=call_id, upto=WINDOW, reply_to=f"{self._nc.inbox}.w.d")
        self._nc.lean_publish(parked.subject, encode(opening))
        parts = [part async for part in self.receive(call_id, parked.subject, timeout_seconds)]
        body = b"".join(parts)
        if hashlib.sha256(body).hexdigest() != parked.sha256:
            raise TransferBroken
        return body

    # --- sending ---

    def on_credit(self, data: bytes) -> Credit:
        credit = _credits.decode(data)
        outgoing = self._outgoing.get(credit.call_id)
        if outgoing is not None:
            outgoing.upto = credit.upto if credit.upto < 0 else max(outgoing.upto, credit.upto)
            outgoing.moved.set()
        return credit

    def open(self, call_id: str) -> None:
        """Register an outgoing transfer before the message that announces it leaves."""
        self._outgoing[call_id] = _Outgoing()

    async def send(self, call_id: str, subject: str, body: bytes, timeout_seconds: float) -> None:
        """Send `body` as chunks to `subject`; returns when all are out or the receiver gave up."""
        outgoing = self._outgoing[call_id]
        count = (len(body) + CHUNK_BYTES - 1) // CHUNK_BYTES
        try:
            async with asyncio.timeout(timeout_seconds):
                for seq in range(count):
                    while 0 <= outgoing.upto <= seq or self._nc.unsent_bytes > SOCKET_PATIENCE_BYTES:
                        await self._wait(outgoing)
                    if outgoing.upto < 0:
                        return
                    part = body[seq * CHUNK_BYTES : (seq + 1) * CHUNK_BYTES]
                    chunk = Chunk(call_id=call_id, seq=seq, last=seq == count - 1, data=part)
                    self._nc.lean_publish(subject, encode(chunk))
        except (TimeoutError, NotConnected):
            return  # the receiver notices the missing rest and says so to its caller
        finally:
            self._outgoing.pop(call_id, None)

    async def send_stream(self, call_id: str, subject: str, body: Streamed) -> None:
        """As `send`, for a body that is being received: no faster than the receiver takes it, and no faster here."""
        outgoing = self._outgoing[call_id]
        pieces, seq = _pieces(body), 0
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                while outgoing.upto >= 0:
                    async with asyncio.timeout(IDLE_SECONDS):
                        while 0 <= outgoing.upto <= seq or self._nc.unsent_bytes > SOCKET_PATIENCE_BYTES:
                            await self._wait(outgoing)
                        if outgoing.upto < 0:
                            return
                        piece = await anext(pieces, None)
                    chunk = Chunk(call_id=call_id, seq=seq, last=piece is None, data=piece or b"")
                    self._nc.lean_publish(subject, encode(chunk))
                    if piece is None:
                        return
                    seq += 1
        except NotConnected:
            return
        except (TimeoutError, WardmeshError):
            # A gap in the sequence: the receiver must not take what it has for the whole.
            with contextlib.suppress(NotConnected):
                self._nc.lean_publish(subject, encode(Chunk(call_id=call_id, seq=-1, last=True, data=b"")))
        finally:
            self._outgoing.pop(call_id, None)
            await pieces.aclose()
            await body.close()

    async def _wait(self, outgoing: _Outgoing) -> None:
        """Until credit arrives; a full socket is looked at again after a moment."""
        outgoing.moved.clear()
        if self._nc.unsent_bytes > SOCKET_PATIENCE_BYTES:
            await asyncio.sleep(0.002)
        else:
            await outgoing.moved.wait()


async def _pieces(body: Streamed) -> AsyncGenerator[bytes, None]:
    """What arrives, in pieces that fit a chunk."""
    async for part in body.parts:
        for start in range(0, len(part), CHUNK_BYTES):
            yield part[start : start + CHUNK_BYTES]

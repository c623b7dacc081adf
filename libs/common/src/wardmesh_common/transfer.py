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
from msgspec import Struct

from wardmesh_common.contracts import Chunk, Credit, Parked, encode
from wardmesh_common.errors import Problem, TimedOut, Unavailable, WardmeshError
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

# Credits that are none: what they say instead.
HUNG_UP = -1
ENOUGH = -2  # only the beginning was wanted

ABANDONED = Problem(code="abandoned", status=499, detail="The caller hung up.", issue="incomplete")
BUS_LOST = Unavailable("The bus was lost while the answer was on its way.").problem
STOOD_STILL = TimedOut("The answer stood still for too long.").problem

_chunks = msgspec.msgpack.Decoder(Chunk)
_credits = msgspec.msgpack.Decoder(Credit)


class TransferBroken(Unavailable):
    def __init__(self) -> None:
        super().__init__("The transfer of the answer was interrupted.")


class SenderLost(TransferBroken):
    """It broke off without a word: whoever sent it may be unable to record that, so the receiver does."""


class Sent(Struct, frozen=True):
    """How much of a body has left, and why not all of it; `broken` None: the receiver took what it wanted."""

    size: int
    broken: Problem | None = None


class _Outgoing:
    def __init__(self) -> None:
        self.upto = WINDOW
        self.moved = asyncio.Event()
        self.refused: Problem | None = None  # why nothing more is wanted, once `upto` is below zero

    def stop(self, why: Problem | None) -> None:
        self.upto, self.refused = HUNG_UP, why
        self.moved.set()


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
            outgoing.stop(BUS_LOST)

    async def receive(self, call_id: str, credit_to: str, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield the chunks in order, giving credit as they are consumed, and once more when all of them were.

        Raises TransferBroken.
        """
        incoming = self._incoming[call_id]
        finished = whole = False
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
                raise SenderLost
            whole = True
        except TimeoutError:
            raise SenderLost from None
        finally:
            self._incoming.pop(call_id, None)
            self._credit(credit_to, call_id, incoming.expected + WINDOW if whole else HUNG_UP)

    def decline(self, call_id: str, credit_to: str) -> None:
        """Nothing of what was announced is wanted, and nothing is wrong with that."""
        self.forget(call_id)
        self._credit(credit_to, call_id, ENOUGH)

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
            if credit.upto < 0:
                outgoing.stop(ABANDONED if credit.upto == HUNG_UP else None)
            elif outgoing.upto >= 0:
                outgoing.upto = max(outgoing.upto, credit.upto)
                outgoing.moved.set()
        return credit

    def open(self, call_id: str) -> None:
        """Register an outgoing transfer before the message that announces it leaves."""
        self._outgoing[call_id] = _Outgoing()

    async def send(self, call_id: str, subject: str, body: bytes, timeout_seconds: float) -> Sent:
        """Send `body` as chunks to `subject`; returns when all were taken or the receiver gave up."""
        outgoing = self._outgoing[call_id]
        count, size = (len(body) + CHUNK_BYTES - 1) // CHUNK_BYTES, 0
        try:
            async with asyncio.timeout(timeout_seconds):
                for seq in range(count):
                    await self._room(outgoing, seq)
                    if outgoing.upto < 0:
                        return Sent(size, outgoing.refused)
                    part = body[seq * CHUNK_BYTES : (seq + 1) * CHUNK_BYTES]
                    chunk = Chunk(call_id=call_id, seq=seq, last=seq == count - 1, data=part)
                    self._nc.lean_publish(subject, encode(chunk))
                    size += len(part)
            return await self._taken(outgoing, count, size)
        except TimeoutError:
            return Sent(size, STOOD_STILL)  # the receiver notices the missing rest and says so to its caller
        except NotConnected:
            return Sent(size, BUS_LOST)
        finally:
            self._outgoing.pop(call_id, None)

    async def send_stream(self, call_id: str, subject: str, body: Streamed) -> Sent:
        """As `send`, for a body that is being received: no faster than the receiver takes it, and no faster here."""
        outgoing = self._outgoing[call_id]
        pieces, seq, size = _pieces(body), 0, 0
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                while True:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self._room(outgoing, seq)
                        if outgoing.upto < 0:
                            return Sent(size, outgoing.refused)
                        piece = await anext(pieces, None)
                    chunk = Chunk(call_id=call_id, seq=seq, last=piece is None, data=piece or b"")
                    self._nc.lean_publish(subject, encode(chunk))
                    seq += 1
                    if piece is None:
                        break
                    size += len(piece)
            await body.close()
            return await self._taken(outgoing, seq, size)
        except NotConnected:
            return Sent(size, BUS_LOST)
        except (TimeoutError, WardmeshError) as error:
            # A gap in the sequence: the receiver must not take what it has for the whole.
            with contextlib.suppress(NotConnected):
                self._nc.lean_publish(subject, encode(Chunk(call_id=call_id, seq=-1, last=True, data=b"")))
            return Sent(size, error.problem if isinstance(error, WardmeshError) else STOOD_STILL)
        finally:
            self._outgoing.pop(call_id, None)
            await pieces.aclose()
            await body.close()

    async def _room(self, outgoing: _Outgoing, seq: int) -> None:
        """Until chunk `seq` may leave, or nobody wants it."""
        while 0 <= outgoing.upto <= seq or self._nc.unsent_bytes > SOCKET_PATIENCE_BYTES:
            await self._wait(outgoing)

    async def _taken(self, outgoing: _Outgoing, count: int, size: int) -> Sent:
        """All chunks are out: whether they arrive is for the receiver to say. One that says nothing is believed:
        it may be of a version that never did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                while 0 <= outgoing.upto < count + WINDOW:
                    await self._wait(outgoing)
        return Sent(size, outgoing.refused)

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

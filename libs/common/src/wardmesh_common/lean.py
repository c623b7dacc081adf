"""A lean NATS client for the call path: nats-py's connection without its per-message bookkeeping (NB-1).

nats-py keeps connecting, reconnecting, TLS and authentication; this subclass adds a second, cheaper way in and
out: raw synchronous callbacks instead of message objects and queues, and coalesced writes. Both ways share one
connection, so FastStream and JetStream code work on the same object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.subscription import Subscription

# subject, reply, payload, raw header block (None without headers)
RawCallback = Callable[[bytes, bytes, bytes, bytes | None], None]

# A broker that stops reading must not make this process grow: beyond this many unsent bytes publishing fails.
MAX_UNSENT_BYTES = 16 * 1024 * 1024
# So much is worth a system call of its own: whoever waits for it should not wait for what this turn does next.
SEND_AT_ONCE_BYTES = 32 * 1024


class NotConnected(Exception):
    """There is no usable connection to the broker right now, or it does not take what we send."""


class PayloadTooLarge(Exception):
    """The message is above the broker's max_payload and must travel in chunks."""


class LeanClient(Client):
    """nats-py's client plus `lean_subscribe` and `lean_publish`."""

    def __init__(self) -> None:
        super().__init__()
        self._lean: dict[int, RawCallback] = {}
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._flush_scheduled = False
        self.inbox = ""
        self.on_lost: Callable[[], None] = lambda: None

    async def _process_op_err(self, e: Exception) -> None:
        """The connection failed. Abort the socket first: a frozen broker would otherwise hold its close for ever."""
        if self.is_connected:
            self._unsent, self._unsent_size = [], 0
            writer = getattr(self._transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()
            self.on_lost()
        await super()._process_op_err(e)

    def lean_subscribe(self, subject: str, callback: RawCallback, queue: str = "") -> int:
        """Call `callback` for every message, synchronously, from the read loop; returns the subscription id.

        The subscription is registered with nats-py as well, which repeats it after a reconnect.
        """
        self._sid += 1
        sid = self._sid
        self._subs[sid] = Subscription(self, sid, subject, queue=queue)
        self._lean[sid] = callback
        self._write(b"SUB %b %b %d\r\n" % (subject.encode(), queue.encode(), sid))
        return sid

    def lean_unsubscribe(self, sid: int) -> None:
        """Stop deliveries. Messages that the server sent before are still delivered until `flush` returns."""
        self._subs.pop(sid, None)
        self._write(b"UNSUB %d\r\n" % sid)

    def lean_forget(self, sid: int) -> None:
        self._lean.pop(sid, None)

    def lean_publish(self, subject: str, payload: bytes, reply: str = "", header: bytes = b"") -> None:
        """Publish at once. Raises NotConnected or PayloadTooLarge; never queues while disconnected (NB-2)."""
        size = len(payload)
        if size + len(header) > self._max_payload:
            raise PayloadTooLarge
        if not self.is_connected or self._transport is None:
            raise NotConnected
        if header:
            head = f"HPUB {subject} {reply} {len(header)} {len(header) + size}\r\n".encode() + header
        else:
            head = f"PUB {subject} {reply} {size}\r\n".encode()
        if size < SEND_AT_ONCE_BYTES:
            self._write(head + payload + b"\r\n")
        else:
            self._write(head, payload, b"\r\n")

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket has not taken yet; large transfers wait while this is high."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer.transport.get_write_buffer_size() if writer is not None else 0

    def _write(self, data: bytes, *more: bytes) -> None:
        """One message, whole or in pieces that stay together."""
        if self.unsent_bytes > MAX_UNSENT_BYTES:
            raise NotConnected
        self._unsent.append(data)
        self._unsent_size += len(data)
        for piece in more:
            self._unsent.append(piece)
            self._unsent_size += len(piece)
        if self._unsent_size >= SEND_AT_ONCE_BYTES:
            self._send_unsent()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_next_turn)

    def _flush_next_turn(self) -> None:
        """What arrived while this turn ran is answered in the next one: its messages leave in the same write."""
        asyncio.get_running_loop().call_soon(self._lean_flush)

    def _lean_flush(self) -> None:
        """One system call for everything that was published in this turn of the loop."""
        self._flush_scheduled = False
        self._send_unsent()

    def _send_unsent(self) -> None:
        unsent, size = self._unsent, self._unsent_size
        self._unsent, self._unsent_size = [], 0
        if not unsent or self._transport is None or not self.is_connected:
            return
        if size < SEND_AT_ONCE_BYTES:
            self._transport.write(b"".join(unsent))
        else:
            self._transport.writelines(unsent)  # as they are: a large body is not copied once more

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """A PONG must mean that everything before it was processed: nats-py writes PING past its own queue."""
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        self._lean_flush()
        await super()._send_ping(future)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        callback = self._lean.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        callback(subject, reply, data, headers)


def header_block(**fields: str) -> bytes:
    """`header_block(Nats_Msg_Id="x")` -> a NATS/1.0 header block; underscores stand for hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def status_of(header: bytes | None) -> int:
    """The inline status of a header block (503 = no responders), 0 when there is none."""
    if not header or not header.startswith(b"NATS/1.0 "):
        return 0
    digits = header[9:12]
    return int(digits) if digits.isdigit() else 0


def field_of(header: bytes | None, name: bytes) -> str:
    """One header field by exact name, "" when absent."""
    if not header:
        return ""
    start = header.find(b"\r\n" + name + b": ")
    if start < 0:
        return ""
    start += len(name) + 4
    return header[start : header.find(b"\r\n", start)].decode()

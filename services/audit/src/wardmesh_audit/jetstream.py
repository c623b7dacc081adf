"""The few JetStream requests this service makes, as plain JSON, so that server settings are compared raw."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

TIMEOUT_SECONDS = 5.0


class JetStreamError(Exception):
    """The server refused a request; `code` is JetStream's error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"JetStream error {code}: {text}")
        self.code = code


class StreamMissing(JetStreamError):
    pass


class NothingStored(JetStreamError):
    """There is no such message."""


class Answer(Protocol):
    data: bytes


class Requester(Protocol):
    """The part of the NATS client that is used here."""

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 0.5) -> Answer: ...


class StoredMessage(Struct, frozen=True):
    subject: str
    seq: int
    data: bytes
    received: datetime


_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_NO_MESSAGE = 10037


async def api(nc: Requester, verb: str, body: Any = None) -> dict[str, Any]:
    """`$JS.API.<verb>`; raises JetStreamError for a refusal and the client's errors when nobody answers."""
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await nc.request(f"$JS.API.{verb}", payload, timeout=TIMEOUT_SECONDS)
    result = msgspec.json.decode(answer.data, type=dict[str, Any])
    error = result.get("error")
    if error is None:
        return result
    code = int(error.get("err_code", 0))
    kinds = {_STREAM_NOT_FOUND: StreamMissing, _CONSUMER_NOT_FOUND: StreamMissing, _NO_MESSAGE: NothingStored}
    raise kinds.get(code, JetStreamError)(code, str(error.get("description", "")))


async def last_sequence(nc: Requester, stream: str) -> int:
    """The sequence of the newest message a stream ever stored, 0 for a fresh one."""
    info = await api(nc, f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def message_at(nc: Requester, stream: str, seq: int) -> StoredMessage:
    return _stored(await api(nc, f"STREAM.MSG.GET.{stream}", {"seq": seq}))


async def last_message(nc: Requester, stream: str, subject: str) -> StoredMessage | None:
    """The newest message on a subject, None when there is none."""
    try:
        return _stored(await api(nc, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))
    except NothingStored:
        return None


def _stored(answer: dict[str, Any]) -> StoredMessage:
    message = answer["message"]
    data = b64decode(message.get("data", ""))
    return StoredMessage(message["subject"], int(message["seq"]), data, _instant(str(message["time"])))


def _instant(text: str) -> datetime:
    """The server's time with nanoseconds, cut to the microseconds that an acknowledgement subject gives as well."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")

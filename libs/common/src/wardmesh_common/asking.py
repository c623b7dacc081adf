"""Request and reply on `ask.>`: typed questions, typed errors, a deadline that travels (architecture.md §1)."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from wardmesh_common.budget import Budgets
from wardmesh_common.contracts import encode
from wardmesh_common.errors import BadRequest, Busy, Internal, Problem, TimedOut, Unavailable, WardmeshError
from wardmesh_common.lean import LeanClient, NotConnected, PayloadTooLarge, status_of
from wardmesh_common.questions import Answer, Ask
from wardmesh_common.vocabulary import Principal

Q = TypeVar("Q", bound=msgspec.Struct)
T = TypeVar("T", bound=msgspec.Struct)

MAX_ANSWERING = 256

_asks = msgspec.msgpack.Decoder(Ask)
_answers = msgspec.msgpack.Decoder(Answer)


class Refused(WardmeshError):
    """The other side answered with a problem; it is carried on unchanged."""

    def __init__(self, problem: Problem, call_id: str = "") -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.call_id = call_id


class Asking:
    """Both sides of questions on one connection."""

    def __init__(self, nc: LeanClient, budgets: Budgets, service: str) -> None:
        self._nc = nc
        self._budgets = budgets
        self._log = logging.getLogger(f"wardmesh.{service}")
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        subject: str,
        question: msgspec.Struct,
        answer_type: type[T],
        *,
        timeout_seconds: float = 2.0,
        principal: Principal | None = None,
        traceparent: str = "",
    ) -> T:
        """Ask one instance of the service behind `subject`.

        Raises the problem of the answer, Unavailable at once when nobody is there, or TimedOut.
        """
        ask = Ask(
            id=uuid.uuid4().hex,
            sent_at=time.time(),
            remaining_ms=int(timeout_seconds * 1000),
            body=msgspec.Raw(encode(question)),
            principal=principal,
            traceparent=traceparent,
        )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[ask.id] = future
        try:
            self._nc.lean_publish(subject, encode(ask), reply=f"{self._nc.inbox}.w.a.{ask.id}")
            async with asyncio.timeout(timeout_seconds):
                answer = await future
        except NotConnected:
            raise Unavailable("The bus is not reachable.") from None
        except TimeoutError:
            raise TimedOut("A service of the mesh did not answer in time.") from None
        finally:
            del self._waiting[ask.id]
        if answer.problem is not None:
            raise Refused(answer.problem)
        return msgspec.msgpack.decode(answer.body, type=answer_type)

    def on_answer(self, ask_id: str, data: bytes, header: bytes | None) -> None:
        future = self._waiting.get(ask_id)
        if future is None or future.done():
            return
        if status_of(header) == 503:
            future.set_exception(Unavailable("A service of the mesh is not up."))
            return
        try:
            future.set_result(_answers.decode(data))
        except (msgspec.DecodeError, msgspec.ValidationError):
            future.set_exception(Internal("A service of the mesh gave an unreadable answer."))

    def fail_all(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("The bus was lost."))

    def answering(
        self, question_type: type[Q], handler: Callable[[Q, Ask], Awaitable[msgspec.Struct]]
    ) -> Callable[[bytes, bytes, bytes, bytes | None], None]:
        """A raw callback that decodes a question, runs the handler and always answers."""
        decoder = msgspec.msgpack.Decoder(question_type)

        def on_message(_subject: bytes, reply: bytes, data: bytes, _header: bytes | None) -> None:
            if len(self._answering) >= MAX_ANSWERING:
                self._send(reply.decode(), Answer(problem=Busy("The service is at its limit.").problem))
                return
            task = asyncio.create_task(self._answer(reply.decode(), data, decoder, handler))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        return on_message

    async def _answer(
        self,
        reply: str,
        data: bytes,
        decoder: msgspec.msgpack.Decoder[Any],
        handler: Callable[[Any, Ask], Awaitable[msgspec.Struct]],
    ) -> None:
        try:
            ask = _asks.decode(data)
            sender = reply.split(".", 2)[1].encode() if reply.count(".") > 1 else b""
            left = self._budgets.remaining(sender, ask.sent_at, ask.remaining_ms)
            async with asyncio.timeout(left):
                body = await handler(decoder.decode(ask.body), ask)
            answer = Answer(body=msgspec.Raw(encode(body)))
        except WardmeshError as error:
            answer = Answer(problem=error.problem)
        except (msgspec.DecodeError, msgspec.ValidationError):
            answer = Answer(problem=BadRequest("The question could not be read.").problem)
        except TimeoutError:
            answer = Answer(problem=TimedOut("The service did not answer in time.").problem)
        except Exception:  # noqa: BLE001 - the edge of an answering service
            self._log.exception("unexpected failure while answering")
            answer = Answer(problem=Internal("Something went wrong inside the mesh.").problem)
        self._send(reply, answer)

    def _send(self, reply: str, answer: Answer) -> None:
        try:
            self._nc.lean_publish(reply, encode(answer))
        except PayloadTooLarge:
            self._nc.lean_publish(reply, encode(Answer(problem=Internal("The answer is too large.").problem)))
        except NotConnected:
            self._log.warning("the bus was lost before an answer could be given")

    async def settle(self) -> None:
        while self._answering:
            await asyncio.wait(self._answering)

"""The bus of one service: submit, station, ask, answer, tell and hear on one NATS connection (docs/architecture.md)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from nats.errors import Error as NatsError

from wardmesh_common.asking import Asking
from wardmesh_common.budget import Budgets
from wardmesh_common.contracts import CANCEL, LOAD, PERFORM, SEEK, Call, encode, inbox_of
from wardmesh_common.errors import Unavailable
from wardmesh_common.events import Events
from wardmesh_common.lean import LeanClient, NotConnected
from wardmesh_common.microservice import Discovery
from wardmesh_common.questions import Ask, Load
from wardmesh_common.station import Handler, Recorder, Station
from wardmesh_common.submission import Delivery, Submissions
from wardmesh_common.telemetry import Telemetry
from wardmesh_common.transfer import Transfers
from wardmesh_common.vocabulary import Principal

Q = TypeVar("Q", bound=msgspec.Struct)
T = TypeVar("T", bound=msgspec.Struct)
E = TypeVar("E", bound=msgspec.Struct)

LOAD_SECONDS = 0.25

InboxCallback = Callable[[str, bytes, bytes | None], None]


class Bus:
    """Everything a service does on NATS. Open it with `connect`, end it with `drain` and `close`."""

    def __init__(self, service: str, nc: LeanClient, telemetry: Telemetry) -> None:
        self.service = service
        self.instance = f"{service}-{secrets.token_hex(4)}"
        self.nc = nc
        nc.inbox = inbox_of(service, self.instance)
        self.telemetry = telemetry
        self._log = logging.getLogger(f"wardmesh.{service}")
        self._budgets = Budgets()
        self._transfers = Transfers(nc)
        self._asking = Asking(nc, self._budgets, service)
        self._events = Events(nc)
        self._discovery = Discovery(nc, service, self.instance, lambda: self.in_flight)
        self._submissions: Submissions | None = None
        self._stations: list[Station] = []
        self._doors: list[int] = []  # subscriptions through which new work comes in
        self._background: list[asyncio.Task[None]] = []
        self.recorder: Recorder | None = None
        # Further kinds of inbox messages: token -> callback(rest of the subject, payload, header block)
        self.on_inbox: dict[str, InboxCallback] = {}

    @classmethod
    async def connect(cls, service: str, url: str, seed: str, telemetry: Telemetry | None = None) -> Bus:
        """Connect with the safety options of NB-2; waits for the broker as long as it takes.

        Wrong credentials raise nats.errors.AuthorizationError.
        """
        nc = LeanClient()
        bus = cls(service, nc, telemetry or Telemetry(service))
        nc.on_lost = bus._on_lost
        await nc.connect(
            url.split(","),
            name=bus.instance,
            nkeys_seed_str=seed or None,
            inbox_prefix=nc.inbox,
            pending_size=0,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=1,
            max_outstanding_pings=2,
            error_cb=bus._on_error,
            reconnected_cb=bus._on_reconnected,
            skip_subject_validation=True,
        )
        nc.lean_subscribe(f"{nc.inbox}.w.>", bus._on_inbox)
        await bus._events.start()
        await bus._discovery.start()
        return bus

    @property
    def connected(self) -> bool:
        return self.nc.is_connected

    @property
    def in_flight(self) -> int:
        waiting = self._submissions.in_flight if self._submissions else 0
        return waiting + sum(station.in_flight for station in self._stations)

    # --- the call path ---

    async def submit(self, call: Call, body: bytes | None = None) -> Delivery:
        """Gateway only: send a call on its journey and wait for the reply (`Submissions.submit`)."""
        return await self._gateway().submit(call, body)

    async def station(self, subject: str, handler: Handler, *, onward: str = "", limit: int = 256) -> None:
        """Consume `subject` in this service's queue group. Call it last, when everything else is ready (NB-8)."""
        assert self.recorder is not None, "a station needs a recorder: no record, no data"
        station = Station(
            self.nc,
            handler,
            self.recorder,
            self._transfers,
            self._budgets,
            telemetry=self.telemetry,
            service=self.service,
            onward=onward,
            limit=limit,
        )
        self._stations.append(station)
        if len(self._stations) == 1:
            self.nc.lean_subscribe(CANCEL, self._on_cancel)
            self.nc.lean_subscribe(SEEK, self._on_seek)
        self._doors.append(self.nc.lean_subscribe(subject, station.on_message, queue=self.service))
        if subject.startswith(PERFORM):
            direct = f"{subject}.{self.instance}"
            self._doors.append(self.nc.lean_subscribe(direct, station.on_message))
            self._background.append(asyncio.create_task(self._tell_load(station)))
        await self.nc.flush()

    # --- questions ---

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
        """Ask one instance of a service (`Asking.ask`)."""
        return await self._asking.ask(
            subject,
            question,
            answer_type,
            timeout_seconds=timeout_seconds,
            principal=principal,
            traceparent=traceparent,
        )

    async def answer(
        self, subject: str, question_type: type[Q], handler: Callable[[Q, Ask], Awaitable[msgspec.Struct]]
    ) -> None:
        """Answer questions on `subject` in this service's queue group."""
        callback = self._asking.answering(question_type, handler)
        self._doors.append(self.nc.lean_subscribe(subject, callback, queue=self.service))
        await self.nc.flush()

    # --- events ---

    async def tell(self, subject: str, event: msgspec.Struct) -> None:
        """Publish an event; lost when the bus is away, so it must never be the only way to learn something."""
        with contextlib.suppress(NatsError):
            await self._events.tell(subject, event)

    async def hear(self, subject: str, event_type: type[E], handler: Callable[[E], Awaitable[None]]) -> None:
        await self._events.hear(subject, event_type, handler)
        await self.nc.flush()

    # --- the end ---

    async def drain(self) -> None:
        """Take no new work, finish what runs, keep the connection (NB-8)."""
        for sid in self._doors:
            self.nc.lean_unsubscribe(sid)
        with contextlib.suppress(NatsError, NotConnected, TimeoutError):
            await self.nc.flush()
        for station in self._stations:
            await station.settle()
        await self._asking.settle()

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._events.stop()
        with contextlib.suppress(NatsError, NotConnected, TimeoutError):
            await self.nc.flush()
        await self.nc.close()

    # --- callbacks of the connection ---

    def _gateway(self) -> Submissions:
        if self._submissions is None:
            assert self.recorder is not None, "the gateway records calls that get lost"
            self._submissions = Submissions(self.nc, self._transfers, self.recorder)
            self._background.append(asyncio.create_task(self._submissions.seek_forever()))
        return self._submissions

    def _on_inbox(self, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
        """Everything that is sent to this replica alone; the token after `.w.` says what it is."""
        kind, _, rest = subject[len(self.nc.inbox) + 3 :].decode().partition(".")
        if kind == "c" and self._submissions:
            self._submissions.on_reply(data)
        elif kind == "n":
            self._on_hop_answer(rest, header)
        elif kind == "a":
            self._asking.on_answer(rest, data, header)
        elif kind == "d":
            self._transfers.on_chunk(data)
        elif kind == "k":
            self._transfers.on_credit(data)
        elif kind == "p" and self._submissions:
            self._submissions.on_body_wanted(self._transfers.on_credit(data))
        elif kind == "s" and self._submissions:
            self._submissions.on_found(data)
        elif kind in self.on_inbox:
            self.on_inbox[kind](rest, data, header)

    def _on_hop_answer(self, call_id: str, header: bytes | None) -> None:
        if self._submissions:
            self._submissions.on_hop_answer(call_id, header)
        for station in self._stations:
            station.on_hop_answer(call_id, header)

    def _on_cancel(self, _subject: bytes, _reply: bytes, data: bytes, _header: bytes | None) -> None:
        for station in self._stations:
            station.cancel(data.decode())

    def _on_seek(self, _subject: bytes, reply: bytes, data: bytes, _header: bytes | None) -> None:
        held = [name for name in data.decode().split("\n") if any(s.holds(name) for s in self._stations)]
        if held:
            with contextlib.suppress(NotConnected):
                self.nc.lean_publish(reply.decode(), "\n".join(held).encode())

    async def _tell_load(self, station: Station) -> None:
        """A performer tells its load, so that policy can choose the less busy one (NB-10)."""
        while True:
            load = Load(
                instance=self.instance,
                in_flight=station.in_flight,
                latency_ms=station.latency_seconds * 1000,
            )
            with contextlib.suppress(NotConnected):
                self.nc.lean_publish(f"{LOAD}.{self.service}.{self.instance}", encode(load))
            await asyncio.sleep(LOAD_SECONDS)

    def _on_lost(self) -> None:
        """The connection broke: whoever waits learns it now (NB-2)."""
        self._transfers.fail_all()
        self._asking.fail_all()
        if self._submissions:
            self._submissions.fail_all(Unavailable("The bus was lost."))

    async def _on_error(self, error: Exception) -> None:
        # nats-py's text names subjects and hosts only; a permission violation means a forged or wrong subject.
        self._log.warning("bus: %s", type(error).__name__ if not str(error) else str(error)[:200])

    async def _on_reconnected(self) -> None:
        self._log.info("bus: connected again")

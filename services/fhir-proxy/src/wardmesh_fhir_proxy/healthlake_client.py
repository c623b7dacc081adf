"""The back end that speaks AWS's control plane: the embedded store and AWS HealthLake, the same protocol (HL-17)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from wardmesh_common.errors import BadUpstream, TimedOut
from wardmesh_common.vocabulary import DATASTORE_CHANGES
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.healthlake_backend import Order, Said
from wardmesh_fhir_proxy.healthlake_model import Model
from wardmesh_fhir_proxy.upstream import UpstreamRequest

ATTEMPTS = 3
BACKOFF_SECONDS = 0.2
MAX_PAUSE_SECONDS = 5.0
STOPS = frozenset({"$stop-import-job", "$stop-export-job"})
NO_STOP = "AWS HealthLake has no operation that stops a job: it goes on to its end."
THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})


class ControlPlane:
    """Repeats what was throttled and can be repeated, slower after each refusal."""

    def __init__(
        self,
        exchanges: Exchanges,
        model: Model,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchanges = exchanges
        self._model = model
        self._jitter = jitter
        self._clock = clock
        self._slowed: dict[str, float] = {}  # endpoint -> pause before every request, halved by each success

    async def ask(self, place: Descriptor, order: Order) -> Said:
        written = self._model.written(order.operation, order.asked, order.token)
        if order.operation in STOPS and place.healthlake.signing == "sigv4":
            return Said(400, {}, "ValidationException", NO_STOP)
        bearer = {"Authorization": f"Bearer {order.bearer}"} if order.bearer else {}
        told = {"Accept": "application/json", "Accept-Encoding": "identity", **place.headers, **written.headers}
        request = UpstreamRequest(
            method="POST",
            url=f"{place.bases.patient}{place.healthlake.control}",
            headers={**told, **bearer},
            body=written.body,
            retryable=written.repeatable,
            write=order.operation in DATASTORE_CHANGES,
        )
        end = self._clock() + order.seconds
        attempt = 1
        while True:
            await self._wait(place.bases.patient, end)
            answer = await self._exchanges.send(place, request, order.principal, max(0.0, end - self._clock()))
            said = self._model.read(order.operation, answer)
            throttled = said.code in THROTTLED
            self._adapt(place.bases.patient, throttled=throttled)
            pause = min(MAX_PAUSE_SECONDS, BACKOFF_SECONDS * 2**attempt) * self._jitter()
            again = throttled and written.repeatable and attempt < ATTEMPTS
            if not again or self._clock() + pause >= end:
                break
            attempt += 1
            await asyncio.sleep(pause)
        if said.status >= 300 and not said.code:
            raise BadUpstream("The control plane failed to answer.")
        return said

    async def _wait(self, endpoint: str, end: float) -> None:
        pause = self._slowed.get(endpoint, 0.0)
        if self._clock() + pause >= end:
            raise TimedOut("The control plane asks to slow down, and the call's time is over.")
        if pause:
            await asyncio.sleep(pause)

    def _adapt(self, endpoint: str, *, throttled: bool) -> None:
        pause = self._slowed.get(endpoint, 0.0)
        pause = min(MAX_PAUSE_SECONDS, max(0.05, pause * 2)) if throttled else pause / 2
        if pause < 0.01:
            self._slowed.pop(endpoint, None)
        else:
            self._slowed[endpoint] = pause

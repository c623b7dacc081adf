"""Attempts against one platform: lane, time limit, retries that cannot repeat an effect, honest failures (PX-9)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from wardmesh_common.deadline import Deadlines
from wardmesh_common.errors import Busy, OutcomeUnknown, PlatformDown, TimedOut, WardmeshError
from wardmesh_common.streamed import Streamed
from wardmesh_fhir_proxy import headers
from wardmesh_fhir_proxy.ambiguity import settled
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.healthlake_signing import Signs
from wardmesh_fhir_proxy.lanes import Lane
from wardmesh_fhir_proxy.upstream import (
    ConnectFailed,
    ExchangeFailed,
    Transport,
    UpstreamAnswer,
    UpstreamRequest,
)

MAX_RETRIES = 2
BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
PATIENT_SECONDS = 5.0  # a platform silent for this long is failing
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


class Exchanges:
    """Sends requests for calls; keeps one lane per (platform, base)."""

    def __init__(
        self,
        transport: Transport,
        signer: Signs,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._signer = signer
        self._jitter = jitter
        self._clock = clock
        self._deadlines = Deadlines()
        self._lanes: dict[tuple[str, str], tuple[Descriptor, Lane]] = {}

    def lane(self, descriptor: Descriptor) -> Lane:
        key = (descriptor.id, descriptor.bases.patient)
        held = self._lanes.get(key)
        if held is None or (held[0] is not descriptor and held[0] != descriptor):
            held = (descriptor, Lane(descriptor, self._clock))
            self._lanes[key] = held
        return held[1]

    async def send(
        self, descriptor: Descriptor, request: UpstreamRequest, principal: str, seconds: float
    ) -> UpstreamAnswer:
        """The platform's answer within `seconds`; raises TimedOut, OutcomeUnknown, PlatformDown, Busy, RateLimited."""
        lane = self.lane(descriptor)
        end = self._clock() + min(seconds, descriptor.timeout_seconds)
        lane.count_request()
        attempt = 0
        while True:
            answer, error = await self._attempt(lane, descriptor, request, principal, end)
            if not request.retryable or attempt >= MAX_RETRIES or not self._transient(answer, error):
                break
            pause = self._pause(answer, attempt)
            if self._clock() + pause >= end or not lane.may_retry():
                break
            attempt += 1
            await asyncio.sleep(pause)
        if error is not None:
            raise error
        assert answer is not None, "an attempt ends with an answer or an error"
        if attempt and answer.status in {404, 410, 412} and request.write:
            return await self._resolve(lane, descriptor, request, principal, end, answer)
        return answer

    async def _attempt(
        self, lane: Lane, descriptor: Descriptor, request: UpstreamRequest, principal: str, end: float
    ) -> tuple[UpstreamAnswer | None, WardmeshError | None]:
        request = await self._signer.sign(descriptor, request)
        await lane.enter(principal, end - self._clock())
        failed: bool | None = True
        streaming = False
        allowed = end - self._clock()
        try:
            with self._deadlines.within(allowed):
                answer = await self._transport.exchange(descriptor.bases.patient, lane.limit, request)
            failed = answer.status >= 500
        except ConnectFailed:
            return None, PlatformDown("The platform cannot be reached.")
        except ExchangeFailed:
            return None, _lost(request)
        except TimeoutError:
            # A caller in a hurry says nothing about the platform.
            failed = True if allowed >= PATIENT_SECONDS else None
            return None, _late(request)
        except BaseException:
            failed = None  # cancelled, or an answer too large: no word on the platform's health
            raise
        else:
            if answer.stream is not None:
                streaming = await _begun(lane, answer.stream)
            return answer, None
        finally:
            if not streaming:
                lane.leave(failed=failed)

    def _transient(self, answer: UpstreamAnswer | None, error: WardmeshError | None) -> bool:
        if answer is not None:
            return answer.status in RETRIED_STATUSES
        return not isinstance(error, TimedOut) or isinstance(error, OutcomeUnknown)

    def _pause(self, answer: UpstreamAnswer | None, attempt: int) -> float:
        """Full jitter; Retry-After when the platform said one."""
        asked = headers.retry_after_seconds(answer.headers.get("Retry-After", ""), time.time()) if answer else 0
        return float(asked) if asked else min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt) * self._jitter()

    async def _resolve(
        self,
        lane: Lane,
        descriptor: Descriptor,
        request: UpstreamRequest,
        principal: str,
        end: float,
        answer: UpstreamAnswer,
    ) -> UpstreamAnswer:
        """A refusal of a repeated conditional write may mean that the first attempt had worked: look and compare."""
        look = UpstreamRequest(
            method="GET",
            url=request.url.partition("?")[0],
            headers={k: v for k, v in request.headers.items() if k in {"Accept", "Authorization"}},
        )
        stored, error = await self._attempt(lane, descriptor, look, principal, end)
        if error is not None or stored is None:
            raise OutcomeUnknown("The platform's answer to a repeated write is ambiguous.")
        return settled(request, stored, answer)


async def _begun(lane: Lane, stream: Streamed) -> bool:
    """The place is taken until the last piece has left. Raises Busy, with the stream closed."""
    try:
        lane.begin_stream()
    except Busy:
        await stream.close()
        raise
    stream.afterwards(lane.end_stream)
    return True


def _lost(request: UpstreamRequest) -> WardmeshError:
    if request.write:
        return OutcomeUnknown("The connection broke during a write; it may or may not have happened.")
    return PlatformDown("The platform closed the connection.")


def _late(request: UpstreamRequest) -> WardmeshError:
    if request.write:
        return OutcomeUnknown("The platform did not answer a write in time; it may or may not have happened.")
    return TimedOut("The platform did not answer in time.")

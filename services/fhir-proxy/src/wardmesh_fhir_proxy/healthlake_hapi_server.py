"""One request to HAPI and what its answer means in AWS's words; state stays there, nothing is remembered here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.headers import FHIR_JSON
from wardmesh_fhir_proxy.healthlake_backend import Order
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, UpstreamRequest

DEFAULT = "DEFAULT"  # HAPI's own partition, where partitions are managed
VALIDATION = "ValidationException"
CONFLICT = "ConflictException"
NOT_FOUND = "ResourceNotFoundException"
# HAPI's status -> AWS's code, for what is refused whatever was asked.
_ALWAYS = {401: "AccessDeniedException", 403: "AccessDeniedException", 429: "ThrottlingException"}


class Refusal(Exception):
    """A refusal in AWS's code and our words."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code, self.text = code, text


class Errand:
    """One order at one HAPI, with its own time limit."""

    def __init__(self, exchanges: Exchanges, place: Descriptor, order: Order, clock: Callable[[], float]) -> None:
        self._exchanges, self._clock = exchanges, clock
        self.place, self.order = place, order
        self._end = clock() + order.seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - self._clock())

    async def get(self, path: str) -> UpstreamAnswer:
        return await self._send("GET", path, b"", {}, write=False)

    async def remove(self, path: str) -> UpstreamAnswer:
        return await self._send("DELETE", path, b"", {}, write=True)

    async def change(self, path: str, parameters: list[dict[str, Any]], **headers: str) -> UpstreamAnswer:
        """Never repeated by itself: HAPI knows no token that would make a second start the same as the first."""
        return await self.post(path, {"resourceType": "Parameters", "parameter": parameters}, **headers)

    async def post(self, path: str, resource: dict[str, Any], **headers: str) -> UpstreamAnswer:
        return await self._send("POST", path, msgspec.json.encode(resource), headers, write=True)

    async def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str], *, write: bool
    ) -> UpstreamAnswer:
        told = {"Accept": FHIR_JSON, "Accept-Encoding": "identity", "Cache-Control": "no-cache", **self.place.headers}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            told["Content-Type"] = FHIR_JSON
        if self.order.bearer:
            told["Authorization"] = f"Bearer {self.order.bearer}"
        request = UpstreamRequest(
            method=method,
            url=f"{self.place.bases.patient}/{path}",
            headers=told,
            body=body,
            retryable=not write,
            write=write,
        )
        answer = await self._exchanges.send(self.place, request, self.order.principal, self.left)
        if answer.status in _ALWAYS:
            raise Refusal(_ALWAYS[answer.status], "HAPI refused access or asks to slow down.")
        return answer


class HapiServer:
    def __init__(self, exchanges: Exchanges, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchanges, self._clock = exchanges, clock

    def errand(self, place: Descriptor, order: Order) -> Errand:
        return Errand(self._exchanges, place, order, self._clock)


def document(answer: UpstreamAnswer) -> dict[str, Any]:
    """The JSON object of an answer. Raises BadUpstream."""
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise BadUpstream("HAPI's answer cannot be read.") from None


def issues(answer: UpstreamAnswer) -> str:
    """The texts of an OperationOutcome, or ""."""
    try:
        told = msgspec.json.decode(answer.body, type=dict[str, Any]).get("issue")
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ""
    found = [issue.get("diagnostics") for issue in told or () if isinstance(issue, dict)]
    return "; ".join(text for text in found if isinstance(text, str))

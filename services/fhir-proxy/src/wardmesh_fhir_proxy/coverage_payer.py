"""One coverage call's way to the platform and its payer's services: bounded, in time, the token stays at the base."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadUpstream, NotFound, RateLimited, TimedOut, WardmeshError
from wardmesh_fhir_proxy import faults, headers, json_exact
from wardmesh_fhir_proxy.coverage_tree import Tree, document, text
from wardmesh_fhir_proxy.descriptor import OWN_BASE, Bases, Descriptor, Rate
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, UpstreamRequest, media_checked

_OURS = frozenset({400, 401, 403, 422, 429})  # what a platform says about the call itself
_GONE = frozenset({404, 410})
UNAUTHORIZED = 401
LACKS_DATA = 412
JSON = "application/json"


class Place(Struct, frozen=True):
    """Where a request goes: the platform's own base with the call's token, or a payer's server without."""

    base: str
    descriptor: Descriptor
    own: bool


class Payer:
    """Made for one call."""

    def __init__(
        self,
        exchanges: Exchanges,
        own: Place,
        call: Call,
        token: str,
        renew: Callable[[], Awaitable[str]],
        remaining: Callable[[], float],
    ) -> None:
        assert call.principal is not None, "the pair assertion comes first"
        self._exchanges = exchanges
        self._own = own
        self._call = call
        self._principal = call.principal.id
        self._token = token
        self._renew: Callable[[], Awaitable[str]] | None = renew if token else None
        self._remaining = remaining

    def place(self, url: str) -> Place:
        """Of an address in the descriptor."""
        base = url.rstrip("/")
        if base in (OWN_BASE, self._own.base):
            return self._own
        elsewhere = msgspec.structs.replace(
            self._own.descriptor, bases=Bases(patient=base), headers={}, error_map=(), rate=Rate()
        )
        return Place(base, elsewhere, own=False)

    def hosts(self, place: Place) -> tuple[str, ...]:
        """Names that must not show up in a text of the platform's."""
        named = (urlsplit(each.base).hostname or "" for each in (self._own, place))
        return tuple(dict.fromkeys(name for name in named if name))

    async def resource(self, kind: str, identity: str) -> Tree:
        """Raises NotFound and what the platform says of the call."""
        answer = await self._send(self._own, "GET", f"{kind}/{identity}")
        if answer.status in _GONE:
            raise NotFound("Resource not found")
        found = self._read(self._own, answer, kind)
        if (text(found, "resourceType"), text(found, "id")) != (kind, identity):
            raise BadUpstream("The platform answered with another resource than the one asked for.")
        return found

    async def get(self, place: Place, path: str, what: str) -> Tree:
        return self._read(place, await self._send(place, "GET", path), what)

    async def post(self, place: Place, path: str, body: Tree, what: str, media: str) -> Tree | None:
        """None when the service says that it lacks data (412); nothing that is posted here changes anything."""
        answer = await self._send(place, "POST", path, json_exact.encode(body), media)
        return None if answer.status == LACKS_DATA else self._read(place, answer, what)

    async def _send(self, place: Place, method: str, path: str, body: bytes = b"", media: str = "") -> UpstreamAnswer:
        seconds = self._remaining()
        if seconds <= 0:
            raise TimedOut("The call ran out of time before the platform had answered.")
        request = UpstreamRequest(
            method=method,
            url=f"{place.base}/{path}",
            headers=self._headers(place, media),
            body=body,
            retryable=method == "GET",
        )
        answer = await self._exchanges.send(place.descriptor, request, self._principal, seconds)
        if answer.status == UNAUTHORIZED and place.own and await self._renewed():
            return await self._send(place, method, path, body, media)
        return answer

    async def _renewed(self) -> bool:
        """A token that the platform refuses is renewed once; without a new one its 401 stands."""
        renew, self._renew = self._renew, None
        if renew is None:
            return False
        try:
            self._token = await renew()
        except WardmeshError:
            return False
        return True

    def _headers(self, place: Place, media: str) -> dict[str, str]:
        accept = JSON if media == JSON else place.descriptor.accept
        sent = {"Accept": accept, "Accept-Encoding": "gzip" if place.descriptor.compression else "identity"}
        if media:
            sent["Content-Type"] = media
        if self._call.traceparent:
            sent["traceparent"] = self._call.traceparent
        if place.own:
            sent.update(place.descriptor.headers)
        if place.own and self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        return sent

    def _read(self, place: Place, answer: UpstreamAnswer, what: str) -> Tree:
        if not 200 <= answer.status < 300:
            raise self._refusal(place, answer)
        aliases = place.descriptor.content_type_aliases
        return document(media_checked(answer, headers.JSON_TYPES.union(each.lower() for each in aliases)), what)

    def _refusal(self, place: Place, answer: UpstreamAnswer) -> WardmeshError:
        """What an answer that is no success means to the caller."""
        wait = headers.retry_after_seconds(answer.headers.get("Retry-After", ""), time.time())
        if answer.status == 429:
            return RateLimited("The platform asks to wait.", retry_after=wait)
        if place.own and answer.status in _OURS:
            outcome = faults.outcome_of(place.descriptor, self.hosts(place), answer.status, answer.body, {}, wait)
            if outcome.problem is not None:
                return Refused(outcome.problem)
        return BadUpstream("The platform's coverage service gave no usable answer.")

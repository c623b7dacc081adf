"""Perform one decided Call against its platform: the whole path from pair assertion to Outcome."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from wardmesh_common.assertion import assert_pair
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.errors import BadUpstream, Denied, OutcomeUnknown, TimedOut, TooLarge, WardmeshError
from wardmesh_common.record_class import announced
from wardmesh_common.vocabulary import is_write
from wardmesh_fhir_proxy import admission, batches, content, coverage_desk, cursors, exports, healthlake_desk, touching
from wardmesh_fhir_proxy.answers import Journey, shape
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.coverage_desk import CoverageDesk
from wardmesh_fhir_proxy.coverage_payer import Payer, Place
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.healthlake_desk import ControlDesk
from wardmesh_fhir_proxy.kinds import AskKinds, KindChecks
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.pages import Pages, open_page
from wardmesh_fhir_proxy.request import FORM, build, for_page, policy_filter, upstream_headers
from wardmesh_fhir_proxy.screening import Screen
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, UpstreamRequest

ENDING_SECONDS = 0.3  # kept for recording and replying

OpenToken = Callable[[Call], str]
RenewToken = Callable[[Call], Awaitable[str]]  # after a 401; raises when there is no other token to be had
RecordIntent = Callable[[Call, tuple[Touched, ...]], Awaitable[None]]


class Hop(Protocol):
    """What the performer needs of the bus's Hop."""

    def remaining(self) -> float: ...

    async def body(self) -> bytes: ...


class Performer:
    """The handler of `call.perform.fhir`."""

    def __init__(
        self,
        platforms: Platforms,
        exchanges: Exchanges,
        keys: Cursors,
        open_token: OpenToken,
        ask_kinds: AskKinds,
        record_intent: RecordIntent,
        renew_token: RenewToken,
        control_desk: ControlDesk,
    ) -> None:
        self._platforms = platforms
        self._exchanges = exchanges
        self._keys = keys
        self._open_token = open_token
        self._ask_kinds = ask_kinds
        self._record_intent = record_intent
        self._renew_token = renew_token
        self._desk = CoverageDesk()
        self._control_desk = control_desk
        self._addresses: dict[tuple[str, tuple[str, ...]], Address] = {}

    async def perform(self, call: Call, hop: Hop) -> Outcome:
        principal, _ = assert_pair(call)
        if healthlake_desk.concerns(call):
            return await self._at_control_desk(call, hop)
        descriptor = self._platforms.serving(call.platform)
        if coverage_desk.concerns(call):
            return await self._at_desk(call, descriptor, hop)
        admission.require_format(call)
        checks = KindChecks(self._ask_kinds, call)
        await admission.check_widening(call, checks)
        address = self._address(descriptor)
        screen = Screen(call, checks, address)
        body = await hop.body() if (call.body or call.parked) else b""
        body, denied = await admission.prepared(call, body, checks, screen)
        request, pages = self._request(call, descriptor, address, body, screen)
        touched: tuple[Touched, ...] = ()
        if request.write:
            await self._require_own(call, descriptor, address, body, request, hop)
            touched = touching.by_write(call, body, address)
        if announced(call):
            await self._record_intent(call, touched)
        seconds = hop.remaining() - ENDING_SECONDS
        if seconds <= 0:
            raise TimedOut("The call ran out of time before it reached the platform.")
        if denied and len(denied) == len(call.entries):
            answer = batches.nothing_sent()
        else:
            answer = await self._exchanges.send(descriptor, request, principal.id, seconds)
        if answer.status == 401 and request.retryable and call.grant and call.grant.sealed_token:
            answer = await self._once_more(call, descriptor, request, answer, hop)
        await content.find_whose(call, answer, screen, self._reader(call, descriptor, address, hop))
        journey = Journey(
            call=call,
            descriptor=descriptor,
            address=address,
            screen=screen,
            pages=pages,
            keys=self._keys,
            denied=denied,
        )
        return await self._shaped(journey, answer, request, touched)

    async def _at_desk(self, call: Call, descriptor: Descriptor, hop: Hop) -> Outcome:
        body = await hop.body() if (call.body or call.parked) else b""
        address = self._address(descriptor)
        payer = Payer(
            self._exchanges,
            Place(address.base, descriptor, own=True),
            call,
            self._open_token(call),
            lambda: self._renew_token(call),
            lambda: hop.remaining() - ENDING_SECONDS,
        )
        return await self._desk.perform(call, descriptor, address, body, payer)

    async def _at_control_desk(self, call: Call, hop: Hop) -> Outcome:
        """Datastores are managed, not read: nothing of anybody's record is touched, but a change is announced first."""
        asked = healthlake_desk.read_body(await hop.body())
        place = self._platforms.managing(call.platform, asked.region)
        if is_write(call.interaction, call.operation):
            if not place.writes:
                raise Denied("Writing is switched off for this platform.")
            await self._record_intent(call, ())
        bearer, seconds = self._open_token(call), hop.remaining() - ENDING_SECONDS
        return await self._control_desk.perform(call, place, asked, bearer, seconds)

    async def _once_more(
        self, call: Call, descriptor: Descriptor, request: UpstreamRequest, refused: UpstreamAnswer, hop: Hop
    ) -> UpstreamAnswer:
        """What may be repeated, once, with a new token; without one the platform's 401 stands (PX-9)."""
        assert call.principal is not None, "the pair assertion comes first"
        try:
            token = await self._renew_token(call)
        except WardmeshError:
            return refused
        seconds = hop.remaining() - ENDING_SECONDS
        if seconds <= 0:
            return refused
        headers = {**request.headers, "Authorization": f"Bearer {token}"}
        again = msgspec.structs.replace(request, headers=headers)
        return await self._exchanges.send(descriptor, again, call.principal.id, seconds)

    async def _shaped(
        self, journey: Journey, answer: UpstreamAnswer, request: UpstreamRequest, touched: tuple[Touched, ...]
    ) -> Outcome:
        try:
            outcome = await shape(journey, answer, time.time())
        except (BadUpstream, TooLarge):
            if request.write and 200 <= answer.status < 300:
                raise OutcomeUnknown("The write was sent, but its answer cannot be passed on.") from None
            raise
        outcome.touched = touching.completed(outcome.touched, touched)
        return outcome

    def _reader(self, call: Call, descriptor: Descriptor, address: Address, hop: Hop) -> content.Fetch:
        """Reads beside the answer, as the same caller."""

        async def read(path: str) -> UpstreamAnswer:
            assert call.principal is not None
            plain = msgspec.structs.replace(call, headers={}, query="")
            sent = upstream_headers(plain, descriptor, self._open_token(call), "", has_body=False)
            request = UpstreamRequest(method="GET", url=address.url(path), headers=sent, retryable=True)
            seconds = hop.remaining() - ENDING_SECONDS
            return await self._exchanges.send(descriptor, request, call.principal.id, seconds)

        return read

    def _address(self, descriptor: Descriptor) -> Address:
        key = (descriptor.bases.patient, descriptor.page_link.hosts)
        found = self._addresses.get(key)
        if found is None:
            found = self._addresses[key] = Address.of(descriptor)
        return found

    async def _require_own(
        self, call: Call, descriptor: Descriptor, address: Address, body: bytes, request: UpstreamRequest, hop: Hop
    ) -> None:
        async def read_stored() -> UpstreamAnswer:
            assert call.principal is not None
            look = admission.looking_at(request)
            return await self._exchanges.send(descriptor, look, call.principal.id, hop.remaining() - ENDING_SECONDS)

        await admission.require_own(call, body, address, read_stored)

    def _request(
        self, call: Call, descriptor: Descriptor, address: Address, body: bytes, screen: Screen
    ) -> tuple[UpstreamRequest, Pages]:
        token = self._open_token(call)
        cursor = cursors.token_in(call.query)
        exports.check(call, cursor)
        obligations = call.decision.obligations if call.decision else None
        added = policy_filter(call, obligations) if obligations else None
        checked = None if descriptor.handling_strict else added
        narrowed = added is not None
        if cursor:
            page = open_page(call, self._keys, address, cursor)
            request = for_page(call, descriptor, page.url, token)
            return request, Pages(
                call, self._keys, address, page.url, page.offset, required=None, narrowed=narrowed, continued=True
            )
        mark = screen.masks.fingerprint([call.resource.type]) if screen.masks.by_type else ""
        request = build(call, descriptor, address, body, token=token, fingerprint=mark, added=added)
        return request, Pages(call, self._keys, address, as_get(request), 0, required=checked, narrowed=narrowed)


def as_get(request: UpstreamRequest) -> str:
    """The address under which the same page can be asked for again; a form search becomes its GET twin."""
    if request.headers.get("Content-Type", "").startswith(FORM) and request.body:
        url = request.url.replace("/_search", "", 1)
        return f"{url}{'&' if '?' in url else '?'}{request.body.decode('ascii', 'replace')}"
    return request.url

"""From an upstream answer to the Outcome a caller gets: errors, capabilities, one resource, or a Bundle."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadUpstream, NotFound, TooLarge
from wardmesh_common.streamed import size_of
from wardmesh_common.vocabulary import EXPORT, EXPORT_FILE, EXPORT_STATUS, READS, Interaction, is_write
from wardmesh_fhir_proxy import (
    capability,
    content,
    envelope,
    etags,
    exports,
    faults,
    headers,
    json_exact,
    links,
    model_view,
)
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.pages import Pages
from wardmesh_fhir_proxy.request import raw_content
from wardmesh_fhir_proxy.screening import CONTAINERS, Screen, look, nested_kinds
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, media_checked

BUNDLED = frozenset({Interaction.SEARCH, Interaction.HISTORY, Interaction.BATCH, Interaction.TRANSACTION})


class Journey(Struct, kw_only=True):
    """What the parts of one performance share."""

    call: Call
    descriptor: Descriptor
    address: Address
    screen: Screen
    pages: Pages
    keys: Cursors
    denied: tuple[int, ...] = ()

    @property
    def limited(self) -> bool:
        return bool(self.call.decision and self.call.decision.obligations.compartment)


async def shape(journey: Journey, answer: UpstreamAnswer, now: float) -> Outcome:
    """Raises WardmeshError for what must not be relayed."""
    outcome = None
    try:
        outcome = await _shaped(journey, answer, now)
        return outcome
    finally:
        if answer.stream is not None and (outcome is None or outcome.stream is None):
            await answer.stream.close()


async def _shaped(journey: Journey, answer: UpstreamAnswer, now: float) -> Outcome:
    if answer.status == 304:
        return _not_modified(journey, answer)
    if not 200 <= answer.status < 300:
        return _refused(journey, answer, now)
    if not answer.body and answer.stream is None:
        if answer.status == 200 and not is_write(journey.call.interaction, journey.call.operation):
            raise BadUpstream("The platform answered with nothing.")
        return Outcome(status=answer.status, headers=_headers(journey, answer))
    if raw_content(journey.call):
        return await _binary(journey, answer)
    if journey.call.operation == EXPORT_STATUS:
        return _manifest(journey, answer)
    return await _content(journey, answer)


async def _content(journey: Journey, answer: UpstreamAnswer) -> Outcome:
    aliases = journey.descriptor.content_type_aliases
    kinds = headers.JSON_TYPES.union(alias.lower() for alias in aliases) if aliases else headers.JSON_TYPES
    body = media_checked(answer, kinds)
    if journey.call.interaction is Interaction.CAPABILITIES:
        return _capabilities(journey, answer, body)
    if journey.call.interaction in BUNDLED and (found := envelope.answered(body)) is not None:
        return await journey.pages.outcome(journey, answer, found)
    seen = look(body)
    if seen.resourceType == "Bundle" and not _is_stored_bundle(journey.call):
        bundle = _envelope_of(body)
        if bundle.type in envelope.ANSWERS:
            return await journey.pages.outcome(journey, answer, bundle)
    return await _single(journey, answer, body, seen)


def _is_stored_bundle(call: Call) -> bool:
    """A Bundle that was asked for by id is content, whatever its type says."""
    return call.resource.type == "Bundle" and call.interaction in READS


def _envelope_of(body: bytes) -> envelope.Bundle:
    try:
        return envelope.decode(body)
    except msgspec.DecodeError:
        raise BadUpstream("The platform sent a Bundle that cannot be read.") from None


def _refused(journey: Journey, answer: UpstreamAnswer, now: float) -> Outcome:
    hosts = (journey.address.host,)
    wait = headers.retry_after_seconds(answer.headers.get("Retry-After", ""), now)
    outcome = faults.outcome_of(journey.descriptor, hosts, answer.status, answer.body, {}, wait)
    if wait:
        outcome.headers = {"Retry-After": str(wait)}
    if journey.limited and outcome.status in (404, 410):
        # "Not there" and "not yours" must look the same to a caller who is limited to one patient.
        return withheld()
    return outcome


def withheld() -> Outcome:
    """One answer for a resource that does not exist and for one the caller may not see."""
    error = NotFound("Resource not found")
    body = envelope.operation_outcome("error", "not-found", "Resource not found")
    return Outcome(status=404, body=body, problem=error.problem)


def _headers(journey: Journey, answer: UpstreamAnswer) -> dict[str, str]:
    passed = headers.to_caller(answer.headers)
    for name in ("Location", "Content-Location"):
        if name in passed:
            mapped = links.rewrite(journey.address, journey.call.base_url, passed[name])
            if name == "Content-Location" and journey.call.operation == EXPORT:
                mapped = exports.status_link(journey.call, journey.keys, journey.address, passed[name])
            if mapped is None:
                del passed[name]
            else:
                passed[name] = mapped
    return passed


def _not_modified(journey: Journey, answer: UpstreamAnswer) -> Outcome:
    passed = _headers(journey, answer)
    mark = journey.screen.masks.fingerprint([journey.call.resource.type])
    if "ETag" in passed and mark:
        passed["ETag"] = etags.masked(passed["ETag"], mark)
    return Outcome(status=304, headers=passed)


def _manifest(journey: Journey, answer: UpstreamAnswer) -> Outcome:
    """Of an export that has ended, or 202 of one that goes on and says more than its headers."""
    if answer.status != 200:
        return Outcome(status=answer.status, headers=_headers(journey, answer))
    call = journey.call
    told = exports.manifest(call, journey.keys, journey.address, answer.body, call.base_url)
    return Outcome(status=200, body=told, media_type=headers.JSON, headers=_headers(journey, answer))


async def _binary(journey: Journey, answer: UpstreamAnswer) -> Outcome:
    """Bytes nobody can look into leave only for callers without masks, and where what stands in for them may (ADR 36).

    A file of an export was found by a link of its own; it may hold whatever a limit keeps back.
    """
    call, screen = journey.call, journey.screen
    if call.operation == EXPORT_FILE:
        permitted = not journey.limited
    else:
        seen = content.described(call, answer)
        await screen.learn([seen])
        permitted = screen.allowed(seen)
        if permitted and not screen.masks.by_type:
            screen.note(seen, b"")
    if not permitted or screen.masks.by_type:
        return withheld()
    kind = answer.headers.get("Content-Type", "application/octet-stream")
    passed = _headers(journey, answer)
    if answer.encoding:
        passed |= {"Content-Encoding": answer.encoding, "Vary": "Accept, Accept-Encoding"}
    touched = screen.tally.touched()
    outcome = Outcome(
        status=200, body=answer.body, stream=answer.stream, media_type=kind, headers=passed, touched=touched
    )
    return _capped(call, outcome)


def _capabilities(journey: Journey, answer: UpstreamAnswer, body: bytes) -> Outcome:
    call = journey.call
    word, _, kind = call.operation.partition(":")
    if word == "summary":
        document = json_exact.decode(body)
        short = capability.capability_summary(document, kind)
        return _bounded(call, Outcome(status=200, body=json_exact.encode(short)))
    rewritten = capability.rewrite(body, call.base_url)
    return _bounded(call, Outcome(status=200, body=rewritten, headers=_headers(journey, answer)))


def _bounded(call: Call, outcome: Outcome) -> Outcome:
    if call.view.model:
        outcome.body, outcome.truncated = model_view.single(outcome.body, call.view.max_bytes)
    return outcome


async def _single(journey: Journey, answer: UpstreamAnswer, body: bytes, seen: Any) -> Outcome:
    """One resource: checked against what was asked for, screened, tagged."""
    call, screen = journey.call, journey.screen
    if call.interaction in READS and (seen.resourceType, seen.id) != (call.resource.type, call.resource.id):
        raise BadUpstream("The platform answered with another resource than the one asked for.")
    await screen.learn([seen], nested_kinds([body]) if seen.resourceType in CONTAINERS else ())
    resource = screen.pass_on(seen, body)
    if resource is None:
        outcome = withheld()
        outcome.withheld = screen.tally.withheld
        return outcome
    passed = _headers(journey, answer)
    _tag(journey, passed, seen)
    if _fresh(call, passed.get("ETag", "")):
        return Outcome(status=304, headers=passed, touched=screen.tally.touched())
    outcome = Outcome(
        status=answer.status,
        body=bytes(resource),
        headers=passed,
        touched=screen.tally.touched(),
        masked=screen.tally.masked,
        withheld=screen.tally.withheld,
    )
    return _capped(call, _bounded(call, outcome))


def _tag(journey: Journey, passed: dict[str, str], seen: Any) -> None:
    screen = journey.screen
    if not (screen.tally.masked or screen.tally.withheld):
        return
    tag = etags.masked(passed.pop("ETag", ""), screen.fingerprint(seen)) if not screen.tally.withheld else ""
    passed.pop("ETag", None)
    if tag:
        passed["ETag"] = tag


def _fresh(call: Call, etag: str) -> bool:
    wanted = call.headers.get("if-none-match", "")
    return bool(wanted) and call.interaction in READS and etags.matches(wanted, etag)


def _capped(call: Call, outcome: Outcome) -> Outcome:
    cap = call.decision.obligations.max_bytes if call.decision else 0
    if cap and not 0 <= size_of(outcome.body, outcome.stream) <= cap:  # an unknown size is told too late
        raise TooLarge("The answer is larger than policy allows for this caller.")
    return outcome

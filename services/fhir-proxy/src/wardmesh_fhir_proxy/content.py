"""The content of a Binary: whose it is is found out before any of it leaves, or is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest, Denied, NotAllowed
from wardmesh_common.vocabulary import READS, Interaction
from wardmesh_fhir_proxy import headers
from wardmesh_fhir_proxy.compartment import BINARY, Peek, peek
from wardmesh_fhir_proxy.contexts import in_bulk
from wardmesh_fhir_proxy.request import raw_content
from wardmesh_fhir_proxy.screening import Screen, look
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

CONTEXT = "X-Security-Context"  # how servers say it beside the bytes
FORMATS = frozenset({"application/xml", "text/xml", "application/x-turtle", "text/turtle"})  # of FHIR, by other names
Fetch = Callable[[str], Awaitable[UpstreamAnswer]]  # by its path below the base


def described(call: Call, answer: UpstreamAnswer) -> Any:
    """What is known of a Binary without its content."""
    if not raw_content(call):
        return look(answer.body)
    reference = answer.headers.get(CONTEXT)
    return Peek(
        resourceType=BINARY,
        id=call.resource.id,
        contentType=answer.headers.get("Content-Type", ""),
        securityContext=None if reference is None else {"reference": reference},
    )


async def find_whose(call: Call, answer: UpstreamAnswer, screen: Screen, fetch: Fetch) -> None:
    """Read what stands in for a Binary, where its reference alone does not say whose record that is.

    With the caller's own token: what the platform does not show this caller lets nothing out. Closes the answer's
    stream when it raises.
    """
    if call.resource.type != BINARY or call.interaction not in READS or answer.status != 200:
        return
    try:
        seen = described(call, answer)
        await screen.learn([seen])
        context = screen.contexts.wanted(seen)
        if context is None:
            return
        stored = await fetch("/".join(context))
        found = look(stored.body) if stored.status == 200 else None
        if found is None or (found.resourceType, found.id) != context:
            screen.contexts.found(context, None)
            return
        screen.contexts.found(context, found)
        await screen.learn([found])
    except BaseException:
        if answer.stream is not None:
            await answer.stream.close()
        raise


async def require_readable(call: Call, body: bytes, screen: Screen) -> None:
    """Nobody writes a Binary that they could not read afterwards; the answer to it would be held back as well."""
    kind = headers.media_type(call.media_type)
    if call.interaction is Interaction.PATCH:
        raise NotAllowed("A Binary is replaced, not patched: a patch could take away what it stands under.")
    if as_resource(call):
        await require_allowed(body, screen)
    elif kind in FORMATS or ("fhir" in kind and not in_bulk(kind)):
        # A platform may take it for the resource, with a context in it that nobody has looked at.
        raise BadRequest("A Binary is written as FHIR JSON, or as bytes of a type that is no format of FHIR.")
    else:
        await _require(Peek(resourceType=BINARY, contentType=kind), screen)


async def require_allowed(resource: bytes, screen: Screen) -> None:
    """The same for a Binary in FHIR JSON, wherever it stands."""
    try:
        seen = peek(resource)
    except msgspec.DecodeError:
        raise BadRequest("The body is not a Binary.") from None
    await _require(seen, screen)


def as_resource(call: Call) -> bool:
    """A body without a type leaves as FHIR JSON."""
    return not call.media_type or headers.media_type(call.media_type) in headers.JSON_TYPES


async def _require(seen: Any, screen: Screen) -> None:
    await screen.learn([seen])
    if not screen.contexts.allow(seen, screen.allowed):
        raise Denied("The content stands under something that you may not read.")

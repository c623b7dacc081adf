"""The content of a Binary that was asked for by id: whose it is is found out before any of it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import Interaction
from wardmesh_fhir_proxy.compartment import BINARY, Peek
from wardmesh_fhir_proxy.request import raw_content
from wardmesh_fhir_proxy.screening import Screen, look
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

READS = frozenset({Interaction.READ, Interaction.VREAD})
CONTEXT = "X-Security-Context"  # how servers say it beside the bytes
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

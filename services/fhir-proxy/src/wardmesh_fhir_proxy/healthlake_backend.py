"""What stands behind datastores, seen from the desk: one order, one answer in AWS's members, whoever carries it out."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from wardmesh_fhir_proxy.descriptor import Descriptor


class Order(Struct, frozen=True, kw_only=True):
    """One operation on datastores, their jobs or tags. `token` names it: a repeated order is the same order."""

    operation: str
    asked: dict[str, Any]
    principal: str
    token: str
    seconds: float
    bearer: str = ""  # the platform's own token, where it takes one


class Said(Struct, frozen=True):
    """What the back end answered: a result, or AWS's code and text of an error."""

    status: int
    result: dict[str, Any] = {}
    code: str = ""
    message: str = ""


class Backend(Protocol):
    """The embedded store and AWS speak one protocol (`ControlPlane`), HAPI has operations of its own (`Hapi`)."""

    async def ask(self, place: Descriptor, order: Order) -> Said:
        """Raises BadRequest for a malformed request, TimedOut, PlatformDown, OutcomeUnknown, BadUpstream."""
        ...

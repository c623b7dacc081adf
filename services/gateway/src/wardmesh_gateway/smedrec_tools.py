"""The SMART server's tools through the one door: on one platform, with their own error texts (SM-5, SM-11, SM-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest, PlatformUnconfigured, WardmeshError
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway import smedrec_words as words
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.calls import Door, Wanted
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.problem import of_reply
from wardmesh_gateway.smedrec_calls import wanted_of
from wardmesh_gateway.tool_family import Worded
from wardmesh_gateway.tool_spec import ToolSpec

STATION = "policy"
_NOT_DECIDED = frozenset({"forbidden", "unavailable", "timeout"})  # a policy that cannot be asked refuses (SM-6)
_INSUFFICIENT = "insufficient_scope"
_UNKNOWN = "SMART_ISS is not the FHIR base of a platform in the catalogue."


class SmedrecTools:
    """A Family of tools. `issuer` is the FHIR base of the platform; `platform` names it where there is none or several
    have it."""

    def __init__(self, door: Door, platforms: Platforms, *, issuer: str, platform: str, public_url: str) -> None:
        self._door = door
        self._platforms = platforms
        self._issuer = issuer.rstrip("/")
        self._platform = platform
        self._public_url = public_url

    async def call(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered:
        try:
            wanted = wanted_of(tool, arguments)
        except BadRequest as error:
            raise Worded(error.problem, error.problem.detail) from None
        facts = self._answering()
        # Who has not signed in hears it in the words of SM-11, from auth, which records it (SM-8).
        wanted = msgspec.structs.replace(wanted, anyone=visit.anonymous)
        try:
            delivery = await self._door.submit(wanted, facts, visit, face, traceparent=traceparent)
        except WardmeshError as error:
            if error.problem.code == _INSUFFICIENT:
                raise  # the face answers these with a challenge
            raise words.failed(error.problem, wanted, b"", error.call_id) from None
        body, reply = await delivery.body(), delivery.reply
        problem = of_reply(reply, body)
        if problem is not None:
            if problem.code == "sign_in_required" or (problem.status == 401 and visit.token is None):
                raise words.no_client(problem, self._hint(facts, visit), reply.call_id)
            if problem.code in _NOT_DECIDED and reply.station == STATION:
                raise words.forbidden(problem, wanted, reply)
            raise words.failed(problem, wanted, body, reply.call_id)
        return Answered(body=body or _gone(wanted), call_id=reply.call_id, platform=facts.id)

    def _hint(self, facts: PlatformFacts, visit: Visit) -> str:
        """A browser's login is all it takes; who has a token of our issuer signs in as the same person first."""
        login = f"Open {self._public_url}/auth/login to sign in"
        return login if visit.token is None else f"{login} and {self._public_url}/auth/{facts.id}/login to connect"

    def _answering(self) -> PlatformFacts:
        """Raises PlatformUnknown, PlatformUnconfigured."""
        if not self._issuer:
            return self._door.platform(self._platform, Face.MCP)
        found = [each for each in self._platforms.snapshot.platforms if each.fhir_base_url.rstrip("/") == self._issuer]
        if not found:
            raise PlatformUnconfigured(_UNKNOWN)
        return next((facts for facts in found if facts.id == self._platform), found[0])


def _gone(wanted: Wanted) -> bytes:
    """A delete has no resource to show: an OperationOutcome says that it was done."""
    assert wanted.interaction is Interaction.DELETE, "every other success has a body"
    issue = {"severity": "information", "code": "informational", "diagnostics": f"Deleted {wanted.type}/{wanted.id}"}
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})

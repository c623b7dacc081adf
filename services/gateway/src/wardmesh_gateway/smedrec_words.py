"""The error texts of the SMART server's tools, word by word (SM-6, SM-11, SM-12)."""

from __future__ import annotations

from wardmesh_common.contracts import Reply
from wardmesh_common.errors import Problem
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.tool_family import Worded, issues_of

NO_CLIENT = "FHIR client not available."
ACTIONS = {
    Interaction.CREATE: "create",
    Interaction.READ: "read",
    Interaction.UPDATE: "update",
    Interaction.SEARCH: "search",
    Interaction.DELETE: "delete",
}


def no_client(problem: Problem, hint: str, call_id: str) -> Worded:
    """The person has no session at the FHIR platform (SM-11)."""
    return Worded(problem, f"{NO_CLIENT} {hint}, then try again.", call_id)


def forbidden(problem: Problem, wanted: Wanted, reply: Reply) -> Worded:
    """Policy said no, or could not be asked, which is the same."""
    who, roles = reply.refused_id or "anonymous", ", ".join(reply.refused_roles)
    text = (
        f"Forbidden: User {who} with roles [{roles}] not authorized to perform "
        f"'{ACTIONS[wanted.interaction]}' on {wanted.type}/{wanted.id or '*'}."
    )
    return Worded(problem, text, reply.call_id)


def failed(problem: Problem, wanted: Wanted, body: bytes, call_id: str) -> Worded:
    text = f"FHIR {wanted.type} {ACTIONS[wanted.interaction]} failed: Status {problem.status}"
    issues = issues_of(body)
    said = next((issue.text for issue in issues if issue.text), "")
    return Worded(problem, f"{text} - {said}" if said else text, call_id)

"""The error texts of the SMART server's tools, word by word (SM-6, SM-11, SM-12)."""

from __future__ import annotations

from wardmesh_common.errors import Problem
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.caller import Visit, principal_of
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


def no_client(problem: Problem, login_url: str, call_id: str) -> Worded:
    """The person has no session at the FHIR platform (SM-11)."""
    return Worded(problem, f"{NO_CLIENT} Open {login_url} to sign in, then try again.", call_id)


def forbidden(problem: Problem, wanted: Wanted, visit: Visit, call_id: str) -> Worded:
    """Policy said no, or could not be asked, which is the same."""
    principal = principal_of(visit.token, visit.caller.agent) if visit.token else None
    who, roles = (principal.id, ", ".join(principal.roles)) if principal else ("anonymous", "")
    text = (
        f"Forbidden: User {who} with roles [{roles}] not authorized to perform "
        f"'{ACTIONS[wanted.interaction]}' on {wanted.type}/{wanted.id or '*'}."
    )
    return Worded(problem, text, call_id)


def failed(problem: Problem, wanted: Wanted, body: bytes, call_id: str) -> Worded:
    text = f"FHIR {wanted.type} {ACTIONS[wanted.interaction]} failed: Status {problem.status}"
    issues = issues_of(body)
    said = next((issue.text for issue in issues if issue.text), "")
    return Worded(problem, f"{text} - {said}" if said else text, call_id)

"""From a call to the questions that Cerbos is asked: kind, id, action and attributes of every resource it concerns."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import PROCEDURE_KINDS, Call
from wardmesh_common.errors import BadRequest
from wardmesh_common.pieces import Piece, piece_of
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import SYSTEM, Emergency, Grant, Interaction, Principal, criteria_of, is_write
from wardmesh_policy.parameters import Asked, read_query
from wardmesh_policy.record_kinds import RECORD_KINDS

ACTIONS = {
    Interaction.READ: "read",
    Interaction.VREAD: "read",
    Interaction.SEARCH: "search",
    Interaction.CREATE: "create",
    Interaction.UPDATE: "update",
    Interaction.PATCH: "update",
    Interaction.DELETE: "delete",
    Interaction.HISTORY: "history",
    Interaction.CAPABILITIES: "capabilities",
}
EMERGENCY = "Emergency"
PURPOSE = "Purpose"
NAME = "name"
# A body larger than this is not read here: its entries and digest are what policy decides on.
BODY_BYTES = 256 * 1024
SUBJECTS = ("subject", "patient", "beneficiary", "individual")


class Check(Struct, frozen=True, kw_only=True):
    """One question: may this be done to that? `entry` is the position in a bundle, -1 outside of one."""

    kind: str
    action: str
    id: str = ""
    params: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    subject: str = ""  # patient id that a written resource names
    entry: int = -1
    came_along: bool = False
    write: bool = False
    probing: bool = False  # Piece.probing; not a matter for Cerbos
    target: tuple[str, str] = ("", "")  # kind and id of what is asked for, where `kind` is the way it is asked (B-14)

    def attributes(self, platform: PlatformFacts, grant: Grant | None) -> dict[str, Any]:
        """R.attr of the policies (access.yaml)."""
        if self.target[0]:
            return {"target": self.target[0], "target_id": self.target[1]}
        return {
            "open": platform.open,
            "writes": platform.writes,
            "granted": granted_by(platform, grant),
            "everywhere": everywhere_by(platform, grant),
            "came_along": self.came_along,
            "params": list(self.params),
            "arguments": [list(pair) for pair in self.arguments],
            "body": {"subject": self.subject},
        }


class Caller(Struct, frozen=True, kw_only=True):
    """The principal as Cerbos sees it. Someone signed in without a role of ours is a guest."""

    id: str
    roles: tuple[str, ...]
    patient: str = ""
    practitioner: str = ""
    compartment: str = ""
    client_id: str = ""
    agent: str = ""
    agent_did: str = ""
    capabilities: tuple[str, ...] = ()
    anonymous: bool = False
    in_browser: bool = False  # a session, not a token: somebody is there in person


RESERVED = frozenset({"anonymous", "guest"})


def granted_by(platform: PlatformFacts, grant: Grant | None) -> bool:
    """A person's own sign-in at the platform; the deployment's client credentials are nobody's grant."""
    return bool(grant and grant.scopes) and platform.auth_method == "authorization_code"


def everywhere_by(platform: PlatformFacts, grant: Grant | None) -> bool:
    """A clinician's sign-in (FG-36): the platform knows whose records its `user/` scopes reach."""
    return bool(grant and grant.everywhere) and granted_by(platform, grant)


def caller_of(principal: Principal, grant: Grant | None, *, home: bool) -> Caller:
    """`home`: the ids in this person's claims are ids of the platform that is asked.

    Cerbos stops at the first role that allows. `patient`, which allows only the own record, comes last, so that a
    second role is not narrowed by it; otherwise the order is fixed, so that equal sets give equal answers.
    """
    given = sorted(set(principal.roles) - RESERVED, key=lambda role: (role == "patient", role))
    roles = ("anonymous",) if principal.anonymous else tuple(given) or ("guest",)
    return Caller(
        id=principal.id,
        roles=roles,
        patient=principal.patient if home else grant.patient if grant else "",
        practitioner=principal.practitioner if home else "",
        compartment=grant.patient if grant else "",
        client_id=principal.client_id,
        agent=principal.agent.id,
        agent_did=principal.agent.did,
        capabilities=principal.agent.capabilities,
        anonymous=principal.anonymous,
        in_browser=bool(principal.session),
    )


def checks_of(call: Call) -> list[Check]:
    """Everything that must be allowed for this call; a bundle is judged entry by entry (PX-10)."""
    if call.procedure:
        return [Check(kind=PROCEDURE_KINDS[call.performer], action=call.tool, id=call.resource.id)]
    if call.interaction in (Interaction.BATCH, Interaction.TRANSACTION):
        if call.emergency is not None:
            raise BadRequest("Emergency access reads one thing at a time: a bundle cannot be sent under it.")
        return [check for number, entry in enumerate(call.entries) for check in _of_piece(piece_of(entry), number)]
    piece = Piece(
        interaction=call.interaction,
        type=call.resource.type,
        id=call.resource.id,
        operation=call.operation,
        query=_whole_query(call),
        if_none_exist=call.headers.get("if-none-exist", ""),
        subject=subject_of(call.body) if call.body and len(call.body) <= BODY_BYTES else "",
        probing=call.interaction is Interaction.PATCH and not only_sets(call.body),
    )
    checks = _of_piece(piece, -1)
    return checks if call.emergency is None else in_emergency(call.emergency, piece, checks)


def in_emergency(emergency: Emergency, piece: Piece, checks: list[Check]) -> list[Check]:
    """Break-glass stands in for the rules of the kind itself; what a search reaches into is judged as ever.

    So is reading what is no part of a patient's record: the compartment would not narrow it, and the masks that hide
    how colleagues live would be gone.
    """
    first, *reached = checks
    if first.kind not in RECORD_KINDS and not first.write:
        return checks
    within = piece.interaction is Interaction.SEARCH and bool(piece.id)  # Patient/1/Observation
    target = (piece.type, piece.id) if within else (first.kind, first.id)
    return [Check(kind=EMERGENCY, action=first.action, id=emergency.patient, target=target), *reached]


def _whole_query(call: Call) -> str:
    """Criteria of a search may come as a form as well; what was parked is too large to be one."""
    if call.interaction is not Interaction.SEARCH or not (call.body or call.parked):
        return call.query
    if call.parked:
        raise BadRequest("The search has too many criteria.")
    form = call.body.decode("utf-8", "replace")
    return f"{call.query}&{form}" if call.query else form


def _of_piece(piece: Piece, entry: int) -> list[Check]:
    asked = read_query(piece.query)
    kind, action, resource_id = _target(piece)
    first = Check(
        kind=kind,
        action=action,
        id=resource_id,
        params=asked.params,
        arguments=asked.arguments,
        subject=piece.subject,
        entry=entry,
        write=is_write(piece.interaction, piece.operation),
        probing=piece.probing,
    )
    return [first, *_criteria(piece, entry), *_reached(asked, entry)]


def _target(piece: Piece) -> tuple[str, str, str]:
    """Kind, action and id. A compartment search is one on its members; all of them at once is `$everything`."""
    if piece.interaction is Interaction.CAPABILITIES:
        return "CapabilityStatement", "capabilities", ""
    if piece.interaction is Interaction.OPERATION:
        return piece.type or SYSTEM, f"operation:{piece.operation.lstrip('$')}", piece.id
    if piece.interaction is Interaction.SEARCH and piece.operation and piece.type:
        if piece.operation == "*":
            return piece.type, "operation:everything", piece.id
        return piece.operation, "search", ""
    return piece.type or SYSTEM, ACTIONS.get(piece.interaction, str(piece.interaction)), piece.id


def _criteria(piece: Piece, entry: int) -> list[Check]:
    """A conditional write discloses whether something exists: it needs the right to search as well (PX-12)."""
    criteria = [criteria_of(piece.if_none_exist)]
    if is_write(piece.interaction) and not piece.id and piece.interaction is not Interaction.CREATE:
        criteria.append(piece.query)
    query = "&".join(part for part in criteria if part)
    if not query:
        return []
    asked = read_query(query)
    searched = Check(
        kind=piece.type or SYSTEM, action="search", params=asked.params, arguments=asked.arguments, entry=entry
    )
    return [searched, *_reached(asked, entry)]


def _reached(asked: Asked, entry: int) -> list[Check]:
    """Chains and _has search another kind, by that kind's own rules."""
    kinds: dict[str, list[str]] = {}
    for kind, parameter in asked.reached:
        kinds.setdefault(kind, []).append(parameter)
    return [Check(kind=kind, action="search", params=tuple(names), entry=entry) for kind, names in kinds.items()]


def subject_of(body: bytes) -> str:
    """The patient id that a resource names as its subject; "" when it names none or cannot be read."""
    try:
        resource = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        for name in SUBJECTS:
            if name in resource:
                reference = msgspec.json.decode(resource[name], type=_Reference)
                kind, _, patient = reference.reference.partition("/")
                return patient if kind == "Patient" and "/" not in patient else ""
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ""
    return ""


def only_sets(patch: bytes) -> bool:
    """True for a JSON Patch that sets and removes. `test`, `copy` and `move` tell what stands in other places."""
    try:
        return all(step.op in ("add", "replace", "remove") for step in _patches.decode(patch))
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False


class _Step(Struct):
    op: str


_patches = msgspec.json.Decoder(list[_Step])


class _Reference(Struct):
    reference: str = ""

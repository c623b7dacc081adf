"""CDS Hooks 2.0 as a client: which service answers for orders, and the request about one draft order (CRD)."""

from __future__ import annotations

import re
import uuid
from typing import Any

from msgspec import Struct

from wardmesh_fhir_proxy.coverage_arguments import CheckArguments
from wardmesh_fhir_proxy.coverage_tree import Tree, child, objects, text

# A draft can be signed or selected; order-dispatch is about orders that the platform already holds.
HOOKS = ("order-sign", "order-select")
DRAFT = "ServiceRequest/draft"
_SERVICE_ID = re.compile(r"(?!\.+$)[A-Za-z0-9_.\-]{1,128}")
# Who signs is nobody's business here: a payer's rules are about the order.
USER = "PractitionerRole/wardmesh"
# What a payer needs to find its member; the number of the insurance is in the Coverage.
_PATIENT_KEPT = ("resourceType", "id", "name", "gender", "birthDate", "address")
_COVERAGE_DROPPED = ("text", "contained", "extension", "meta")


class HookService(Struct, frozen=True, kw_only=True):
    id: str
    hook: str
    prefetch: tuple[tuple[str, str], ...] = ()  # key -> template

    def wants(self, kind: str) -> bool:
        return any(_kind(template) == kind for _, template in self.prefetch)


def services_in(discovery: Tree) -> tuple[HookService, ...]:
    found: list[HookService] = []
    for each in objects(discovery, "services"):
        identity, hook = text(each, "id"), text(each, "hook")
        if hook not in HOOKS or not _SERVICE_ID.fullmatch(identity):
            continue
        templates = child(each, "prefetch").items()
        prefetch = tuple((key, value) for key, value in templates if isinstance(value, str))
        found.append(HookService(id=identity, hook=hook, prefetch=prefetch))
    return tuple(found)


def chosen(services: tuple[HookService, ...], wanted: str) -> HookService | None:
    """The one the descriptor names, or the first for the hook we would rather use."""
    if wanted:
        return next((each for each in services if each.id == wanted), None)
    ranked = sorted(services, key=lambda each: HOOKS.index(each.hook))
    return ranked[0] if ranked else None


def draft_order(asked: CheckArguments, coverage_id: str) -> Tree:
    return {
        "resourceType": "ServiceRequest",
        "id": DRAFT.partition("/")[2],
        "status": "draft",
        "intent": "order",
        "code": {"coding": [{"system": asked.code_system, "code": asked.procedure_code}]},
        "subject": {"reference": f"Patient/{asked.patient_id}"},
        "insurance": [{"reference": f"Coverage/{coverage_id}"}],
    }


def hook_request(service: HookService, asked: CheckArguments, coverage: Tree, patient: Tree | None) -> Tree:
    """No address of ours and no token goes along: the service works with what it is given."""
    order = draft_order(asked, text(coverage, "id"))
    context: Tree = {
        "userId": USER,
        "patientId": asked.patient_id,
        "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": order}]},
    }
    if service.hook == "order-select":
        context["selections"] = [DRAFT]
    request: Tree = {"hook": service.hook, "hookInstance": str(uuid.uuid4()), "context": context}
    prefetch = _prefetch(service, coverage, patient)
    return request | ({"prefetch": prefetch} if prefetch else {})


def _prefetch(service: HookService, coverage: Tree, patient: Tree | None) -> Tree:
    """Only what the service asks for, and of a person only what identifies a member."""
    found: Tree = {}
    for key, template in service.prefetch:
        kind = _kind(template)
        if kind == "Patient" and patient is not None:
            found[key] = {name: patient[name] for name in _PATIENT_KEPT if name in patient}
        elif kind == "Coverage":
            kept = {name: value for name, value in coverage.items() if name not in _COVERAGE_DROPPED}
            found[key] = _searched(kept) if "?" in template else kept
    return found


def _searched(resource: Tree) -> Tree:
    entry: list[Any] = [{"resource": resource, "search": {"mode": "match"}}]
    return {"resourceType": "Bundle", "type": "searchset", "total": 1, "entry": entry}


def _kind(template: str) -> str:
    """`Patient/{{context.patientId}}` or `Coverage?patient={{context.patientId}}`."""
    return re.split(r"[/?]", template, maxsplit=1)[0]

"""CDS Hooks 2.0: discovery, and one service that answers an order with Da Vinci coverage information (CRD)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from wardmesh_fhir_store.coverage.catalogue import INFORMATION, Code, Rule, RuleCatalogue, child, objects, text
from wardmesh_fhir_store.faults import Fault, invalid, not_found
from wardmesh_fhir_store.jsontext import Tree, decode_object, encode
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

ROOT = "cds-services"
SERVICE = "coverage-requirements"
HOOK = "order-sign"
MOST_ORDERS = 50
DISCOVERY: Tree = {
    "services": [
        {
            "id": SERVICE,
            "hook": HOOK,
            "title": "Coverage requirements",
            "description": "Says from the rules kept in this store whether an order needs prior authorization.",
            "prefetch": {"coverage": "Coverage?patient={{context.patientId}}&status=active"},
        }
    ]
}
_SOURCE = {"label": "Wardmesh embedded store"}
_HEADLINES = {
    "auth-needed": "Prior authorization is needed",
    "no-auth": "Prior authorization is not needed",
    "conditional": "Prior authorization may be needed",
    "satisfied": "A prior authorization exists",
    "performpa": "Prior authorization is needed and can be requested now",
}


class Hooks:
    """Stateless: it judges what it is sent by the rules of its datastore."""

    def __init__(self, store: Store) -> None:
        self._rules = RuleCatalogue(store)

    async def handle(self, request: Request, parts: list[str]) -> Response:
        """`parts` follow `cds-services`. Raises Fault."""
        if not parts:
            _only(request, "GET", "HEAD")
            return _answer(DISCOVERY)
        if parts != [SERVICE]:
            raise not_found("There is no such service.")
        _only(request, "POST")
        asked = decode_object(request.body)
        if text(asked, "hook") != HOOK or not text(asked, "hookInstance"):
            raise invalid("The request is not one of the hook that this service is for.")
        coverage = _coverage(asked)
        orders = _resources(child(child(asked, "context"), "draftOrders"))
        if not orders or len(orders) > MOST_ORDERS:
            raise invalid("The request has no draft orders, or too many.")
        cards: list[Tree] = []
        actions: list[Tree] = []
        for order in orders:
            card, action = await self._judged(order, coverage)
            cards.append(card)
            actions += [action] if action else []
        return _answer({"cards": cards} | ({"systemActions": actions} if actions else {}))

    async def _judged(self, order: Tree, coverage: Tree) -> tuple[Tree, Tree | None]:
        """A card to read and, where a rule speaks, the order with what the rule says."""
        if text(coverage, "status") != "active":
            return _card("The coverage is not active", "warning", ""), None
        codes = _codes(order)
        for code in codes:
            rule = await self._rules.rule(code, coverage)
            if rule is not None:
                return _by(rule, order, coverage, code)
        return _card("No rule is kept for this order", "info", ""), None


def _by(rule: Rule, order: Tree, coverage: Tree, code: Code) -> tuple[Tree, Tree]:
    said = objects(rule.information or {}, "extension")
    needed = next((text(each, "valueCode") for each in said if text(each, "url") == "pa-needed"), "")
    headline = _HEADLINES.get(needed, "Coverage information")
    known: list[Tree] = [
        {"url": "coverage", "valueReference": {"reference": f"Coverage/{text(coverage, 'id')}"}},
        {"url": "billingCode", "valueCoding": {"system": code[0], "code": code[1]}},
        {"url": "date", "valueDate": datetime.now(UTC).date().isoformat()},
        {"url": "coverage-assertion-id", "valueString": str(uuid.uuid4())},
    ]
    own = {each["url"] for each in known}
    information = {"url": INFORMATION, "extension": [*known, *(e for e in said if text(e, "url") not in own)]}
    informed = {**order, "extension": [*objects(order, "extension"), information]}
    indicator = "warning" if needed in ("auth-needed", "performpa", "conditional") else "info"
    card = _card(headline, indicator, text(rule.plan, "description"))
    return card, {"type": "update", "description": headline, "resource": informed}


def _coverage(asked: Tree) -> Tree:
    """The Coverage as prefetch holds it, alone or in a searchset; without one nothing can be said (412)."""
    given = child(child(asked, "prefetch"), "coverage")
    found = [given] if text(given, "resourceType") == "Coverage" else _resources(given)
    coverages = [each for each in found if text(each, "resourceType") == "Coverage" and text(each, "id")]
    if not coverages:
        raise Fault(412, "required", "The prefetched coverage is missing.")
    return coverages[0]


def _resources(bundle: Tree) -> list[Tree]:
    return [resource for entry in objects(bundle, "entry") if (resource := child(entry, "resource"))]


def _codes(order: Tree) -> list[Code]:
    """What is ordered: a ServiceRequest's code, a DeviceRequest's, a MedicationRequest's."""
    names = ("code", "codeCodeableConcept", "medicationCodeableConcept")
    codings = [coding for name in names for coding in objects(child(order, name), "coding")]
    return [(text(c, "system"), text(c, "code")) for c in codings if text(c, "system") and text(c, "code")]


def _card(summary: str, indicator: str, detail: str) -> Tree:
    card: Tree = {"uuid": str(uuid.uuid4()), "summary": summary, "indicator": indicator, "source": _SOURCE}
    return card | ({"detail": detail} if detail else {})


def _answer(body: Tree) -> Response:
    return Response(body=encode(body), media_type="application/json")


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        headers = (("Allow", ", ".join(methods)),)
        raise Fault(405, "not-supported", "The method is not offered here.", headers=headers)

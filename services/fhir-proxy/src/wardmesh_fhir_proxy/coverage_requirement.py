"""From a CRD answer to `required`, `not-required`, `conditional` or `unknown`: read from codes, never from prose."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from wardmesh_fhir_proxy.coverage_tree import Tree, child, objects, parts, said, text
from wardmesh_fhir_proxy.faults import clean

INFORMATION = "http://hl7.org/fhir/us/davinci-crd/StructureDefinition/ext-coverage-information"
NOT_CONFIGURED = "CRD endpoint not configured for this platform. Contact platform directly."
NO_SERVICE = "The platform's decision support offers no service for orders."
LACKS_DATA = "The platform's decision support needs data that it was not given."
NOT_SAID = "The platform did not say whether prior authorization is needed."
NOT_COVERED = "The platform says that this service is not covered."
_MOST = 32

# Which word of pa-needed means what; several assertions are as strict as the strictest of them.
_STATUS = {
    "auth-needed": "required",
    "performpa": "required",
    "conditional": "conditional",
    "no-auth": "not-required",
    "satisfied": "not-required",
}
_STRICTEST = ("required", "conditional", "not-required", "unknown")


class Requirement(Struct, kw_only=True):
    """What could be read from the answer."""

    status: str = "unknown"
    questionnaire_url: str = ""
    documentation_required: bool | None = None
    info_needed: list[str] = []
    reason: str = ""


def unknown(reason: str) -> Requirement:
    return Requirement(reason=reason)


def requirement_in(answer: Tree, coverage_id: str, code: str, hosts: tuple[str, ...]) -> Requirement:
    found = [info for info in _assertions(answer) if _concerns(info, coverage_id, code)]
    cards = [clean(card, hosts) for card in _cards(answer)]
    if not found:
        return unknown("; ".join([NOT_SAID, *cards]))
    statuses = [_status(info) for info in found]
    status = min(statuses, key=_STRICTEST.index)
    # What the strictest assertions say is what counts; what the others say would contradict it.
    telling = [info for info, each in zip(found, statuses, strict=True) if each == status]
    reasons = [clean(said(value), hosts) for info in telling for value in parts(info, "reason")]
    if status == "unknown":
        reasons = [NOT_COVERED if any(_covered(info) == "not-covered" for info in telling) else NOT_SAID, *reasons]
    forms = [form for info in telling for form in _texts(info, "questionnaire")]
    return Requirement(
        status=status,
        questionnaire_url=forms[0] if forms else "",
        documentation_required=_documented(telling, forms),
        info_needed=list(dict.fromkeys(word for info in telling for word in _texts(info, "info-needed")))[:_MOST],
        reason="; ".join(dict.fromkeys(text for text in reasons or cards if text)),
    )


def _assertions(answer: Tree) -> list[Tree]:
    """Coverage information on the orders that come back, as system actions or as suggestions of cards."""
    actions = objects(answer, "systemActions")
    for card in objects(answer, "cards"):
        for suggestion in objects(card, "suggestions"):
            actions += objects(suggestion, "actions")
    orders = [child(action, "resource") for action in actions if text(action, "type") in ("create", "update")]
    return [each for order in orders for each in objects(order, "extension") if text(each, "url") == INFORMATION]


def _concerns(info: Tree, coverage_id: str, code: str) -> bool:
    """About our coverage and our code, where it says about which."""
    for value in parts(info, "coverage"):
        reference = text(value, "reference") if isinstance(value, dict) else ""
        if reference and reference.split("/_history/")[0].split("/")[-2:] != ["Coverage", coverage_id]:
            return False
    billed = [text(value, "code") for value in parts(info, "billingCode") if isinstance(value, dict)]
    return not any(billed) or code in (each.upper() for each in billed)


def _status(info: Tree) -> str:
    needed = next(iter(_texts(info, "pa-needed")), "")
    if needed in _STATUS:
        return _STATUS[needed]
    return "conditional" if _covered(info) == "conditional" and not needed else "unknown"


def _covered(info: Tree) -> str:
    return next(iter(_texts(info, "covered")), "")


def _documented(telling: list[Tree], forms: list[str]) -> bool | None:
    words = [word for info in telling for word in _texts(info, "doc-needed")]
    if forms or any(word != "no-doc" for word in words):
        return True
    return False if words else None


def _texts(info: Tree, url: str) -> list[str]:
    values: list[Any] = [said(value) for value in parts(info, url)]
    return [value for value in values if value]


def _cards(answer: Tree) -> list[str]:
    return [summary for card in objects(answer, "cards") if (summary := text(card, "summary"))][:5]

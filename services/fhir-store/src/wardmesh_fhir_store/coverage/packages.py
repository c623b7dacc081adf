"""`Questionnaire/$questionnaire-package` (DTR): a questionnaire with the value sets and libraries that it names."""

from __future__ import annotations

from datetime import UTC, datetime

from wardmesh_fhir_store.coverage.catalogue import RuleCatalogue, child, objects, text
from wardmesh_fhir_store.faults import invalid
from wardmesh_fhir_store.jsontext import Tree, decode_object, encode
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

DEFINITION = "http://hl7.org/fhir/us/davinci-dtr/OperationDefinition/questionnaire-package"
LIBRARY = "http://hl7.org/fhir/StructureDefinition/cqf-library"
MOST_FORMS = 20


class Packages:
    """One per datastore."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules = RuleCatalogue(store)

    async def answer(self, request: Request) -> Response:
        """Raises Fault. Without a questionnaire: all that the rules of the Coverage's payer name."""
        asked = decode_object(request.body)
        if text(asked, "resourceType") != "Parameters":
            raise invalid("An operation takes Parameters.")
        parts = objects(asked, "parameter")
        coverages = [child(part, "resource") for part in parts if text(part, "name") == "coverage"]
        coverage = next((each for each in coverages if text(each, "resourceType") == "Coverage"), None)
        if coverage is None:
            raise invalid("The operation needs a Coverage.", "Parameters.parameter")
        named = [text(part, "valueCanonical") for part in parts if text(part, "name") == "questionnaire"]
        wanted = [each for each in named if each] or await self._demanded(coverage)
        found: list[Tree] = []
        missing = 0
        for canonical in list(dict.fromkeys(wanted))[:MOST_FORMS]:
            form = await self._rules.canonical("Questionnaire", canonical)
            if form is None:
                missing += 1
            else:
                found.append({"name": "PackageBundle", "resource": await self._package(form)})
        return Response(body=encode({"resourceType": "Parameters", "parameter": found + _noted(missing)}))

    async def _demanded(self, coverage: Tree) -> list[str]:
        return [form for rule in await self._rules.rules([], coverage) for form in rule.forms]

    async def _package(self, form: Tree) -> Tree:
        held = [form]
        for kind, canonicals in (("Library", _libraries(form)), ("ValueSet", _value_sets(form))):
            for canonical in dict.fromkeys(canonicals):
                resource = await self._rules.canonical(kind, canonical)
                held += [resource] if resource is not None else []
        entries = [{"fullUrl": self._store.url(each["resourceType"], each["id"]), "resource": each} for each in held]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"resourceType": "Bundle", "type": "collection", "timestamp": now, "entry": entries}


def _noted(missing: int) -> list[Tree]:
    """What was asked for and is not there is said, not passed over."""
    if not missing:
        return []
    text = f"{missing} of the questionnaires are not kept here."
    issue = {"severity": "warning", "code": "not-found", "diagnostics": text}
    return [{"name": "Outcome", "resource": {"resourceType": "OperationOutcome", "issue": [issue]}}]


def _libraries(form: Tree) -> list[str]:
    return [text(each, "valueCanonical") for each in objects(form, "extension") if text(each, "url") == LIBRARY]


def _value_sets(node: Tree) -> list[str]:
    """Of all items, at any depth; those inside of the questionnaire itself need no company."""
    found = [text(item, "answerValueSet") for item in objects(node, "item")]
    nested = [each for item in objects(node, "item") for each in _value_sets(item)]
    return [each for each in (*found, *nested) if each and not each.startswith("#")]

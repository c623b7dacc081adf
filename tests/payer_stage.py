"""A scripted payer in front of the coverage desk: documents as Da Vinci's guides describe them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from wardmesh_common.contracts import Outcome
from wardmesh_fhir_proxy.coverage_requirement import INFORMATION

CPT = "http://www.ama-assn.org/go/cpt"
COVERAGE: dict[str, Any] = {
    "resourceType": "Coverage",
    "id": "c1",
    "status": "active",
    "text": {"div": "secret narrative"},
    "subscriberId": "S1",
    "beneficiary": {"reference": "Patient/p1"},
}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"family": "Castle"}],
    "birthDate": "1980-01-01",
    "identifier": [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "952-17-0001"}],
    "telecom": [{"value": "+1-202-555-0100"}],
}
DISCOVERY: dict[str, Any] = {
    "services": [
        {"id": "other", "hook": "patient-view"},
        {"id": "selecting", "hook": "order-select", "prefetch": {"cov": "Coverage?patient={{context.patientId}}"}},
        {
            "id": "signing",
            "hook": "order-sign",
            "prefetch": {"who": "Patient/{{context.patientId}}", "cov": "Coverage?patient={{context.patientId}}"},
        },
    ]
}
FORM: dict[str, Any] = {
    "resourceType": "Questionnaire",
    "id": "f1",
    "url": "http://payer.example/Questionnaire/f1",
    "title": "A form",
    "status": "active",
    "contained": [
        {
            "resourceType": "ValueSet",
            "id": "yn",
            "expansion": {"contains": [{"system": "s", "code": "y", "display": "Yes"}]},
        }
    ],
    "item": [
        {
            "linkId": "g",
            "type": "group",
            "text": "Group",
            "item": [
                {"linkId": "g.1", "type": "choice", "text": "Which", "required": True, "answerValueSet": "http://vs|1"},
                {"linkId": "g.2", "type": "choice", "answerValueSet": "#yn", "repeats": True},
                {
                    "linkId": "g.3",
                    "type": "string",
                    "maxLength": 10,
                    "initial": [{"valueString": "start"}],
                    "enableWhen": [
                        {"question": "g.1", "operator": "=", "answerCoding": {"code": "a", "display": "An A"}},
                        {"question": "g.2", "operator": "exists", "answerBoolean": False},
                    ],
                    "enableBehavior": "any",
                },
            ],
        },
        {"linkId": "d", "type": "display", "text": "Read  this"},
        {"linkId": "o", "type": "open-choice", "readOnly": True, "answerOption": [{"valueInteger": 3}]},
    ],
}
VALUE_SET = {
    "resourceType": "ValueSet",
    "url": "http://vs",
    "version": "1",
    "compose": {"include": [{"system": "sys", "concept": [{"code": "a", "display": "An A"}]}]},
}
LIBRARY = {"resourceType": "Library", "url": "http://lib", "version": "2"}
DRAFT = {"resourceType": "QuestionnaireResponse", "item": [{"answer": [{"valueString": "Castle"}]}]}
PLAN: dict[str, Any] = {
    "resourceType": "PlanDefinition",
    "id": "r1",
    "meta": {"lastUpdated": "2026-02-03T00:00:00Z"},
    "url": "http://payer.example/PlanDefinition/r1",
    "title": "Imaging",
    "status": "active",
    "description": "About  imaging",
    "effectivePeriod": {"start": "2025-01-01"},
    "useContext": [{"valueCodeableConcept": {"coding": [{"system": CPT, "code": c} for c in ("70551", "70552")]}}],
    "action": [
        {
            "description": "Findings",
            "condition": [{"expression": {"expression": "x > 1", "description": "More than one"}}],
            "documentation": [{"type": "documentation", "display": "Notes"}],
            "extension": [{"url": INFORMATION, "extension": [{"url": "questionnaire", "valueCanonical": FORM["url"]}]}],
        }
    ],
}  # fmt: skip


def information(**said: Any) -> dict[str, Any]:
    parts = [{"url": "coverage", "valueReference": {"reference": "Coverage/c1"}}]
    for name, values in said.items():
        for value in values if isinstance(values, list) else [values]:
            kind = "valueCodeableConcept" if isinstance(value, dict) else "valueCode"
            parts.append({"url": name.replace("_", "-"), kind: value})
    return {"url": INFORMATION, "extension": parts}


def crd(*extensions: dict[str, Any], cards: Any = (), actions: str = "systemActions") -> dict[str, Any]:
    order = {"resourceType": "ServiceRequest", "id": "draft", "extension": list(extensions)}
    done = [{"type": "update", "resource": order}]
    if actions == "systemActions":
        return {"cards": list(cards), "systemActions": done}
    return {"cards": [{"summary": "s", "suggestions": [{"label": "l", "actions": done}]}]}


def bundle(*resources: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in resources]}


def packaged(*resources: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "PackageBundle", "resource": bundle(*resources)}]}


class Payer:
    """The upstream as a platform with all three services at its own base."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.answers: dict[str, tuple[int, Any]] = {
            "Coverage/c1": (200, COVERAGE),
            "Patient/p1": (200, PATIENT),
            "cds-services": (200, DISCOVERY),
            "cds-services/signing": (200, crd(information(covered="covered", pa_needed="auth-needed"))),
            "Questionnaire/$questionnaire-package": (200, packaged(FORM, VALUE_SET, LIBRARY, DRAFT)),
            "PlanDefinition": (200, bundle(PLAN)),
        }
        bench.upstream.respond = self.respond
        bench.describe(coverage={"crd_url": "base", "dtr_url": "base", "rules_url": "base"})

    def respond(self, seen: Any) -> web.Response:
        status, body = self.answers.get(seen.path.removeprefix("/r4/"), (404, {"resourceType": "OperationOutcome"}))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=data, content_type="application/json")

    @property
    def paths(self) -> list[str]:
        return [seen.path.removeprefix("/r4/") for seen in self.bench.upstream.requests]

    def sent(self, path: str) -> dict[str, Any]:
        (seen,) = (each for each in self.bench.upstream.requests if each.path == f"/r4/{path}")
        return json.loads(seen.body)

    async def check(self, code: str = "70551", *, patient: str = "p1", coverage: str = "c1", **more: Any) -> Outcome:
        told = {"patient_id": patient, "procedure_code": code, "code_system": CPT}
        return await self.ask("$check-prior-auth", coverage, told, **more)

    async def package(self, told: Any = None, **more: Any) -> Outcome:
        return await self.ask("$questionnaire-package", "c1", told or {}, **more)

    async def rules(self, code: str = "70551", system: str = CPT, **more: Any) -> Outcome:
        return await self.ask("$coverage-rules", "", {"procedure_code": code, "code_system": system}, **more)

    async def ask(self, operation: str, coverage: str, told: Any, **more: Any) -> Outcome:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        return await self.bench.perform(
            "operation", "Coverage", coverage, operation=operation, body=body, media_type="application/json", **more
        )


def read(outcome: Outcome) -> dict[str, Any]:
    assert outcome.problem is None, outcome.problem
    return json.loads(outcome.body)

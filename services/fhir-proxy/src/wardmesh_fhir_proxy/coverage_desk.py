"""The three operations on Coverage (FG-10): is prior authorization needed, which forms, which rules."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import TooLarge, WardmeshError
from wardmesh_common.vocabulary import (
    CHECK_PRIOR_AUTH,
    COVERAGE_OPERATIONS,
    COVERAGE_RULES,
    QUESTIONNAIRE_PACKAGE,
    Interaction,
)
from wardmesh_fhir_proxy import coverage_requirement as crd
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.coverage_arguments import (
    CheckArguments,
    PackageArguments,
    RulesArguments,
    check_coverage_id,
    read_arguments,
)
from wardmesh_fhir_proxy.coverage_hooks import HookService, chosen, hook_request, services_in
from wardmesh_fhir_proxy.coverage_package import EMPTY, EMPTY_BUNDLE, one_bundle, package, package_bundles
from wardmesh_fhir_proxy.coverage_payer import JSON, Payer, Place
from wardmesh_fhir_proxy.coverage_record import CoverageRecord
from wardmesh_fhir_proxy.coverage_rules import rules_in, rules_query, summary
from wardmesh_fhir_proxy.coverage_tree import MAX_BYTES, Tree, without_nothing
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.headers import FHIR_JSON
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.masks import Masks

DISCOVERY_SECONDS = 300.0
SERVICES = "cds-services"
EVENTS = {
    CHECK_PRIOR_AUTH: "coverage.check",
    QUESTIONNAIRE_PACKAGE: "coverage.questionnaire_fetch",
    COVERAGE_RULES: "coverage.platform_rules_fetch",
}
FAILED = "error.coverage"


def concerns(call: Call) -> bool:
    """One of ours: such an operation is never sent to a platform under its name."""
    of_coverage = call.interaction is Interaction.OPERATION and call.resource.type == "Coverage"
    return of_coverage and call.operation in COVERAGE_OPERATIONS


class Visit(Struct, frozen=True):
    """What the steps of one call share."""

    call: Call
    descriptor: Descriptor
    payer: Payer
    record: CoverageRecord


class CoverageDesk:
    """Keeps what payers' services say of themselves for five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._discovered: dict[str, tuple[float, tuple[HookService, ...]]] = {}

    async def perform(self, call: Call, descriptor: Descriptor, address: Address, body: bytes, payer: Payer) -> Outcome:
        """What is refused is an outcome as well: it is recorded in the words of FG-19."""
        record = CoverageRecord(call, address, payer)
        try:
            answer, withheld = await self._answer(Visit(call, descriptor, payer, record), body)
            encoded = json_exact.encode(answer)
            if len(encoded) > MAX_BYTES:
                raise TooLarge("The answer is larger than the limit.")
        except WardmeshError as error:
            problem = error.problem
            return Outcome(status=problem.status, problem=problem, touched=record.touched, event=FAILED)
        event = EVENTS[call.operation]
        return Outcome(
            status=200, body=encoded, media_type=JSON, touched=record.touched, withheld=withheld, event=event
        )

    async def _answer(self, visit: Visit, body: bytes) -> tuple[Tree, int]:
        """The answer, and how many resources were kept back."""
        if visit.call.operation == COVERAGE_RULES:
            return await self._rules(visit, read_arguments(body, RulesArguments)), 0
        check_coverage_id(visit.call.resource.id)
        if visit.call.operation == QUESTIONNAIRE_PACKAGE:
            return await self._package(visit, read_arguments(body, PackageArguments))
        asked = read_arguments(body, CheckArguments)
        found = await self._requirement(visit, asked)
        descriptor = visit.descriptor
        platform = {"id": descriptor.id, "name": descriptor.name, "endpoint": descriptor.bases.patient}
        return without_nothing(
            {
                "status": found.status,
                "platform": platform,
                "procedure_code": asked.procedure_code,
                "code_system": asked.code_system,
                "questionnaire_url": found.questionnaire_url,
                "documentation_required": found.documentation_required,
                "info_needed": found.info_needed,
                "reason": found.reason,
                "coverage_id": visit.call.resource.id,
                "patient_id": asked.patient_id,
            }
        ), 0

    async def _requirement(self, visit: Visit, asked: CheckArguments) -> crd.Requirement:
        if not visit.descriptor.coverage.crd_url:
            return crd.unknown(crd.NOT_CONFIGURED)  # nothing is read and nothing told
        payer, place = visit.payer, visit.payer.place(visit.descriptor.coverage.crd_url)
        coverage = await visit.record.coverage(asked.patient_id)
        service = chosen(await self._services(payer, place), visit.descriptor.coverage.crd_service)
        if service is None:
            return crd.unknown(crd.NO_SERVICE)
        patient = await visit.record.patient(asked.patient_id) if service.wants("Patient") else None
        request = hook_request(service, asked, coverage, patient)
        answer = await payer.post(place, f"{SERVICES}/{service.id}", request, "decision support answer", JSON)
        if answer is None:
            return crd.unknown(crd.LACKS_DATA)
        return crd.requirement_in(answer, visit.call.resource.id, asked.procedure_code, payer.hosts(place))

    async def _services(self, payer: Payer, place: Place) -> tuple[HookService, ...]:
        held = self._discovered.get(place.base)
        if held is None or held[0] < self._clock():
            discovery = await payer.get(place, SERVICES, "list of decision support services")
            held = self._discovered[place.base] = (self._clock() + DISCOVERY_SECONDS, services_in(discovery))
        return held[1]

    async def _package(self, visit: Visit, asked: PackageArguments) -> tuple[Tree, int]:
        url = visit.descriptor.coverage.dtr_url
        if not url:
            return ({"raw_bundle": EMPTY_BUNDLE} if asked.raw_format else EMPTY), 0
        place = visit.payer.place(url)
        coverage = await visit.record.coverage()
        parameters: list[Tree] = [{"name": "coverage", "resource": coverage}]
        if asked.questionnaire_url:
            parameters.append({"name": "questionnaire", "valueCanonical": asked.questionnaire_url})
        request: Tree = {"resourceType": "Parameters", "parameter": parameters}
        path = "Questionnaire/$questionnaire-package"
        answer = await visit.payer.post(place, path, request, "questionnaire package", FHIR_JSON)
        bundle, withheld = one_bundle(package_bundles(answer or {}))
        Masks(visit.call.decision.obligations.masks if visit.call.decision else ()).apply(bundle)
        return ({"raw_bundle": bundle} if asked.raw_format else package(bundle)), withheld

    async def _rules(self, visit: Visit, asked: RulesArguments) -> Tree:
        url, code = visit.descriptor.coverage.rules_url, asked.procedure_code
        rules: list[Tree] = []
        updated = ""
        if url:
            place = visit.payer.place(url)
            path = f"PlanDefinition?{rules_query(asked.code_system, code)}"
            rules, updated = rules_in(await visit.payer.get(place, path, "list of rules"), asked.code_system, code)
        found: Tree = {
            "platform_id": visit.descriptor.id,
            "procedure_code": code,
            "code_system": asked.code_system,
            "rules": rules,
            "markdown_summary": summary(code, rules),
        }
        return found | ({"last_updated": updated} if updated else {})

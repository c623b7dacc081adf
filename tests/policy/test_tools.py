"""Which tools each role is shown, and that every tool and every kind has a rule at all."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OWN, PLATFORMS, POLICIES, caller, judging
from wardmesh_common.contracts import PROCEDURE_KINDS
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import PlatformFacts, ToolsQuestion
from wardmesh_common.vocabulary import Interaction, is_write
from wardmesh_gateway.tools import TOOLS
from wardmesh_gateway.tools_coverage import COVERAGE_TOOLS
from wardmesh_gateway.tools_healthlake import DATASTORE_TOOLS
from wardmesh_policy.bundle import kinds_of
from wardmesh_policy.cerbos_client import CerbosClient
from wardmesh_policy.checks import ACTIONS, EMERGENCY, PURPOSE
from wardmesh_policy.offers import OPERATIONS, Offers

pytestmark = pytest.mark.anyio
# Families of tools use the same interactions under other names.
PLATFORM_TOOLS = [tool for tool in TOOLS if tool.performer == "fhir" and not tool.family]
ASKED = {tool.name: tool.interaction for tool in PLATFORM_TOOLS if tool.interaction is not None and not tool.operation}
MANAGING = {tool.name: tool.operation for tool in DATASTORE_TOOLS}
LOOKING = {name for name, operation in MANAGING.items() if not is_write(Interaction.OPERATION, operation)}
LOOKERS = {"Doctor", "practitioner", "Nurse", "Auditor"}
MANAGERS = {"Admin", "admin", "owner"}
PAYER = {tool.name: tool.operation for tool in COVERAGE_TOOLS}
ASKS_PAYER = {"Admin", "admin", "owner", "Doctor", "practitioner", "Nurse", "Auditor", "Billing", "patient"}
MUTATING = {name for name, interaction in ASKED.items() if is_write(interaction)}
READING = {"get_capabilities", "search", "read", "execute_operation", "count", "get_next_page"}
SEARCHING = READING - {"execute_operation"}
SHOWN = {
    "Admin": READING | MUTATING,
    "admin": READING | MUTATING,
    "owner": READING | MUTATING,
    "Doctor": (READING | MUTATING) - {"delete"},
    "practitioner": (READING | MUTATING) - {"delete"},
    "Nurse": READING,
    "Auditor": READING,
    "Billing": READING,  # validates Organizations and Locations
    "Reception": READING,
    "patient": {"get_capabilities", "read", "execute_operation", "update", "patch"},
    "member": {"get_capabilities", "read"},
    "": {"get_capabilities"},
}


def offers(client: CerbosClient, *platforms: PlatformFacts) -> Offers:
    kinds = kinds_of(POLICIES)
    return Offers(client, lambda: kinds, lambda: list(platforms), lambda: "1", 2.0)


async def shown(made: Offers, role: str, **who: str) -> set[str]:
    return set((await made.answer(ToolsQuestion(principal=caller(role, **who), tools=ASKED))).allowed)


async def test_each_role_is_shown_what_it_may_use_somewhere(pdp: engines.Cerbos) -> None:
    assert {"create", "update", "patch", "delete"} == MUTATING
    async with judging(pdp.target):
        client = CerbosClient(pdp.target)
        made = offers(client, PLATFORMS["store"], PLATFORMS["closed"])
        for role, expected in SHOWN.items():
            assert await shown(made, role) == expected, role
        assert await shown(made, "", id="anonymous") == set()
        assert await shown(made, "admin", id="anonymous") == set()
        await client.close()


async def test_who_may_sign_in_at_a_platform_is_shown_what_that_would_open(pdp: engines.Cerbos) -> None:
    """A guest's only right is the own sign-in there; nobody has none, and writes stay off with the platform's."""
    client = CerbosClient(pdp.target)
    place = PlatformFacts(id="clinic", name="C", type="ehr", auth_method="authorization_code")
    made = offers(client, place)
    assert {"search", "read", "count"} <= await shown(made, "")
    assert not await shown(made, "") & MUTATING
    assert await shown(made, "", id="anonymous") == set()
    deployment = PlatformFacts(id="payer", name="P", type="payer", auth_method="client_credentials")
    assert await shown(offers(client, deployment), "") == {"get_capabilities"}
    await client.close()


async def test_the_tools_of_coverage_are_shown_to_who_may_ask_a_payer(pdp: engines.Cerbos) -> None:
    client = CerbosClient(pdp.target)
    made = offers(client, PLATFORMS["store"], PLATFORMS["closed"])
    assert set(PAYER) == {"check_prior_auth", "get_questionnaire_package", "get_policy_rules"}
    for role in SHOWN:
        answer = await made.answer(ToolsQuestion(principal=caller(role), tools={}, operations=PAYER))
        assert set(answer.allowed) == (set(PAYER) if role in ASKS_PAYER else set()), role
    odd = ToolsQuestion(principal=caller("Admin"), tools={}, operations={"odd": "$process-message"})
    assert (await made.answer(odd)).allowed == ()
    await client.close()


async def test_the_tools_for_datastores_are_shown_to_who_may_look_or_manage(pdp: engines.Cerbos) -> None:
    client = CerbosClient(pdp.target)
    assert (len(MANAGING), len(LOOKING)) == (13, 7)
    for role in SHOWN:
        question = ToolsQuestion(principal=caller(role), tools={}, operations=MANAGING)
        seen = set((await offers(client, PLATFORMS["store"]).answer(question)).allowed)
        assert seen == (set(MANAGING) if role in MANAGERS else LOOKING if role in LOOKERS else set()), role
        quiet = set((await offers(client, PLATFORMS["closed"]).answer(question)).allowed)
        assert quiet == (LOOKING if role in MANAGERS | LOOKERS else set()), role
    await client.close()


async def test_no_mutating_tool_is_shown_while_no_platform_takes_writes(pdp: engines.Cerbos) -> None:
    client = CerbosClient(pdp.target)
    made = offers(client, PLATFORMS["closed"], PLATFORMS["open"])
    for role in SHOWN:
        assert not await shown(made, role) & MUTATING, role
    assert await shown(made, "", id="anonymous") == READING, "an open platform is read by everyone"
    await client.close()


async def test_a_tool_that_is_not_shown_is_refused_when_called(pdp: engines.Cerbos) -> None:
    """On every kind there is; the list is only a courtesy."""
    async with judging(pdp.target) as judge:
        for role, tools in SHOWN.items():
            for name, interaction in ASKED.items():
                if name in tools or interaction is Interaction.OPERATION:
                    continue
                for kind in kinds_of(POLICIES):
                    addressed = interaction not in (Interaction.SEARCH, Interaction.CREATE)
                    decision = await judge.ask(
                        role, interaction, kind, resource_id=OWN if addressed else "", subject=OWN
                    )
                    assert not decision.allowed, (role, name, kind)


async def test_the_procedures_of_one_caller_are_asked_for_once_and_never_for_another(pdp: engines.Cerbos) -> None:
    procedures = {tool.name: tool.performer for tool in TOOLS if tool.performer in PROCEDURE_KINDS}
    client = CerbosClient(pdp.target)
    made = offers(client, PLATFORMS["store"])
    mine, guests = caller("Admin"), caller("", id="anonymous")
    shown_first = (await made.answer(ToolsQuestion(principal=mine, tools={}, procedures=procedures))).allowed
    assert shown_first
    assert (await made.answer(ToolsQuestion(principal=guests, tools={}, procedures=procedures))).allowed != shown_first
    await client.close()
    again = (await made.answer(ToolsQuestion(principal=mine, tools={}, procedures=procedures))).allowed
    assert again == shown_first, "Cerbos is not there any more: this is the answer of before"


async def test_a_list_that_nobody_decided_on_is_not_given() -> None:
    client = CerbosClient("unix:/tmp/there-is-no-such-socket")
    with pytest.raises(Unavailable):
        await shown(offers(client, PLATFORMS["store"]), "Admin")
    await client.close()


async def test_every_tool_and_every_kind_has_a_rule(pdp: engines.Cerbos) -> None:
    """For each tool somebody is allowed on some kind, for each kind somebody something."""
    async with judging(pdp.target) as judge:
        reached: set[str] = set()
        kinds: set[str] = set()
        operations = [f"${name.partition(':')[2]}" for name in OPERATIONS]
        for kind in kinds_of(POLICIES):
            for action in ACTIONS:
                addressed = action not in (Interaction.SEARCH, Interaction.CREATE)
                decision = await judge.ask(
                    "Admin Auditor", action, "" if kind == "System" else kind, resource_id=OWN if addressed else ""
                )
                if decision.allowed:
                    reached.add(str(action))
                    kinds.add(decision.rule.partition("#")[0])
            for operation in ("$list-datastores", "$export"):
                if (await judge.ask("Admin", "operation", kind, operation=operation)).allowed:
                    kinds.add(kind)
            for operation in operations:
                if (await judge.ask("Admin", "operation", kind, resource_id=OWN, operation=operation)).allowed:
                    reached.add("operation")
        assert kinds == set(kinds_of(POLICIES)) - {*PROCEDURE_KINDS.values(), EMERGENCY, PURPOSE}
        assert {str(interaction) for interaction in ASKED.values()} <= reached
        assert set(SPEC_KINDS.split()) <= kinds


SPEC_KINDS = """
    AllergyIntolerance CarePlan CareTeam Condition Coverage Device DiagnosticReport DocumentReference Encounter
    FamilyMemberHistory Goal Immunization MedicationDispense MedicationRequest MedicationStatement Observation
    Organization Patient Person Practitioner Procedure QuestionnaireResponse RelatedPerson ServiceRequest Specimen
"""

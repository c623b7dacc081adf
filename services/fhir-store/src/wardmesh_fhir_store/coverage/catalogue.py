"""Finds the rules and forms that are kept in the store: by code, by payer, by canonical address."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.jsontext import Tree, decode_object
from wardmesh_fhir_store.query import Pair
from wardmesh_fhir_store.store import Store

INFORMATION = "http://hl7.org/fhir/us/davinci-crd/StructureDefinition/ext-coverage-information"
MOST = 50
PROGRAM = "program"  # usage context: the payer that a rule belongs to; a rule without one is every payer's

Code = tuple[str, str]  # system, code


def objects(node: Tree, name: str) -> list[Tree]:
    """The objects of a list; what a client sent may hold anything."""
    value = node.get(name)
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Tree", item) for item in items if isinstance(item, dict)]


def child(node: Tree, name: str) -> Tree:
    value = node.get(name)
    return cast("Tree", value) if isinstance(value, dict) else {}


def text(node: Tree, name: str) -> str:
    value = node.get(name)
    return value if isinstance(value, str) else ""


class Rule:
    """One PlanDefinition that says what is demanded."""

    def __init__(self, plan: Tree) -> None:
        self.plan = plan
        extensions = [each for action in objects(plan, "action") for each in objects(action, "extension")]
        self.information = next((each for each in extensions if text(each, "url") == INFORMATION), None)

    @property
    def payers(self) -> set[str]:
        programs = [each for each in objects(self.plan, "useContext") if text(child(each, "code"), "code") == PROGRAM]
        return {text(child(each, "valueReference"), "reference") for each in programs}

    @property
    def forms(self) -> list[str]:
        said = objects(self.information or {}, "extension")
        return [text(each, "valueCanonical") for each in said if text(each, "url") == "questionnaire"]

    def in_force(self, today: str) -> bool:
        period = child(self.plan, "effectivePeriod")
        start, end = text(period, "start"), text(period, "end")
        return (not start or start[:10] <= today) and (not end or today <= end[:10])

    def concerns(self, payors: set[str]) -> bool:
        return not self.payers or bool(self.payers & payors)


class RuleCatalogue:
    """One per datastore; every question reads what is stored now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rule(self, code: Code, coverage: Tree) -> Rule | None:
        """A rule of the Coverage's own payer comes before one for all; None when nobody wrote one."""
        found = await self.rules([("context", f"{_escaped(code[0])}|{_escaped(code[1])}")], coverage)
        return min(found, key=lambda rule: (not rule.payers, text(rule.plan, "id")), default=None)

    async def rules(self, criteria: list[Pair], coverage: Tree) -> list[Rule]:
        plans = [Rule(plan) for plan in await self._search("PlanDefinition", [*criteria, ("status", "active")])]
        payors = {text(each, "reference") for each in objects(coverage, "payor")}
        today = datetime.now(UTC).date().isoformat()
        return [rule for rule in plans if rule.information and rule.in_force(today) and rule.concerns(payors)]

    async def canonical(self, kind: str, canonical: str) -> Tree | None:
        """`url|version`; without a version the one that was changed last, active ones first."""
        url, _, version = canonical.partition("|")
        criteria = [("url", url), ("_sort", "-_lastUpdated")] + ([("version", _escaped(version))] if version else [])
        found = await self._search(kind, criteria)
        return min(found, key=lambda each: text(each, "status") != "active", default=None)

    async def _search(self, kind: str, criteria: list[Pair]) -> list[Tree]:
        async def look(connection: AsyncConnection) -> list[Tree]:
            search = self._store.searches.read((kind,), [*criteria, ("_count", str(MOST))], strict=True)
            page = await self._store.selector.page(connection, search)
            return [decode_object(match.body) for match in page.matches]

        return await self._store.database.read(look)


def _escaped(value: str) -> str:
    for character in ("\\", ",", "|", "$"):
        value = value.replace(character, f"\\{character}")
    return value

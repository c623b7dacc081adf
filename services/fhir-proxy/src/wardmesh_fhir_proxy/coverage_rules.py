"""A payer's published rules (PlanDefinition) as the rules of FG-10, with a summary in Markdown."""

from __future__ import annotations

from urllib.parse import quote

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.coverage_requirement import INFORMATION
from wardmesh_fhir_proxy.coverage_tree import Tree, child, objects, parts, resources, said, text, without_nothing

MOST_RULES = 50


def rules_query(system: str, code: str) -> str:
    """The search for rules in force; characters that mean something in a FHIR search are escaped."""
    value = f"{_escaped(system)}|{_escaped(code)}"
    return f"context={quote(value, safe='')}&status=active&_count={MOST_RULES}"


def _escaped(value: str) -> str:
    for character in ("\\", ",", "|", "$"):
        value = value.replace(character, f"\\{character}")
    return value


def rules_in(answer: Tree, system: str, code: str) -> tuple[list[Tree], str]:
    """The rules about this code, and when the newest of them was changed.

    A server that does not know the parameter answers with all it has: only what names the code is taken.
    """
    if text(answer, "resourceType") != "Bundle":
        raise BadUpstream("The platform's answer about rules is not a Bundle.")
    found = [each for each in resources(answer) if text(each, "resourceType") == "PlanDefinition"]
    plans = [plan for plan in found if text(plan, "status") == "active" and (system, code) in _codes(plan)]
    changed = [text(child(plan, "meta"), "lastUpdated") or text(plan, "date") for plan in plans]
    return [_rule(plan) for plan in plans], max(changed, default="")


def _codes(plan: Tree) -> list[tuple[str, str]]:
    contexts = [child(each, "valueCodeableConcept") for each in objects(plan, "useContext")]
    codings = [coding for concept in contexts for coding in objects(concept, "coding")]
    return [(text(coding, "system"), text(coding, "code").upper()) for coding in codings]


def _rule(plan: Tree) -> Tree:
    actions = objects(plan, "action")
    return {"id": text(plan, "id")} | without_nothing(
        {
            "title": text(plan, "title") or text(plan, "name"),
            "description": text(plan, "description"),
            "applies_to_codes": list(dict.fromkeys(code for _, code in _codes(plan) if code)),
            "criteria": "\n".join(_criteria(actions)),
            "documentation_requirements": _documentation(plan, actions),
            "effective_date": text(child(plan, "effectivePeriod"), "start") or text(plan, "approvalDate"),
            "source_url": _source(plan),
        }
    )


def _criteria(actions: list[Tree]) -> list[str]:
    lines: list[str] = []
    for action in actions:
        expressions = [child(condition, "expression") for condition in objects(action, "condition")]
        lines += [text(each, "description") or text(each, "expression") for each in expressions]
        lines.append(text(action, "description"))
    return [line for line in dict.fromkeys(lines) if line]


def _documentation(plan: Tree, actions: list[Tree]) -> list[str]:
    """Documents that are demanded, by name, and the questionnaires by address."""
    named = [document for action in actions for document in objects(action, "documentation")]
    found = [text(document, "display") or text(document, "label") or text(document, "url") for document in named]
    extensions = [each for node in (plan, *actions) for each in objects(node, "extension")]
    informing = [each for each in extensions if text(each, "url") == INFORMATION]
    found += [said(form) for each in informing for form in parts(each, "questionnaire")]
    return [line for line in dict.fromkeys(found) if line]


def _source(plan: Tree) -> str:
    related = [text(each, "url") for each in objects(plan, "relatedArtifact")]
    return next((url for url in related if url), "") or text(plan, "url")


def summary(code: str, rules: list[Tree]) -> str:
    if not rules:
        return f"No rules for {code} are published by this platform.\n"
    lines = [f"# Rules for {code}"]
    for rule in rules:
        lines += ["", f"## {_line(rule.get('title', rule['id']))}"]
        lines += [_line(rule[name]) for name in ("description",) if name in rule]
        lines += [f"- {_line(line)}" for line in rule.get("criteria", "").split("\n") if line]
        lines += [f"- Documentation: {_line(each)}" for each in rule.get("documentation_requirements", [])]
        if "effective_date" in rule:
            lines.append(f"- In force since {rule['effective_date']}")
    return "\n".join(lines) + "\n"


def _line(words: str) -> str:
    return " ".join(words.split())

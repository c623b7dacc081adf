"""A Questionnaire as a tree that a model or an application can walk, and the same as Markdown (FG-10)."""

from __future__ import annotations

from typing import Any

from wardmesh_common.errors import TooLarge
from wardmesh_fhir_proxy.coverage_tree import Tree, child, choice, flag, objects, said, text, without_nothing

MAX_ITEMS = 3000
MAX_DEPTH = 20
_NO_QUESTION = frozenset({"group", "display"})
_OPERATORS = {"=": "is", "!=": "is not", ">": ">", "<": "<", ">=": ">=", "<=": "<="}

Options = dict[str, list[Tree]]  # canonical of a value set -> its codes


def questionnaire(resource: Tree, options: Options) -> Tree:
    """Raises TooLarge for a form that nobody could fill in."""
    items = _items(resource, options, MAX_DEPTH)
    flat = _flat(items)
    if len(flat) > MAX_ITEMS:
        raise TooLarge("The platform's questionnaire is larger than the limit.")
    questions = [item for item in flat if item["type"] not in _NO_QUESTION]
    shown = without_nothing(
        {
            "id": text(resource, "id"),
            "url": text(resource, "url"),
            "title": text(resource, "title") or text(resource, "name"),
            "description": text(resource, "description"),
            "status": text(resource, "status"),
        }
    )
    return shown | {
        "items": items,
        "markdown": _markdown(shown, items),
        "item_count": len(questions),
        "required_count": sum(item["required"] for item in questions),
    }


def _items(node: Tree, options: Options, depth: int) -> list[Tree]:
    found = objects(node, "item")
    if found and not depth:
        raise TooLarge("The platform's questionnaire is nested too deeply.")
    return [_item(item, options, depth - 1) for item in found]


def _item(node: Tree, options: Options, depth: int) -> Tree:
    length = node.get("maxLength")
    described = without_nothing(
        {
            "link_id": text(node, "linkId"),
            "text": text(node, "text"),
            "max_length": length if isinstance(length, int) and not isinstance(length, bool) else None,
            "answer_options": _options(node, options),
            "initial_value": ", ".join(said(choice(each, "value")) for each in objects(node, "initial")),
            "enable_when": _condition(node),
            "items": _items(node, options, depth),
        }
    )
    # FHIR says what these are when they are absent.
    return described | {
        "type": text(node, "type") or "display",
        "required": flag(node, "required"),
        "repeats": flag(node, "repeats"),
        "read_only": flag(node, "readOnly"),
    }


def _options(node: Tree, options: Options) -> list[Tree]:
    listed = [_option(choice(each, "value")) for each in objects(node, "answerOption")]
    named = text(node, "answerValueSet")
    return [each for each in listed if each] or options.get(named) or options.get(named.partition("|")[0]) or []


def _option(value: Any) -> Tree:
    if isinstance(value, dict):
        node: Tree = value
        plain = text(node, "code") or text(node, "reference")
        return without_nothing({"value": plain, "display": text(node, "display"), "system": text(node, "system")})
    return without_nothing({"value": said(value)})


def codes_of(value_set: Tree) -> list[Tree]:
    """Codes that a value set spells out, expanded or composed; one that only refers to others has none here."""
    listed = list(objects(child(value_set, "expansion"), "contains"))
    codes = [(text(each, "system"), each) for each in listed]
    if not codes:
        included = objects(child(value_set, "compose"), "include")
        codes = [(text(group, "system"), each) for group in included for each in objects(group, "concept")]
    if len(codes) > MAX_ITEMS:
        raise TooLarge("A value set of the platform is larger than the limit.")
    found = [{"value": text(e, "code"), "display": text(e, "display"), "system": system} for system, e in codes]
    return [without_nothing(each) for each in found if each["value"]]


def _condition(node: Tree) -> str:
    word = " or " if text(node, "enableBehavior") == "any" else " and "
    return word.join(_rule(rule) for rule in objects(node, "enableWhen"))


def _rule(rule: Tree) -> str:
    question, operator, answer = text(rule, "question"), text(rule, "operator"), choice(rule, "answer")
    if operator == "exists":
        return f"{question} is {'answered' if answer is True else 'not answered'}"
    return f"{question} {_OPERATORS.get(operator, '?')} {said(answer)}"


def _flat(items: list[Tree]) -> list[Tree]:
    return [each for item in items for each in (item, *_flat(item.get("items", [])))]


def _markdown(shown: Tree, items: list[Tree]) -> str:
    head = [f"# {_line(shown.get('title', 'Questionnaire'))}"]
    if "description" in shown:
        head += ["", _line(shown["description"])]
    return "\n".join([*head, "", *_lines(items, 0)]).rstrip() + "\n"


def _lines(items: list[Tree], depth: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        words = [_line(item.get("text", "") or item.get("link_id", ""))]
        if item["type"] not in _NO_QUESTION:
            words.append(f"({item['type']}{', required' if item['required'] else ''})")
        if "enable_when" in item:
            words.append(f"[only if {_line(item['enable_when'])}]")
        lines.append(f"{'  ' * depth}- {' '.join(words)}")
        offered = (option.get("display", "") or option.get("value", "") for option in item.get("answer_options", []))
        lines += [f"{'  ' * (depth + 1)}- [ ] {_line(option)}" for option in offered]
        lines += _lines(item.get("items", []), depth + 1)
    return lines


def _line(words: str) -> str:
    return " ".join(words.split())

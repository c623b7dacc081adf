"""Reads a payer's JSON without trusting its shape: what is not there, or is something else, counts as absent."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from wardmesh_common.errors import BadUpstream, TooLarge
from wardmesh_fhir_proxy import json_exact

Tree = dict[str, Any]
MAX_BYTES = 4 * 1024 * 1024


def document(body: bytes, what: str) -> Tree:
    """The body as an object. Raises BadUpstream, TooLarge."""
    if len(body) > MAX_BYTES:
        raise TooLarge(f"The platform's {what} is larger than the limit.")
    try:
        found = json_exact.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise BadUpstream(f"The platform's {what} cannot be read.") from None
    if not isinstance(found, dict):
        raise BadUpstream(f"The platform's {what} is not a JSON object.")
    return cast("Tree", found)


def text(node: Tree, name: str) -> str:
    value = node.get(name)
    return value.strip() if isinstance(value, str) else ""


def objects(node: Tree, name: str) -> list[Tree]:
    value = node.get(name)
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [cast("Tree", item) for item in items if isinstance(item, dict)]


def child(node: Tree, name: str) -> Tree:
    """The object of that name, or an empty one."""
    value = node.get(name)
    return cast("Tree", value) if isinstance(value, dict) else {}


def flag(node: Tree, name: str) -> bool:
    return node.get(name) is True


def choice(node: Tree, stem: str) -> Any:
    """The value of `value[x]`, `answer[x]` and the like; None when there is none."""
    for name, value in node.items():
        if name.startswith(stem) and name[len(stem) : len(stem) + 1].isupper():
            return value
    return None


def said(value: Any) -> str:
    """Any FHIR value as a person would write it; "" for what has no short form."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        node = cast("Tree", value)
        coding = next(iter(objects(node, "coding")), node)
        if "value" in node:
            return f"{said(node['value'])} {text(node, 'unit')}".strip()
        words = (text(node, "text"), text(coding, "display"), text(coding, "code"), text(node, "reference"))
        return next((word for word in words if word), "")
    return str(value).strip() if value is not None and not isinstance(value, list) else ""


def parts(extension: Tree, url: str) -> list[Any]:
    """The values of the sub-extensions with that (relative) url."""
    found = [choice(each, "value") for each in objects(extension, "extension") if text(each, "url") == url]
    return [value for value in found if value is not None]


def resources(bundle: Tree) -> list[Tree]:
    return [resource for entry in objects(bundle, "entry") if (resource := child(entry, "resource"))]


def without_nothing(node: Tree) -> Tree:
    """Fields without a value are omitted (FG-10)."""
    return {name: value for name, value in node.items() if value is not None and value not in ("", [], {})}

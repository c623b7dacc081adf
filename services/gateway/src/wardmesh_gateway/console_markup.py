"""HTML by construction: every text is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_EMPTY = frozenset({"input", "link", "meta", "br", "hr"})


class Markup(str):
    """HTML that is safe to put into a page as it is."""

    __slots__ = ()


Part = str | Iterable["Part"] | None


def tag(name: str, /, *parts: Part, **attributes: str | int | bool | None) -> Markup:
    """An element. `class_` and `for_` lose the underscore, others become dashes; False and None leave one out."""
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _EMPTY:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{joined(parts)}</{name}>")


def joined(part: Part) -> Markup:
    if part is None:
        return Markup("")
    if isinstance(part, Markup):
        return part
    if isinstance(part, str):
        return Markup(escape(part))
    return Markup("".join(joined(each) for each in part))


def _attribute(name: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'

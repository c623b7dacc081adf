"""How the console says that a rule fired: its title, how severe that is, and where it was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardmesh_gateway.console_markup import Markup, joined, tag
from wardmesh_gateway.console_page import ROOT
from wardmesh_gateway.console_times import clock

_FIRED = "rule_fired"


def fired(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What an event says about the rule that fired; None for every other event."""
    data: Mapping[str, Any] = event.get("data") or {}
    facts: Mapping[str, Any] | None = data.get("facts")
    return facts if facts and (data.get("outcome") or {}).get("reason") == _FIRED else None


def title(said: Mapping[str, Any]) -> str:
    """Alerts from before rules told their title have a name only."""
    return str(said.get("title") or "") or str(said.get("rule") or "").replace("_", " ").capitalize()


def severity(word: object) -> Markup:
    return tag("span", f"{word} severity", class_="badge alert") if word else Markup("")


def moment_of(line: Mapping[str, Any], facts: Mapping[str, Any]) -> Markup:
    """An alert among the accesses of a timeline."""
    link = tag("a", clock(line["event"]["time"]), href=f"{ROOT}/event/{line['id']}")
    about = tag("a", "the event", href=f"{ROOT}/event/{facts.get('about_event', '')}")
    who = tag("span", str(facts.get("about_actor", "")), class_="id")
    return tag(
        "li",
        tag("span", link, class_="when"),
        tag("span", who, class_="who"),
        tag("span", "Alert: ", title(facts), class_="what"),
        tag("span", joined([severity(facts.get("severity")), " ", tag("small", about)]), class_="how"),
        class_="alarm",
    )

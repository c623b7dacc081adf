"""Events as rows of a table and as one page each: pseudonyms, codes and times, nothing that is sealed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_gateway.console_alerts import fired, severity, title
from wardmesh_gateway.console_markup import Markup, Part, joined, tag
from wardmesh_gateway.console_page import ROOT
from wardmesh_gateway.console_times import moment

COLUMNS = ("Time", "Actor", "Action", "Resource", "Patient", "Purpose", "Outcome")
_lines = msgspec.json.Decoder(dict[str, Any])


def table(rows: list[Markup], *, live: bool = False) -> Markup:
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in COLUMNS]))
    body = tag("tbody", rows, id="rows")
    caption = tag("caption", "Newest first" if live else "Events found", class_="quiet")
    found = tag("div", tag("table", caption, head, body, class_="events"), class_="scroll")
    return joined([found, names()])


def row(line: bytes | msgspec.Raw) -> Markup:
    return row_of(_lines.decode(line))


def row_of(line: Mapping[str, Any]) -> Markup:
    event: dict[str, Any] = line.get("event") or {}
    data: dict[str, Any] = event.get("data") or {}
    outcome, resource = data.get("outcome") or {}, data.get("resource") or {}
    code = str(outcome.get("code", "malformed" if line.get("malformed") else ""))
    alarming = (data.get("break_glass") or {}).get("used") or kind_of(event) in ("alert", "break_glass")
    rule = fired(event)
    cells: list[Part] = [
        tag("a", moment(event.get("time", line["recorded_at"])), href=f"{ROOT}/event/{line['id']}"),
        actor(data.get("actor") or {}),
        _deed(kind_of(event) or "malformed", title(rule) if rule else str(data.get("action", ""))),
        [str(resource.get("type", "")), _times(resource.get("count"))],
        patient((data.get("patient") or {}).get("pseudonym", "")),
        str(data.get("purpose_of_use", "")),
        severity(rule.get("severity")) if rule else [badge(code), " ", tag("small", str(outcome.get("reason", "")))],
    ]
    named = zip(COLUMNS, cells, strict=True)
    shown = [tag("td", cell, data_label=name) for name, cell in named]
    return tag("tr", shown, class_="alarm" if alarming else None, id=f"e-{str(line['cursor']).replace(':', '-')}")


def _deed(kind: str, action: str) -> Part:
    """Some classes have one action only, of the same name: that is said once."""
    return [kind, " ", tag("small", action)] if action != kind else kind


def names() -> Markup:
    """People's names here are made by machines: the page says how to read them."""
    example = tag("span", "5d1c3023:", class_="id")
    said = (
        "In an actor's name, what stands before the colon, such as ",
        example,
        ", is a short hash of the issuer at which the person signed in: the same name at another issuer is "
        "somebody else. A name that begins with ",
        tag("span", "session:", class_="id"),
        " is a browser in which nobody has signed in here.",
    )
    return tag("p", said, class_="quiet names")


def actor(found: Mapping[str, Any]) -> Markup:
    """The person, and the agent that acted for the person."""
    person = found.get("on_behalf_of")
    who: Mapping[str, Any] = person if isinstance(person, dict) else found
    agent = [tag("small", f"by {found.get('id', '')}", class_="agent")] if person else []
    role = str(who.get("role", "") or who.get("type", ""))
    return joined([tag("span", str(who.get("id", "")), class_="id"), " ", tag("small", role), agent])


def patient(pseudonym: str) -> Markup:
    if not pseudonym:
        return Markup("")
    return tag("a", pseudonym[:8], href=f"{ROOT}/events?pseudonym={pseudonym}", class_="id", title=pseudonym)


def badge(code: str) -> Markup:
    return tag("span", code, class_=f"badge {code if code.isidentifier() else ''}") if code else Markup("")


def kind_of(event: Mapping[str, Any]) -> str:
    """`org.wardmesh.audit.access.v1` -> `access`."""
    return str(event.get("type", "")).removeprefix("org.wardmesh.audit.").partition(".")[0]


def detail(line: Mapping[str, Any]) -> Markup:
    facts: list[tuple[str, Part]] = [
        ("Cursor", str(line["cursor"])),
        ("Event", str(line["id"])),
        ("Recorded", moment(line["recorded_at"])),
        ("Leaf hash", str(line["leaf_hash"])),
    ]
    shown = [[tag("dt", name), tag("dd", value, class_="id")] for name, value in facts]
    text = msgspec.json.format(msgspec.json.encode(line.get("event")), indent=2).decode()
    proof = tag("a", "Download the proof of this event", href=f"/v1/events/{line['id']}/proof", download=True)
    return joined([tag("dl", shown), tag("p", proof), tag("h2", "The event"), tag("pre", text, tabindex="0")])


def _times(count: object) -> Part:
    return tag("small", f" ×{count}") if isinstance(count, int) and count > 1 else None

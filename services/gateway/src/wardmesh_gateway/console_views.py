"""The other views of the console: a patient's timeline, the review queue, and how verification stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from wardmesh_gateway import console_alerts
from wardmesh_gateway.console_events import badge, names, patient
from wardmesh_gateway.console_markup import Markup, Part, joined, tag
from wardmesh_gateway.console_page import ROOT, notice
from wardmesh_gateway.console_times import clock, day, moment

REVIEW_OUTCOMES = ("appropriate", "inappropriate", "escalated", "false_positive")
_VERDICTS = {0: "verified", 1: "tampered", 2: "incomplete", 3: "cannot verify"}


def patient_form(csrf: str, given: Mapping[str, str]) -> Markup:
    """Sent as a form body: an id in an address would stay in histories and logs."""
    wanted = tag(
        "input", name="patient", value=given.get("patient", ""), required=True, maxlength=64, autocomplete="off"
    )
    where = tag("input", name="platform", value=given.get("platform", ""), maxlength=64, autocomplete="off")
    fields = [
        tag("label", tag("span", "Patient id"), wanted),
        tag("label", tag("span", "Platform (empty: ours)"), where),
        tag("label", tag("span", "From (UTC)"), tag("input", type="date", name="from", value=given.get("from", ""))),
        tag("label", tag("span", "To (UTC)"), tag("input", type="date", name="to", value=given.get("to", ""))),
    ]
    buttons = tag("div", tag("button", "Show the history", type="submit", class_="primary"), class_="buttons")
    hidden = tag("input", type="hidden", name="csrf", value=csrf)
    row = tag("div", fields, buttons, class_="fields")
    return tag("form", hidden, row, method="post", action=f"{ROOT}/patient", class_="filters")


def timeline(report: Mapping[str, Any], alerts: Iterable[Mapping[str, Any]] = ()) -> Markup:
    """Who accessed the record, and what rules say to it, newest day first."""
    lines: list[dict[str, Any]] = report["lines"]
    if not lines:
        return notice("quiet", "Nothing is recorded about this patient in this period.")
    proven = sum(line["proof"] is not None for line in lines)
    people = len({line["actor"] for line in lines})
    summary = f"{len(lines)} accesses by {people} {'person' if people == 1 else 'people'}, {proven} proven."
    entries = [(line["time"], _moment(line)) for line in lines]
    told = ((line, console_alerts.fired(line["event"])) for line in alerts)
    entries += [(line["event"]["time"], console_alerts.moment_of(line, facts)) for line, facts in told if facts]
    newest = sorted(entries, key=lambda entry: entry[0], reverse=True)
    days = [
        tag("section", tag("h2", tag("time", on, datetime=on)), tag("ol", [shown for _, shown in of_day]))
        for on, of_day in groupby(newest, key=lambda entry: day(entry[0]))
    ]
    more = notice("quiet", "More follow: narrow the period.") if report["next"] else None
    about = tag("p", "Pseudonym ", tag("span", report["about"], class_="id"), ". ", summary)
    return joined([about, more, tag("div", days, class_="timeline"), names()])


def _moment(line: Mapping[str, Any]) -> Markup:
    agent = tag("small", f" by {line['agent']}", class_="agent") if line["agent"] else None
    proof = "proven" if line["proof"] is not None else "not signed yet"
    link = tag("a", clock(line["time"]), href=f"{ROOT}/event/{line['id']}")
    return tag(
        "li",
        tag("span", link, class_="when"),
        tag("span", tag("span", line["actor"], class_="id"), " ", tag("small", line["role"]), agent, class_="who"),
        tag("span", f"{line['type']} {line['resource']} ", tag("small", line["purpose"]), class_="what"),
        tag("span", badge(line["outcome"]), " ", tag("small", proof), class_="how"),
        class_="alarm" if line["break_glass"] or line["outcome"] == "denied" else None,
    )


def reviews(found: Iterable[Mapping[str, Any]], csrf: str) -> Markup:
    entries = [_review(each, csrf) for each in found]
    queue = tag("div", entries or notice("quiet", "Nothing waits for a review."), class_="queue")
    return joined([queue, names() if entries else None])


def _review(entry: Mapping[str, Any], csrf: str) -> Markup:
    title = console_alerts.title(entry) or entry["kind"].replace("_", "-").capitalize()
    facts: list[Part] = [
        _fact("Opened", moment(entry["opened_at"])),
        _fact("Rule", entry["rule"]) if entry["rule"] else None,
        _fact("Actor", tag("span", entry["actor"], class_="id")),
        _fact("Patient", patient(entry["patient"])) if entry["patient"] else None,
        _fact("Event", tag("a", entry["cursor"], href=f"{ROOT}/event/{entry['event_id']}"))
        if entry["event_id"]
        else None,
        [_fact(name.replace("_", " "), str(value)) for name, value in sorted(entry["facts"].items())],
    ]
    kind = tag("span", entry["kind"].replace("_", "-"), class_="badge alert")
    head = tag("h2", title, " ", console_alerts.severity(entry["severity"]) or kind)
    body = _closed(entry) if entry["status"] == "closed" else _form(entry, csrf)
    return tag("article", head, tag("dl", facts), body, class_=f"review {entry['status']}", id=f"r-{entry['id']}")


def _closed(entry: Mapping[str, Any]) -> Markup:
    closed = moment(entry["closed_at"])
    return tag("dl", _fact("Outcome", badge(entry["outcome"])), _fact("Evidence", entry["evidence"]),
               _fact("Reviewer", tag("span", entry["reviewer"], class_="id")), _fact("Closed", closed))  # fmt: skip


def _form(entry: Mapping[str, Any], csrf: str) -> Markup:
    choices = [tag("option", value.replace("_", " "), value=value) for value in REVIEW_OUTCOMES]
    outcome = tag("select", tag("option", "choose", value=""), choices, name="outcome", required=True)
    evidence = tag("textarea", "", name="evidence", required=True, maxlength=4000, rows=3)
    return tag(
        "form",
        tag("input", type="hidden", name="csrf", value=csrf),
        tag("label", tag("span", "Outcome"), outcome),
        tag("label", tag("span", "Evidence: what was looked at and found"), evidence),
        tag("div", tag("button", "Close the review", type="submit", class_="primary"), class_="buttons"),
        method="post",
        action=f"{ROOT}/reviews/{entry['id']}",
        class_="outcome",
    )


def strip(status: Mapping[str, Any]) -> Markup:
    """One line at the head of the live view: may the ledger be believed right now?"""
    logs: list[Mapping[str, Any]] = status["logs"]
    # The log that is worst off speaks for all: one that was tampered with, then one that nobody could check.
    verdict, kind = _verdict(min(logs, key=_standing))
    waiting, cosigned = status["open_reviews"], sum(each["cosigned_size"] for each in logs)
    parts = [
        _cell("Events", f"{sum(each['size'] for each in logs):,}" + (f" in {len(logs)} logs" if len(logs) > 1 else "")),
        _cell("Signed", f"{sum(each['checkpoint_size'] for each in logs):,}"),
        _cell("Cosigned", f"{cosigned:,}" if cosigned else "no witness yet"),
        _cell("Verification", tag("span", verdict, class_=f"badge {kind}")),
        _cell("Signing guard", status["guard"]),
        _cell("Waiting reviews", tag("a", str(waiting), href=f"{ROOT}/reviews")),
    ]
    return tag("dl", parts, class_="strip", id="strip")


def verification(status: Mapping[str, Any]) -> Markup:
    return joined([_log(log) for log in status["logs"]] + [_roles(status)])


def _log(log: Mapping[str, Any]) -> Markup:
    verdict, kind = _verdict(log)
    last = log["last_verification"]
    findings = [
        tag("li", f"{each['kind']} at index {each['index']}: {each['detail']}")
        for each in (last or {}).get("findings", [])
    ]
    when: Part = [", ", moment(last["ended_at"]), f", {last['size']:,} events"] if last else None
    witnesses = ", ".join(log["cosigned_by"]) or "nobody"
    facts = [
        _fact("Last verification", [tag("span", verdict, class_=f"badge {kind}"), when]),
        _fact("Background verification", _background(log.get("verifying"))),
        _fact("Events", f"{log['size']:,}, {log['uncovered']:,} not signed yet"),
        _fact("Tree", tag("span", log["root"], class_="id")),
        _fact("Last checkpoint", [f"size {log['checkpoint_size']:,}, ", moment(log["checkpoint_at"])]),
        _fact("Cosigned by", witnesses),
        _fact("Last cosigned checkpoint", [f"size {log['cosigned_size']:,}, ", moment(log["cosigned_at"])]),
    ]
    note = tag("pre", log["checkpoint"] or "There is no checkpoint yet.", tabindex="0")
    return tag("section", tag("h2", f"Log {log['log']}"), tag("dl", facts), tag("ul", findings) if findings else None,
               note)  # fmt: skip


def _background(progress: Mapping[str, Any] | None) -> Part:
    if progress is None:
        return "not begun"
    found = f", {progress['findings']:,} findings" if progress["findings"] else ""
    place = (
        f"at {progress['checked']:,} of {progress['size']:,} events" if progress["running"] else "waits for its turn"
    )
    return [f"{place}, ", moment(progress["looked_at"]), found]


def _roles(status: Mapping[str, Any]) -> Markup:
    facts = [_fact(name, text) for name, text in sorted(status["roles"].items())]
    stray = _fact("Events with an absurd clock", str(status["default_rows"]))
    return tag("section", tag("h2", "This replica"), tag("dl", _fact("Signing guard", status["guard"]), facts, stray))


def _standing(log: Mapping[str, Any]) -> int:
    """Smaller is worse: 1 tampered, 2 incomplete, 3 cannot verify, then never verified, then verified."""
    last = log["last_verification"]
    return 4 if last is None else last["exit_code"] or 5


def _verdict(log: Mapping[str, Any]) -> tuple[str, str]:
    last = log["last_verification"]
    if last is None:
        return "not run yet", "quiet"
    return _VERDICTS.get(last["exit_code"], "unknown"), "success" if last["exit_code"] == 0 else "error"


def _fact(name: str, value: Part) -> Markup:
    return joined([tag("dt", name), tag("dd", value)])


def _cell(name: str, value: Part) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value))

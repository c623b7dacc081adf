"""The frame of the compliance console: head, navigation, filters; the policy that lets nothing foreign run in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wardmesh_gateway.asgi import Header
from wardmesh_gateway.console_markup import Markup, Part, joined, tag

HOME = "/console"
ROOT = f"{HOME}/audit"
STATIC = f"{HOME}/static"
HTML: Header = (b"content-type", b"text/html; charset=utf-8")
NO_STORE: Header = (b"cache-control", b"no-store")
# Scripts and styles of ours only, nothing inline, nothing from elsewhere, and no page may frame this one.
PAGE_POLICY: Header = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
)
VIEWS = (
    ("live", "Live", ROOT),
    ("search", "Search", f"{ROOT}/events"),
    ("patient", "Patient", f"{ROOT}/patient"),
    ("reviews", "Reviews", f"{ROOT}/reviews"),
    ("verification", "Verification", f"{ROOT}/verification"),
)
TYPES = (
    "access",
    "search",
    "write",
    "export",
    "disclosure",
    "login",
    "consent",
    "privilege",
    "break_glass",
    "key",
    "audit_status",
    "audit_read",
    "policy_change",
    "alert",
    "retention",
    "malformed",
)
OUTCOMES = ("success", "denied", "error", "withheld", "unterminated")
PURPOSES = ("TREAT", "HPAYMT", "HOPERAT", "ETREAT", "BTG", "PATRQT", "HRESCH")


def page(view: str, title: str, *parts: Part) -> bytes:
    links = [
        tag("a", label, href=address, aria_current="page" if name == view else None) for name, label, address in VIEWS
    ]
    body = tag(
        "body",
        tag("a", "Skip to content", href="#content", class_="skip"),
        tag(
            "header",
            tag("p", "Wardmesh ", tag("span", "compliance"), class_="brand"),
            tag("nav", links, aria_label="Console"),
            tag("a", "Documents", href="/docs/audit-api"),
            tag("a", "Sign out", href="/auth/logout", class_="leave"),
        ),
        tag("main", tag("h1", title), parts, id="content", tabindex="-1"),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="same-origin"),
        tag("title", f"{title} · Wardmesh compliance"),
        tag("link", rel="icon", href=f"{STATIC}/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href=f"{STATIC}/console.css"),
        tag("script", type="module", src=f"{STATIC}/console.js"),
    )
    return b"<!doctype html>" + tag("html", head, body, lang="en").encode()


def filters(action: str, given: Mapping[str, str], *, live: bool, logs: Sequence[int]) -> Markup:
    """The form over the events; live ones have no period and no order."""
    fields = [
        _choice("type", "Type", TYPES, given),
        _choice("outcome", "Outcome", OUTCOMES, given),
        _choice("purpose", "Purpose", PURPOSES, given),
        _text("actor", "Actor", given),
        _text("pseudonym", "Patient pseudonym", given, pattern="[0-9a-f]{32}", title="32 hexadecimal characters"),
        _text("resource", "Resource type", given),
        _choice("break_glass", "Break-glass", ("true", "false"), given),
    ]
    if len(logs) > 1:
        fields.insert(0, _choice("log", "Log", [str(log) for log in logs], given, nothing="all logs"))
    if not live:
        fields += [
            _text("from", "From (UTC)", given, type_="date"),
            _text("to", "To (UTC)", given, type_="date"),
            _choice("sort", "Sort", ("time", "actor", "role", "patient", "type", "outcome", "resource"), given),
        ]
    apply = tag("button", "Apply", type="submit", class_="primary")
    clear = tag("a", "Clear", href=action, class_="button")
    row = tag("div", fields, tag("div", apply, clear, class_="buttons"), class_="fields")
    return tag("form", row, method="get", action=action, class_="filters", role="search", aria_label="Filter events")


def notice(kind: str, *parts: Part) -> Markup:
    role = "alert" if kind == "bad" else "status"
    return tag("p", joined(parts), class_=f"notice {kind}", role=role)


def _choice(name: str, label: str, values: Iterable[str], given: Mapping[str, str], *, nothing: str = "any") -> Markup:
    options = [tag("option", nothing, value="")]
    options += [tag("option", value, value=value, selected=given.get(name) == value) for value in values]
    return tag("label", tag("span", label), tag("select", options, name=name))


def _text(name: str, label: str, given: Mapping[str, str], *, type_: str = "text", **more: str) -> Markup:
    entry = tag("input", type=type_, name=name, value=given.get(name, ""), autocomplete="off", **more)
    return tag("label", tag("span", label), entry)

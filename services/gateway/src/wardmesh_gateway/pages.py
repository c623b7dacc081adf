"""HTML that a person sees in a browser: the results of FG-12 and the page at `/`. No script, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from msgspec import Struct

from wardmesh_gateway.asgi import Header

HTML: Header = (b"content-type", b"text/html; charset=utf-8")

_STYLE = """
:root{color-scheme:light dark;--ground:#f4f6f8;--card:#fff;--ink:#1b2733;--soft:#54616e;--line:#d8dee4;
--good:#0b6e4f;--bad:#a4262c;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ground:#12181f;--card:#1b232c;--ink:#e8edf2;--soft:#a9b4c0;--line:#303b47;
--good:#5fd3a6;--bad:#ff9a94;--link:#8cc2ff}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:flex;align-items:center;justify-content:center;background:var(--ground);
color:var(--ink);font:1.0625rem/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;padding:1.5rem}
main{width:100%;max-width:34rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem;
padding:2rem 2rem 1.5rem;border-top:.3rem solid var(--mark,var(--link))}
main.good{--mark:var(--good)}main.bad{--mark:var(--bad)}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .75rem}h2{font-size:1.0625rem;margin:1.5rem 0 .25rem}
.good h1{color:var(--good)}.bad h1{color:var(--bad)}
p{margin:.5rem 0}ul{margin:.5rem 0;padding-left:1.25rem}
a{color:var(--link)}a:focus-visible{outline:.2rem solid var(--link);outline-offset:.15rem}
footer{margin-top:1.5rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--soft);font-size:.9rem}
"""


class Page(Struct, frozen=True, kw_only=True):
    """What one result page says; `status` is its HTTP status."""

    title: str
    status: int
    text: str
    next: str = ""
    good: bool = False


_AGAIN = "Go back to your application and start the sign-in again."
PAGES: dict[str, Page] = {
    "success": Page(
        title="Authentication Successful",
        status=200,
        text="You are signed in at {platform}.",
        next="You can close this window and go back to your application.",
        good=True,
    ),
    "failed": Page(
        title="Authentication Failed",
        status=400,
        text="The platform did not let you in, or you said no.",
        next=_AGAIN,
    ),
    "invalid_request": Page(
        title="Invalid Request",
        status=400,
        text="This address was opened without what a platform adds to it after a sign-in.",
        next=_AGAIN,
    ),
    "invalid_state": Page(
        title="Invalid State",
        status=400,
        text="This sign-in is not known here, has been used already, or took too long.",
        next=_AGAIN,
    ),
    "session_mismatch": Page(
        title="Session Mismatch",
        status=400,
        text="This sign-in was started by somebody else or in another browser. Nothing has been connected.",
        next="If somebody sent you the link, do not go on. If it was you, open it in the browser where you began.",
    ),
    "platform_error": Page(
        title="Platform Error",
        status=400,
        text="The platform of this sign-in is not available here any more, or has no sign-in.",
        next=_AGAIN,
    ),
    "token_exchange_failed": Page(
        title="Token Exchange Failed",
        status=500,
        text="The platform accepted your sign-in but did not hand over access.",
        next="Try again in a moment. If it happens again, tell whoever runs this service.",
    ),
    "too_many_requests": Page(
        title="Too Many Requests",
        status=429,
        text="There were too many sign-ins from your network just now.",
        next="Wait a minute and try again.",
    ),
    "unavailable": Page(
        title="Not Available",
        status=503,
        text="The sign-in cannot be finished right now. Nothing has been lost.",
        next="Load this page again in a moment.",
    ),
    "problem": Page(title="That Did Not Work", status=400, text="{detail}", next=_AGAIN),
}


def result_page(name: str, *, platform: str = "", detail: str = "") -> bytes:
    """One of the pages above; `platform` is a display name out of the catalogue, `detail` a text of ours."""
    page = PAGES[name]
    text = page.text.format(platform=platform or "the platform", detail=detail)
    lines = [f"<p>{escape(text)}</p>", f"<p>{escape(page.next)}</p>" if page.next else ""]
    return _document(page.title, "".join(lines), "good" if page.good else "bad")


class Connection(Struct, frozen=True):
    """One platform as the start page lists it."""

    name: str
    connected: bool


def start_page(*, known: bool, connections: Iterable[Connection]) -> bytes:
    """`/`: whether this browser has a session, what is connected in it, where to go."""
    rows = [
        f"<li>{escape(row.name)}: {'connected' if row.connected else 'not connected any more'}</li>"
        for row in connections
    ]
    if known:
        parts = ["<p>This browser has a session here.</p>", "<h2>Your platforms</h2>"]
        parts.append(f"<ul>{''.join(rows)}</ul>" if rows else "<p>No platform is connected yet.</p>")
        parts.append('<p><a href="/auth/logout">Sign out</a></p>')
    else:
        parts = [
            "<p>This gateway stands between applications and health records.</p>",
            '<p><a href="/auth/login">Sign in</a>, or <a href="/auth/login?again=true">as somebody else</a></p>',
        ]
    parts.append('<footer><a href="/docs/">For developers</a></footer>')
    return _document("Wardmesh", "".join(parts), "")


def _document(title: str, body: str, kind: str) -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f'<style>{_STYLE}</style></head><body><main class="{kind}"><h1>{escape(title)}</h1>{body}</main></body></html>'
    ).encode()

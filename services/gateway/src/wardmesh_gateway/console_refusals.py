"""A page of the console that somebody does not get: why, in words, who may change it, and how to go on."""

from __future__ import annotations

from urllib.parse import urlencode

from wardmesh_common.errors import Problem
from wardmesh_gateway.asgi import Request
from wardmesh_gateway.console_markup import Part, tag
from wardmesh_gateway.console_page import ROOT, notice, page
from wardmesh_gateway.entrance import Render

_DEEDS = {
    "": "see the events as they happen",
    "stream": "see the events as they happen",
    "events": "search the events",
    "event": "see an event",
    "patient": "see who accessed a record",
    "reviews": "see the reviews",
    "verification": "see how the verification of the ledger stands",
}
# Roles and rules are the operator's: what we ship is named as that.
_WHO_GRANTS = (
    "Roles are given by whoever administers the sign-in of your organisation: as delivered, Auditor reads the ledger, "
    "Compliance and Admin close reviews too. What a role may do is decided by whoever administers the policies of "
    "wardmesh. This refusal stands in the ledger."
)


def refusal_at(request: Request) -> Render:
    """Whoever may not see a page gets a way to sign in as somebody who may."""
    # The answer to a form has no address of its own to come back to.
    onward = urlencode({"again": "true", "next": request.path if request.method == "GET" else ROOT})
    other = tag("a", "Sign in as somebody else", href=f"/auth/login?{onward}", class_="button")
    deed = _deed(request)

    def refusal(problem: Problem) -> bytes:
        denied = problem.status == 403
        back = tag("a", "Back to the console", href=ROOT, class_="button")
        title = "You may not see this" if denied else "That did not work"
        buttons = tag("p", back, other if denied else None, class_="buttons")
        return page("", title, _why(problem, deed), buttons)

    return refusal


def _deed(request: Request) -> str:
    view = request.path.removeprefix(ROOT).strip("/").partition("/")[0]
    return "close a review" if (view, request.method) == ("reviews", "POST") else _DEEDS.get(view, "do this")


def _why(problem: Problem, deed: str) -> Part:
    """The reason of the policy names a procedure and a kind of ours: that is for the record."""
    if problem.status != 403 or problem.station != "policy":
        return notice("bad", problem.detail)
    return [notice("bad", f"Your roles do not allow you to {deed}."), tag("p", _WHO_GRANTS)]

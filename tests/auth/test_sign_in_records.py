"""In the ledger a `login` with success is somebody who has signed in or out; what leads there is no login."""

from __future__ import annotations

from typing import Any

import pytest

import engines
from auth.stage import Stage, stage
from auth.test_sign_in import TOKEN, query
from auth.test_sign_in_smart import BASE, SCOPES, answer_of, clinic
from wardmesh_common.leaf import draft_events
from wardmesh_common.tokens import principal_id

pytestmark = pytest.mark.anyio


def told(scene: Stage) -> list[tuple[str, str, str, str]]:
    """Class, code, reason and actor of what was recorded so far."""
    found: list[tuple[str, str, str, str]] = []
    for call, outcome in scene.records.outcomes:
        for draft in draft_events(call, outcome, outcome.touched, 0.0):
            data: dict[str, Any] = draft.data
            actor = data["actor"].get("on_behalf_of", data["actor"])
            # A patient's name is sealed: the open field is filled in with the pseudonym.
            who = actor["id"] or draft.secrets["actor"]
            found.append((draft.event_class, data["outcome"]["code"], data["outcome"]["reason"], who))
    return found


def logins(scene: Stage) -> list[tuple[str, str]]:
    """Reason and actor of every login that succeeded."""
    return [(reason, who) for kind, code, reason, who in told(scene) if (kind, code) == ("login", "success")]


async def test_only_who_has_signed_in_is_a_login_that_succeeded(postgres: engines.Postgres, nats: engines.Nats) -> None:
    settings = {"smart_iss": BASE, "smart_client_id": "sm", "smart_scope": SCOPES, "home_platforms": ("clinic",)}
    async with clinic(postgres, nats, **settings) as scene:
        begun = await scene.procedure("sign_in", {"bound": True, "next": "/console/audit"})
        cookie = begun["session"]
        assert {(kind, reason) for kind, _, reason, _ in told(scene)} == {
            ("access", "session_opened"),
            ("access", "sign_in_begun"),
        }
        assert logins(scene) == [], "whoever opens a page has not signed in"
        given = {"code": "c", "state": begun["state"], "bound": False}
        assert (await scene.procedure("finish_auth", given, cookie=cookie)).body["page"] == "session_mismatch"
        assert logins(scene) == [] and ("login", "error") in {(kind, code) for kind, code, *_ in told(scene)}
        again = await scene.procedure("sign_in", {"bound": True, "next": "/console/audit"}, cookie=cookie)
        scene.issuer.token_answer = answer_of(scene, "Practitioner/d1", query(again["location"])["nonce"])
        given = {"code": "c", "state": again["state"], "bound": True}
        let_in = await scene.procedure("finish_auth", given, cookie=cookie)
        person = principal_id(scene.issuer.url, "s1")
        assert logins(scene) == [("signed_in", person)], "the person, not the session that the browser had before"
        await scene.procedure("sign_out", {}, cookie=let_in["session"])
        assert logins(scene) == [("signed_in", person), ("signed_out", person)]


async def test_a_sign_in_at_a_platform_is_one_login_when_it_is_done(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    of, at = {"platform_id": "sign-in"}, {"platform": "sign-in"}
    async with stage(postgres.url(), nats.url) as scene:
        scene.issuer.token_answer = TOKEN
        opened = await scene.procedure("open_auth", of, **at)
        cookie = opened["session"]
        await scene.procedure("cancel_auth", of, cookie=cookie, **at)
        await scene.procedure("get_auth_status", of, cookie=cookie, **at)
        assert logins(scene) == []
        reasons = [reason for kind, _, reason, _ in told(scene) if kind == "access"]
        assert reasons[-2:] == ["sign_in_called_off", "sign_in_asked"]
        opened = await scene.procedure("open_auth", of, cookie=cookie, **at)
        await scene.procedure("finish_auth", {"code": "c", "state": opened["state"]}, cookie=cookie)
        assert [reason for reason, _ in logins(scene)] == ["signed_in"]
        await scene.procedure("sign_out", {}, cookie=cookie)
        assert [reason for reason, _ in logins(scene)] == ["signed_in"], "nobody had signed in here with this browser"
        assert told(scene)[-1][:3] == ("access", "success", "session_closed")

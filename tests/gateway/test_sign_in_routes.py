"""Sign-in over REST and in a browser: addresses, cookies, pages and refusals, with auth scripted."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from gateway.rest_stage import BASE, READER, FakeDelivery, Stage, ok, refused
from wardmesh_common.contracts import Call, Reply
from wardmesh_gateway.pages import PAGES

pytestmark = pytest.mark.anyio
P = "smarthealthit-sandbox-patient"
STATE = "a" * 48
SECRET = "s" * 43
THERE = f"https://sandbox.test/authorize?response_type=code&state={STATE}"
COOKIE = {"cookie": f"app_session={SECRET}"}
NOBODY = {"x-nobody": "1"}
HTML = {"accept": "text/html,application/xhtml+xml"}


class Auth:
    """Answers procedures by their name; what is not scripted is not there."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any], Call]] = []
        self.dead_cookie = False

    async def __call__(self, call: Call) -> FakeDelivery:
        self.asked.append((call.tool, json.loads(call.body or b"{}"), call))
        if self.dead_cookie and call.caller.cookie:
            return FakeDelivery(refused(401, "invalid_token", "the session is not valid any more"))
        answer = self.answers[call.tool]
        if isinstance(answer, Reply):
            return FakeDelivery(answer)
        return FakeDelivery(ok(json.dumps(answer).encode(), status=answer.get("status", 200)))

    @property
    def arguments(self) -> dict[str, Any]:
        return self.asked[-1][1]


class Submitted(Stage):
    """A stage whose bus keeps the body beside the call, as the wire does."""

    def __init__(self, auth: Auth, **settings: Any) -> None:
        super().__init__(**settings)
        self.auth = auth

        async def reply(call: Call) -> FakeDelivery:
            call.body = self.bus.bodies[-1] or b""
            return await auth(call)

        self.bus.reply = reply


def staged(**answers: Any) -> Submitted:
    return Submitted(Auth(**answers))


def cookies(answer: httpx.Response) -> dict[str, str]:
    return {line.split("=", 1)[0]: line for line in answer.headers.get_list("set-cookie")}


OPENED = {"location": THERE, "state": STATE, "session": SECRET, "max_age": 3600}


@pytest.mark.requirement("FG-14", "X-24")
async def test_login_sends_the_browser_to_the_platform_with_a_session_cookie() -> None:
    stage = staged(open_auth=OPENED)
    answer = await stage.send("GET", "/auth/smart/login?scopes=openid%20patient/*.rs", headers=NOBODY)
    assert (answer.status_code, answer.headers["location"]) == (302, THERE)
    assert answer.headers["cache-control"] == "no-store"
    assert stage.auth.arguments == {"platform_id": P, "redirect": True, "scopes": ["openid", "patient/*.rs"]}
    words = set(cookies(answer)["app_session"].split("; ")[1:])
    assert words == {"Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax", "Secure"}
    local = Submitted(Auth(open_auth=OPENED), session_cookie_secure=False)
    assert "Secure" not in cookies(await local.send("GET", f"/auth/{P}/login", headers=NOBODY))["app_session"]


@pytest.mark.requirement("X-4")
async def test_login_without_redirect_tells_the_address_and_sets_the_cookie_as_well() -> None:
    answer = await staged(open_auth=OPENED).send("GET", f"/auth/{P}/login?redirect=false", headers=NOBODY)
    assert answer.json() == {"authorization_url": THERE, "state": STATE, "platform_id": P}
    assert SECRET in cookies(answer)["app_session"]
    assert SECRET not in answer.text


async def test_a_link_carries_its_one_time_value_to_auth_and_a_mismatch_is_a_page() -> None:
    mismatch = {"page": "session_mismatch", "status": 400, "platform_id": P}
    stage = staged(open_auth=mismatch)
    answer = await stage.send("GET", f"/auth/{P}/login?session=ticket-1", headers=HTML)
    assert stage.auth.arguments["ticket"] == "ticket-1"
    assert (answer.status_code, title(answer)) == (400, "Session Mismatch")


async def test_platforms_that_are_unknown_or_have_no_sign_in_are_told_before_auth_is_asked() -> None:
    stage = staged()
    unknown = await stage.send("GET", "/auth/nowhere/login", headers=NOBODY)
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Platform 'nowhere' not found"})
    plain = await stage.send("GET", "/auth/aetna/login", headers=NOBODY)
    text = "Platform 'aetna' does not support OAuth authentication"
    assert (plain.status_code, plain.json()) == (400, {"detail": text})
    assert (await stage.send("GET", "/auth/Bad!/login", headers=NOBODY)).status_code == 400
    for reserved in ("login", "logout", "status", "wait"):
        assert (await stage.send("GET", f"/auth/{reserved}/wait", headers=NOBODY)).status_code == 404
    assert (await stage.send("POST", f"/auth/{P}/login", headers=NOBODY)).status_code == 405
    assert stage.auth.asked == []


async def test_status_lists_what_the_session_has_and_nothing_for_a_new_one() -> None:
    row = {"platform_id": P, "authenticated": True, "has_token": True, "expires_at": 1_900_000_000, "scopes": ["a"]}
    stage = staged(get_auth_status={"platforms": {P: row}})
    body = (await stage.send("GET", "/auth/status", headers=COOKIE)).json()
    assert body["platforms"][P] == {
        "platform_id": P, "authenticated": True, "has_token": True,
        "token_expires_at": 1_900_000_000, "scopes": ["a"],
    }  # fmt: skip
    assert stage.auth.asked[0][2].caller.cookie == SECRET
    empty = staged(get_auth_status={"platforms": {}})
    assert (await empty.send("GET", "/auth/status", headers=NOBODY)).json() == {"platforms": {}}


async def test_a_cookie_whose_session_is_over_is_no_cookie() -> None:
    stage = staged(open_auth=OPENED)
    stage.auth.dead_cookie = True
    answer = await stage.send("GET", f"/auth/{P}/login", headers=COOKIE)
    assert answer.status_code == 302
    assert [call.caller.cookie for _, _, call in stage.auth.asked] == [SECRET, ""]


async def test_wait_is_done_or_says_that_time_is_up() -> None:
    done = staged(wait_for_auth={"success": True, "platform_id": P, "expires_in": 3599, "message": "x"})
    body = (await done.send("GET", f"/auth/{P}/wait", headers=COOKIE)).json()
    assert body == {"success": True, "message": "Authentication completed", "expires_in": 3599}
    late = staged(wait_for_auth={"success": False, "pending": True})
    body = (await late.send("GET", f"/auth/{P}/wait?timeout=1", headers=COOKIE)).json()
    assert body == {"success": False, "message": "Authentication timed out or already waiting"}
    assert all(arguments["timeout"] == 1 for _, arguments, _ in late.auth.asked)
    for bad in ("0", "301", "-1", "abc", "1e3"):
        assert (await late.send("GET", f"/auth/{P}/wait?timeout={bad}", headers=COOKIE)).status_code == 400
    assert (await late.send("GET", f"/auth/{P}/wait", headers=NOBODY)).status_code == 401


async def test_logout_of_a_platform_needs_a_header_that_no_form_can_send() -> None:
    stage = staged(revoke_auth={"success": True, "message": "Revoked", "token_revoked": True})
    refusal = await stage.send("POST", f"/auth/{P}/logout", headers=COOKIE)
    text = "Missing required header: X-Requested-With"
    assert (refusal.status_code, refusal.json()) == (403, {"detail": text})
    assert stage.auth.asked == []
    headers = {**COOKIE, "x-requested-with": "XMLHttpRequest"}
    body = (await stage.send("POST", f"/auth/{P}/logout", headers=headers)).json()
    assert body == {"success": True, "message": f"Logged out from {P}", "token_revoked": True}


# --- callbacks ---


def title(answer: httpx.Response) -> str:
    found = re.search(r"<h1>(.*?)</h1>", answer.text)
    assert found, answer.text
    assert f"<title>{found[1]}</title>" in answer.text
    return found[1]


@pytest.mark.parametrize("path", ["/auth/callback", f"/auth/callback/{P}", "/oauth/callback"])
@pytest.mark.parametrize(
    ("page", "status", "heading"),
    [
        ("success", 200, "Authentication Successful"),
        ("failed", 400, "Authentication Failed"),
        ("invalid_request", 400, "Invalid Request"),
        ("invalid_state", 400, "Invalid State"),
        ("session_mismatch", 400, "Session Mismatch"),
        ("platform_error", 400, "Platform Error"),
        ("token_exchange_failed", 500, "Token Exchange Failed"),
    ],
)
@pytest.mark.requirement("FG-12")
async def test_every_callback_shows_the_page_that_auth_names(path: str, page: str, status: int, heading: str) -> None:
    stage = staged(finish_auth={"page": page, "status": status, "platform_id": P, "platform_name": "<b>Evil & Co</b>"})
    answer = await stage.send("GET", f"{path}?code=c&state={STATE}", headers={**HTML, **COOKIE})
    assert (answer.status_code, title(answer)) == (status, heading)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<b>" not in answer.text
    assert "<script" not in answer.text
    expected = P if path.endswith(P) else ""
    assert stage.auth.arguments["path_platform"] == expected
    assert (stage.auth.arguments["code"], stage.auth.arguments["state"]) == ("c", STATE)


@pytest.mark.requirement("FG-12")
async def test_the_twenty_first_callback_of_a_minute_is_too_many_and_other_addresses_are_not_touched() -> None:
    stage = staged(finish_auth={"page": "invalid_state", "status": 400})
    for _ in range(20):
        assert (await stage.send("GET", "/auth/callback?code=c&state=x", headers=HTML)).status_code == 400
    answer = await stage.send("GET", "/oauth/callback?code=c&state=x", headers=HTML)
    assert (answer.status_code, title(answer), answer.headers["retry-after"]) == (429, "Too Many Requests", "60")
    assert len(stage.auth.asked) == 20
    other = await stage.send("GET", "/auth/callback?code=c&state=x", headers=HTML, peer="203.0.113.99")
    assert other.status_code == 400
    stage.clock.now += 61
    assert (await stage.send("GET", "/auth/callback?code=c&state=x", headers=HTML)).status_code == 400


async def test_an_unknown_state_is_a_page_for_people_and_json_for_programs() -> None:
    stage = staged(finish_auth={"page": "invalid_state", "status": 400})
    for path, error in (
        (f"/auth/callback?code=c&state={STATE}", "Missing PKCE verifier cookie"),
        ("/auth/callback?code=c", "Missing code or state from callback"),
        (f"/auth/callback?state={STATE}", "Missing code or state from callback"),
    ):
        answer = await stage.send("GET", path, headers={"accept": "application/json"})
        assert (answer.status_code, answer.json()) == (400, {"error": error})
    half = {"cookie": "fhir_pkce_verifier=v"}
    assert (await stage.send("GET", f"/auth/callback?code=c&state={STATE}", headers=half)).json() == {
        "error": "Missing state cookie"
    }
    other = {"cookie": "FHIR_PKCE_VERIFIER_COOKIE=v; FHIR_AUTH_STATE_COOKIE=other"}
    assert (await stage.send("GET", f"/auth/callback?code=c&state={STATE}", headers=other)).json() == {
        "error": "State mismatch"
    }
    page = await stage.send("GET", f"/auth/callback?code=c&state={STATE}", headers=HTML)
    assert title(page) == "Invalid State"


# --- a person at this gateway (SM) ---

SM_THERE = f"https://issuer.test/authorize?response_type=code&aud=x&state={STATE}"


async def sm_cookies(stage: Submitted) -> dict[str, str]:
    answer = await stage.send("GET", "/auth/login", headers=NOBODY)
    assert (answer.status_code, answer.headers["location"]) == (302, SM_THERE)
    set_now = cookies(answer)
    for name in ("FHIR_PKCE_VERIFIER_COOKIE", "FHIR_AUTH_STATE_COOKIE", "app_session"):
        assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(set_now[name].split("; "))
    return {name: line.split(";")[0].split("=", 1)[1] for name, line in set_now.items()}


def sent(held: dict[str, str], **change: str) -> dict[str, str]:
    held = {**held, **change}
    return {"cookie": "; ".join(f"{name}={value}" for name, value in held.items() if value)}


@pytest.mark.requirement("SM-2", "SM-3")
async def test_an_sm_login_comes_back_to_the_same_browser_and_ends_at_the_start_page() -> None:
    begun = {"location": SM_THERE, "state": STATE, "session": SECRET, "max_age": 3600}
    done = {"page": "success", "status": 200, "location": "/", "session": "n" * 43, "max_age": 1200}
    stage = staged(sign_in=begun, finish_auth=done)
    held = await sm_cookies(stage)
    assert held["FHIR_AUTH_STATE_COOKIE"] == STATE
    assert STATE not in held["FHIR_PKCE_VERIFIER_COOKIE"]
    back = f"/auth/callback?code=c&state={STATE}"
    for change, error in (
        ({"FHIR_PKCE_VERIFIER_COOKIE": ""}, "Missing PKCE verifier cookie"),
        ({"FHIR_PKCE_VERIFIER_COOKIE": "f" * 64}, "State mismatch"),
    ):
        answer = await stage.send("GET", back, headers=sent(held, **change))
        assert (answer.status_code, answer.json()) == (400, {"error": error})
    nothing = await stage.send("GET", f"/auth/callback?state={STATE}", headers=sent(held))
    assert nothing.json() == {"error": "Missing code or state from callback"}
    assert [name for name, _, _ in stage.auth.asked] == ["sign_in"]
    answer = await stage.send("GET", back, headers=sent(held))
    assert (answer.status_code, answer.headers["location"]) == (302, "/")
    assert stage.auth.arguments["bound"] is True
    set_now = cookies(answer)
    for name in ("FHIR_PKCE_VERIFIER_COOKIE", "FHIR_AUTH_STATE_COOKIE"):
        assert set_now[name].startswith(f"{name}=; ")
        assert "Max-Age=0" in set_now[name]
    for name in ("app_session", "FHIR_SESSION_COOKIE"):
        assert set_now[name].startswith(f"{name}={'n' * 43}; ")
        assert "Max-Age=1200" in set_now[name]
    old_names = {
        "cookie": f"fhir_auth_state={STATE}; fhir_pkce_verifier={held['FHIR_PKCE_VERIFIER_COOKIE']}; fhir_session=x"
    }
    assert (await stage.send("GET", back, headers=old_names)).status_code == 302
    assert stage.auth.asked[-1][2].caller.cookie == "x"


@pytest.mark.requirement("SM-1", "SM-3")
async def test_what_goes_wrong_in_an_sm_login_is_json_in_its_words_without_a_secret() -> None:
    stage = staged(sign_in=refused(503, "upstream_unavailable", "The platform cannot be reached."))
    answer = await stage.send("GET", "/auth/login", headers=HTML)
    body = {"error": "FHIR Login initiation failed", "details": "The platform cannot be reached."}
    assert (answer.status_code, answer.json()) == (500, body)
    wrong = staged(sign_in=refused(400, "invalid_request", "`next` must be a path of this server"))
    answer = await wrong.send("GET", "/auth/login?next=elsewhere", headers=HTML)
    assert (answer.status_code, answer.json()["details"]) == (400, "`next` must be a path of this server")
    bad = staged(sign_in=refused(400, "oauth_not_configured", "SMART_CLIENT_ID is not set"))
    answer = await bad.send("GET", "/auth/login", headers=NOBODY)
    assert answer.status_code == 500
    assert answer.json() == {
        "code": "BAD_ENVIRONMENT",
        "message": "Some environment variables are missing or are invalid",
        "errors": "SMART_CLIENT_ID is not set",
    }
    begun = {"location": SM_THERE, "state": STATE, "session": SECRET, "max_age": 3600}
    failed = {
        "page": "token_exchange_failed", "status": 500, "flavour": "sm",
        "error": {"error": "Failed to obtain access token from FHIR client"},
    }  # fmt: skip
    for reply, body in (
        (failed, failed["error"]),
        (refused(503, "unavailable", "Not up."), {"error": "FHIR callback processing failed", "details": "Not up."}),
    ):
        stage = staged(sign_in=begun, finish_auth=reply)
        held = await sm_cookies(stage)
        answer = await stage.send("GET", f"/auth/callback?code=c&state={STATE}", headers=sent(held))
        assert (answer.status_code, answer.json()) == (500, body)


async def test_a_person_who_said_no_sees_a_page_and_may_sign_in_as_somebody_else() -> None:
    declined = {"page": "failed", "status": 400, "flavour": "sm", "error": {"error": "FHIR callback processing failed"}}
    stage = staged(
        sign_in={"location": SM_THERE, "state": STATE, "session": SECRET, "max_age": 9}, finish_auth=declined
    )
    held = await sm_cookies(stage)
    back = f"/auth/callback?error=access_denied&state={STATE}"
    page = await stage.send("GET", back, headers={**sent(held), **HTML})
    assert (page.status_code, "Authentication Failed" in page.text) == (400, True)
    assert (await stage.send("GET", back, headers=sent(held))).json() == declined["error"]
    await stage.send("GET", "/auth/login?again=true&next=/console/audit", headers=NOBODY)
    assert stage.auth.arguments == {"next": "/console/audit", "bound": True, "again": True}


async def test_logout_ends_the_session_and_a_link_of_another_site_does_not() -> None:
    stage = staged(sign_out={"success": True})
    crossed = await stage.send("GET", "/auth/logout", headers={**COOKIE, "sec-fetch-site": "cross-site"})
    assert (crossed.status_code, stage.auth.asked) == (403, [])
    for path in ("/auth/logout", "/logout/"):
        both = {"cookie": f"app_session={SECRET}; FHIR_SESSION_COOKIE={SECRET}", "sec-fetch-site": "same-origin"}
        answer = await stage.send("GET", path, headers=both)
        assert (answer.status_code, answer.headers["location"]) == (302, "/")
        assert {name for name, line in cookies(answer).items() if "Max-Age=0" in line} == {
            "app_session",
            "FHIR_SESSION_COOKIE",
        }
    assert [name for name, _, _ in stage.auth.asked] == ["sign_out", "sign_out"]
    assert (await stage.send("GET", "/auth/logout", headers=NOBODY)).status_code == 302


async def test_the_start_page_says_what_is_connected_and_asks_auth_only_for_a_session() -> None:
    row = {"platform_id": P, "authenticated": True, "has_token": True, "expires_at": 1, "scopes": []}
    stage = staged(get_auth_status={"platforms": {P: row}})
    page = await stage.send("GET", "/", headers=NOBODY)
    assert (page.status_code, stage.auth.asked) == (200, [])
    assert 'href="/auth/login"' in page.text
    page = await stage.send("GET", "/", headers=COOKIE)
    assert "SMART Health IT (patient): connected" in page.text


# --- local accounts and keys ---


async def test_local_accounts_get_tokens_and_bad_passwords_401() -> None:
    stage = staged(issue_tokens={"access": "a", "refresh": "r"}, refresh_tokens={"access": "b"})
    sent_json = {"content-type": "application/json", "authorization": "Bearer whatever"}
    body = b'{"username":"demo_doctor","password":"CANARY"}'
    answer = await stage.send("POST", "/api/token/", headers=sent_json, content=body)
    assert answer.json() == {"access": "a", "refresh": "r"}
    assert answer.headers["cache-control"] == "no-store"
    assert stage.auth.asked[0][2].caller.bearer == ""
    fresh = await stage.send("POST", "/api/token/refresh/", headers=sent_json, content=b'{"refresh":"r"}')
    assert fresh.json() == {"access": "b"}
    broken = await stage.send("POST", "/api/token/", headers=sent_json, content=b'{"username":1}')
    assert broken.status_code == 400
    assert "CANARY" not in broken.text
    bad = staged(issue_tokens=refused(401, "invalid_credentials", "The name or the password is wrong."))
    answer = await bad.send("POST", "/api/token/", headers=sent_json, content=body)
    assert (answer.status_code, answer.json()) == (401, {"detail": "The name or the password is wrong."})


async def test_public_keys_are_asked_for_once_a_minute() -> None:
    stage = staged(published_keys={"keys": [{"kty": "EC", "kid": "1"}]})
    for _ in range(3):
        assert (await stage.send("GET", "/.well-known/jwks.json", headers=NOBODY)).json()["keys"][0]["kid"] == "1"
    assert len(stage.auth.asked) == 1


# --- every face ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"x-requested-with": "x"}, 200),
        ({"x-requested-with": "x", "origin": BASE}, 200),
        ({"x-requested-with": "x", "sec-fetch-site": "same-origin"}, 200),
        ({"x-requested-with": "x", "origin": "https://evil.test"}, 403),
        ({"x-requested-with": "x", "origin": "null"}, 403),
        ({"x-requested-with": "x", "sec-fetch-site": "cross-site"}, 403),
        ({"x-requested-with": "x", "sec-fetch-site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", f"/api/fhir/{P}/Patient/p1", b""),
        ("PUT", f"/fhir/{P}/Patient/p1", b'{"resourceType":"Patient","id":"p1"}'),
        ("POST", "/v1/tools/read", b'{"platform_id":"smart","resource_type":"Patient","resource_id":"p1"}'),
    ],
)
async def test_what_only_a_cookie_vouches_for_must_come_from_a_page_of_ours(
    method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    stage = Stage()
    sent_headers = {**COOKIE, "content-type": "application/json", **headers}
    answer = await stage.send(method, path, headers=sent_headers, content=body)
    assert answer.status_code == status
    assert len(stage.bus.calls) == (1 if status == 200 else 0)
    bearer = {**sent_headers, "authorization": "Bearer doctor:fhir.read,fhir.write"}
    assert (await stage.send(method, path, headers=bearer, content=body)).status_code == 200


async def test_reading_with_a_cookie_needs_no_header() -> None:
    stage = Stage()
    assert (await stage.get(f"/api/fhir/{P}/Patient/p1", {**COOKIE, "sec-fetch-site": "cross-site"})).status_code == 200
    assert (await stage.get(f"/api/fhir/{P}/Patient/p1", READER)).status_code == 200


async def test_pages_and_errors_of_a_browser_are_pages_and_of_programs_json() -> None:
    stage = staged()
    page = await stage.send("GET", "/auth/nowhere/login", headers=HTML)
    assert (page.status_code, title(page)) == (404, "That Did Not Work")
    assert "nowhere" in page.text
    assert set(PAGES) >= {"success", "failed", "invalid_request", "invalid_state", "session_mismatch"}


@pytest.mark.requirement("X-10")
async def test_a_made_up_cookie_at_the_door_of_sign_in_opens_no_budget_of_its_own() -> None:
    stage = Submitted(Auth(get_auth_status={"platforms": {}}), rate_limit=3)
    statuses = [
        (await stage.send("GET", "/auth/status", headers={"cookie": f"app_session=made-up-{n // 2}"})).status_code
        for n in range(8)
    ]
    assert statuses == [200] * 3 + [429] * 5


@pytest.mark.parametrize("path", ["/auth/callback", f"/auth/{P}/login", "/auth/login"])
async def test_a_query_without_end_is_a_bad_request(path: str) -> None:
    stage = staged(open_auth=OPENED, sign_in=OPENED, finish_auth={"page": "invalid_state", "status": 400})
    many = "&".join(f"a{n}=1" for n in range(40))
    answer = await stage.send("GET", f"{path}?{many}", headers=NOBODY)
    assert answer.status_code == 400, answer.text
    assert stage.auth.asked == []


async def test_the_state_cookie_is_what_auth_made_and_not_what_a_foreign_address_says() -> None:
    """The address of the issuer comes out of a document of its own."""
    evil = "https://issuer.test/authorize?state=x%0d%0aSet-Cookie:%20a=b&client_id=c&state=" + STATE
    stage = staged(sign_in={"location": evil, "state": STATE, "session": SECRET, "max_age": 60})
    answer = await stage.send("GET", "/auth/login", headers=NOBODY)
    held = cookies(answer)
    assert held["FHIR_AUTH_STATE_COOKIE"].startswith(f"FHIR_AUTH_STATE_COOKIE={STATE}; ")
    assert set(held) == {"app_session", "FHIR_AUTH_STATE_COOKIE", "FHIR_PKCE_VERIFIER_COOKIE"}

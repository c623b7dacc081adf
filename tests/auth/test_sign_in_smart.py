"""The SMART server of a deployment as the place to sign in (SM-1), and launches that a record system starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from joserfc import jwt

import engines
from auth.stage import Stage, stage
from auth.test_sign_in import TOKEN, query
from wardmesh_common.tokens import principal_id

pytestmark = pytest.mark.anyio
BASE = "http://127.0.0.1/clinic"
SCOPES = "openid fhirUser launch/patient patient/*.rs"


@asynccontextmanager
async def clinic(postgres: engines.Postgres, nats: engines.Nats, **settings: Any) -> AsyncGenerator[Stage]:
    async with stage(postgres.url(), nats.url, replicas=2, **settings) as scene:
        plain = next(f for f in scene.catalogue if f.id == "sign-in")
        quirks = msgspec.structs.replace(plain.sign_in, issuer=scene.issuer.url, jwks_url=f"{scene.issuer.url}/jwks")
        facts = msgspec.structs.replace(
            plain, id="clinic", fhir_base_url=BASE, sign_in=msgspec.structs.replace(quirks, client_id="public")
        )
        await scene.change_catalogue(*scene.catalogue, facts)
        for replica in scene.replicas:
            async with asyncio.timeout(30):
                while "clinic" not in {known.id for known in replica.platforms.all()}:
                    await asyncio.sleep(0.005)
        yield scene


def answer_of(scene: Stage, who: str, nonce: str) -> dict[str, Any]:
    """A token answer with an identity token for the SM client."""
    now, key = int(time.time()), scene.issuer.rsa
    claims = {"iss": scene.issuer.url, "aud": "sm", "sub": "s1", "iat": now, "exp": now + 300, "nonce": nonce}
    claims["fhirUser"] = f"{BASE}/{who}"
    return TOKEN | {"id_token": jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key, algorithms=["RS256"])}


@pytest.mark.parametrize("home", ["store", "clinic"])
async def test_an_sm_login_lets_a_person_in_with_role_and_grant_of_that_server(
    postgres: engines.Postgres, nats: engines.Nats, home: str
) -> None:
    settings = {"smart_iss": BASE + "/", "smart_client_id": "sm", "smart_scope": SCOPES, "home_platforms": (home,)}
    async with clinic(postgres, nats, **settings) as scene:
        begun = await scene.procedure("sign_in", {"bound": True, "next": "/chat/"})
        asked, cookie = query(begun["location"]), begun["session"]
        assert {name: asked[name] for name in ("client_id", "aud", "code_challenge_method", "redirect_uri")} == {
            "client_id": "sm",
            "aud": BASE,
            "code_challenge_method": "S256",
            "redirect_uri": "http://localhost:8000/auth/callback",
        }
        other = await scene.procedure("sign_in", {"bound": True, "again": True})
        assert ("prompt" in asked, query(other["location"])["prompt"]) == (False, "login")
        unbound = {"code": "c", "state": begun["state"], "bound": False}
        refused = await scene.procedure("finish_auth", unbound, cookie=cookie)
        assert (refused.body["page"], refused.body["error"]) == ("session_mismatch", {"error": "State mismatch"})
        assert scene.issuer.token_requests == []
        again = await scene.procedure("sign_in", {"bound": True, "next": "/chat/"}, cookie=cookie)
        scene.issuer.token_answer = answer_of(scene, "Patient/p1", query(again["location"])["nonce"])
        given = {"code": "c", "state": again["state"], "bound": True}
        let_in = await scene.procedure("finish_auth", given, cookie=cookie)
        assert (let_in["location"], let_in["session"] != cookie) == ("/chat/", True)
        assert (await scene.call(platform="clinic", cookie=let_in["session"])).status == 200
        call = scene.decided[-1]
        assert call.principal is not None
        assert call.grant is not None
        assert (call.principal.id, call.principal.roles) == (principal_id(scene.issuer.url, "s1"), ("patient",))
        assert call.grant.patient == "p1"
        # An id of that server means the same person only where the deployment says so.
        assert call.principal.patient == ("p1" if home == "clinic" else "")
        assert (await scene.call(cookie=cookie)).status == 401, "the session before is worth nothing"


@pytest.mark.requirement("SM-1", "SM-11")
async def test_what_an_sm_login_was_granted_is_renewed_with_the_client_of_that_login(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    back = "https://mesh.example/auth/callback"
    settings = {"smart_iss": BASE, "smart_client_id": "sm", "smart_scope": f"{SCOPES} offline_access"}
    settings["smart_redirect_uri"] = back
    async with clinic(postgres, nats, **settings) as scene:
        begun = await scene.procedure("sign_in", {"bound": True})
        granted = answer_of(scene, "Patient/p1", query(begun["location"])["nonce"])
        scene.issuer.token_answer = granted | {"refresh_token": "first", "expires_in": 1}
        given = {"code": "c", "state": begun["state"], "bound": True}
        cookie = (await scene.procedure("finish_auth", given, cookie=begun["session"]))["session"]
        asked = query(begun["location"])
        assert asked["redirect_uri"] == scene.issuer.token_requests[-1]["redirect_uri"] == back, "in both steps"
        scene.issuer.token_answer = TOKEN | {"refresh_token": "second", "expires_in": 3600}
        async with asyncio.timeout(60):
            while scene.issuer.token_requests[-1]["grant_type"] != "refresh_token":
                assert (await scene.call(platform="clinic", cookie=cookie)).status == 200
        renewed = scene.issuer.token_requests[-1]
        assert (renewed["refresh_token"], renewed["client_id"]) == ("first", "sm")
        assert (await scene.call(platform="clinic", cookie=cookie)).status == 200


async def test_an_sm_login_needs_its_server_in_the_catalogue_and_a_good_identity(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    elsewhere = {"smart_iss": "https://nowhere.example/fhir", "smart_client_id": "sm"}
    async with clinic(postgres, nats, **elsewhere) as scene:
        assert (await scene.procedure("sign_in", {"bound": True})).reply.status >= 400
    async with clinic(postgres, nats, smart_iss=BASE, smart_client_id="sm", smart_scope=SCOPES) as scene:
        begun = await scene.procedure("sign_in", {"bound": True})
        scene.issuer.token_answer = answer_of(scene, "Practitioner/d1", "another nonce")
        given = {"code": "c", "state": begun["state"], "bound": True}
        failed = await scene.procedure("finish_auth", given, cookie=begun["session"])
        told = {"error": "Failed to obtain access token from FHIR client"}
        assert (failed.reply.status, failed.body["error"], failed.body.get("session", "")) == (500, told, "")


async def test_a_launch_of_a_record_system_carries_its_launch_and_counts_for_its_own_base_only(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    async with clinic(postgres, nats) as scene:

        async def launched(**given: str) -> Any:
            return await scene.procedure("open_auth", {"scopes": SCOPES.split(), **given}, platform="clinic")

        for wrong in ({"launch": "l1"}, {"launch": "l1", "iss": "https://evil.example/fhir"}, {"iss": BASE + "x"}):
            assert (await launched(**wrong)).reply.status == 400
        begun = await launched(launch="l1", iss=BASE)
        asked = query(begun["location"])
        assert (asked["launch"], asked["aud"]) == ("l1", BASE)
        assert asked["scope"].split()[0] == "launch"
        assert "launch/patient" not in asked["scope"], "the record system has chosen already"
        scene.issuer.token_answer = TOKEN | {"patient": "p9"}
        given = {"code": "c", "state": begun["state"]}
        assert (await scene.procedure("finish_auth", given, cookie=begun["session"]))["page"] == "success"
        assert (await scene.call(platform="clinic", cookie=begun["session"])).status == 200
        grant = scene.decided[-1].grant
        assert grant is not None
        assert grant.patient == "p9"


@pytest.mark.parametrize(
    ("scopes", "everywhere"),
    [
        ("user/*.*", True),
        ("user/Patient.rs", True),
        ("patient/*.rs", False),
        ("patient/*.rs user/Observation.rs", False),
        ("user/Patient.rs?name=x patient/Patient.rs", False),
    ],
)
async def test_a_grant_says_whether_user_scopes_alone_cover_the_call(
    postgres: engines.Postgres, nats: engines.Nats, scopes: str, everywhere: bool
) -> None:
    async with clinic(postgres, nats) as scene:
        begun = await scene.procedure("open_auth", {}, platform="clinic")
        scene.issuer.token_answer = {**TOKEN, "scope": scopes, "patient": ""}
        given = {"code": "c", "state": begun["state"]}
        assert (await scene.procedure("finish_auth", given, cookie=begun["session"]))["page"] == "success"
        assert (await scene.call(platform="clinic", cookie=begun["session"])).status == 200
        grant = scene.decided[-1].grant
        assert grant is not None
        assert grant.everywhere is everywhere

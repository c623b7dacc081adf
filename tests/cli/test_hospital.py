"""The local hospital's authorization server: SMART launch context, and strict where sign-in can go wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from cli.hospital_stage import (
    ASYMMETRIC,
    CLIENT_SECRET,
    CONFIDENTIAL,
    FACTS,
    PUBLIC,
    READING,
    Hospital,
    Visit,
    server,
)
from wardmesh_cli import hospital
from wardmesh_cli.ports import free_port

BASE = "http://127.0.0.1:9/smart/fhir"
KEYS: dict[str, ECKey | RSAKey] = {
    "ES384": ECKey.generate_key("P-384", {"kid": "es", "use": "sig", "alg": "ES384"}),
    "RS384": RSAKey.generate_key(2048, {"kid": "rs", "use": "sig", "alg": "RS384"}),
}


class _Published(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"keys": [key.as_dict(private=False) for key in KEYS.values()]}).encode()
        self.send_response(200 if self.path == "/.well-known/jwks.json" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def public_url() -> Iterator[str]:
    """Where the gateway would publish its keys."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Published) as published:
        Thread(target=published.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{published.server_port}"
        published.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, public_url: str) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    with server(folder, free_port(), base=BASE, public_url=public_url) as started:
        yield started


@pytest.fixture
def arrive(place: Hospital) -> Iterator[Callable[..., Visit]]:
    """A new browser per call, for one of the clients."""
    with contextlib.ExitStack() as stack:

        def visit(client_id: str = PUBLIC) -> Visit:
            return stack.enter_context(contextlib.closing(Visit(place, client_id)))

        yield visit


def part(token: str, index: int = 1) -> dict[str, Any]:
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def assertion(place: Hospital, alg: str = "ES384", **changes: Any) -> dict[str, str]:
    now = int(time.time())
    claims = {"iss": ASYMMETRIC, "sub": ASYMMETRIC, "aud": f"{place.issuer}/token", "exp": now + 240, "iat": now}
    header = {"alg": alg, "kid": KEYS[alg].kid, "typ": "JWT"}
    signed = jwt.encode(header, {**claims, "jti": uuid.uuid4().hex, **changes}, KEYS[alg], algorithms=[alg])
    return {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": signed,
    }


def test_a_patient_signs_in_and_the_token_is_for_the_own_record(place: Hospital, arrive: Callable[..., Visit]) -> None:
    visit = arrive()
    answer = visit.tokens("dana")
    assert answer["patient"] == "DP100"
    assert answer["need_patient_banner"] is False
    assert set(answer["scope"].split()) == set(READING.split())
    assert answer["refresh_token"]
    claims = part(answer["access_token"])
    assert (claims["iss"], claims["aud"], claims["patient"]) == (place.issuer, BASE, "DP100")
    assert claims["exp"] - claims["iat"] == 600
    identity = part(answer["id_token"])
    assert (identity["fhirUser"], identity["aud"], identity["nonce"]) == (f"{BASE}/Patient/DP100", PUBLIC, "n")
    assert 'name="patient"' not in "".join(visit.pages)


def test_a_clinician_chooses_a_patient_and_each_sign_in_keeps_its_own(arrive: Callable[..., Visit]) -> None:
    visit = arrive()
    first = visit.tokens("dr_jansen", patient="FCE57")
    assert 'name="patient"' in visit.pages[-1]
    second = visit.tokens("dr_jansen", patient="DP100")
    assert (first["patient"], second["patient"]) == ("FCE57", "DP100")
    assert first["need_patient_banner"] is True
    assert visit.refresh(first["refresh_token"]).json()["patient"] == "FCE57"
    assert "error" in visit.sign_in("dr_jansen", patient="nobody-of-the-list")


def test_what_a_person_may_not_hand_out_is_not_granted(arrive: Callable[..., Visit]) -> None:
    patient = arrive().tokens("frida", "openid launch/patient patient/*.rs user/*.cruds")
    assert set(patient["scope"].split()) == {"openid", "launch/patient", "patient/*.rs"}
    clinician = arrive().tokens("dr_quinn", "openid fhirUser user/*.*")
    assert set(clinician["scope"].split()) == {"openid", "fhirUser", "user/*.*"}
    assert "patient" not in clinician
    assert "refresh_token" not in clinician
    assert part(clinician["id_token"])["fhirUser"] == f"{BASE}/Practitioner/8D8BZ"


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge_method": "plain"},
        {"aud": "http://127.0.0.1:9/fhir"},
        {"aud": ""},
        {"launch": "unknown"},
        {"scope": "patient/Made.up"},
    ],
)
def test_a_request_that_is_not_wholly_good_gets_no_page(
    place: Hospital, change: dict[str, str], arrive: Callable[..., Visit]
) -> None:
    visit = arrive()
    answer = visit.http.get(f"{place.issuer}/auth", params={**visit.question(), **change})
    location = urlsplit(answer.headers["location"])
    assert location.path == "/auth/callback"
    assert parse_qs(location.query)["error"][0] in {"invalid_request", "invalid_scope"}
    assert parse_qs(location.query)["iss"] == [place.issuer]


def test_a_redirect_elsewhere_and_an_unknown_client_get_a_page_without_a_redirect(
    place: Hospital, arrive: Callable[..., Visit]
) -> None:
    for change in ({"redirect_uri": "https://elsewhere.test/cb"}, {"client_id": "nobody"}):
        answer = arrive().http.get(f"{place.issuer}/auth", params=arrive().question(**change))
        assert answer.status_code == 400
        assert "location" not in answer.headers


def test_a_code_works_once_with_its_verifier_and_a_replay_ends_the_whole_grant(arrive: Callable[..., Visit]) -> None:
    visit = arrive()
    code = visit.sign_in("dana")["code"]
    assert visit.exchange(code, verifier="x" * 64).json()["error"] == "invalid_grant"
    code = visit.sign_in("dana")["code"]
    first = visit.exchange(code)
    assert first.status_code == 200
    assert visit.exchange(code).json()["error"] == "invalid_grant"
    assert visit.refresh(first.json()["refresh_token"]).json()["error"] == "invalid_grant"


def test_refresh_tokens_rotate_and_reuse_ends_the_grant(arrive: Callable[..., Visit]) -> None:
    visit = arrive()
    first = visit.tokens("dana")
    second = visit.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert visit.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert visit.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_client_with_a_secret_must_show_it(arrive: Callable[..., Visit]) -> None:
    visit = arrive(CONFIDENTIAL)
    code = visit.sign_in("dana")["code"]
    assert visit.exchange(code, auth=(CONFIDENTIAL, "wrong")).status_code == 401
    assert visit.exchange(code).status_code in {400, 401}
    assert visit.exchange(code, auth=(CONFIDENTIAL, CLIENT_SECRET)).status_code == 200


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_a_signed_assertion_is_good_once_and_only_for_this_server(
    place: Hospital, alg: str, arrive: Callable[..., Visit]
) -> None:
    visit = arrive(ASYMMETRIC)
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    proof = assertion(place, alg)
    answer = visit.token({**form, **proof})
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "system/*.rs"
    assert visit.token({**form, **proof}).status_code == 401
    assert visit.token({**form, **assertion(place, alg, aud="http://elsewhere.test/token")}).status_code == 401
    assert visit.token({**form, **assertion(place, alg, exp=int(time.time()) - 60)}).status_code == 401
    person = visit.token({**form, "scope": "user/*.rs", **assertion(place, alg)}).json()
    assert "user" not in part(person["access_token"]).get("scope", "")


def test_revocation_and_introspection_hold_for_access_tokens_too(place: Hospital, arrive: Callable[..., Visit]) -> None:
    visit = arrive(CONFIDENTIAL)
    secret: Any = (CONFIDENTIAL, CLIENT_SECRET)

    def ask(path: str, token: str, **extra: Any) -> httpx.Response:
        return visit.http.post(f"{place.issuer}/token/{path}", data={"token": token}, **{"auth": secret, **extra})

    code = visit.sign_in("dr_jansen", patient="FCE57")["code"]
    held = visit.exchange(code, auth=secret).json()
    told = ask("introspection", held["access_token"]).json()
    assert told["active"] is True
    assert (told["patient"], told["client_id"]) == ("FCE57", CONFIDENTIAL)
    assert told["exp"] > time.time()
    assert "patient/*.rs" in told["scope"]
    assert ask("introspection", held["access_token"], auth=(CONFIDENTIAL, "wrong")).status_code == 401
    other = arrive().tokens("dana")["access_token"]
    assert ask("introspection", other).json() == {"active": False}
    fresh = visit.refresh(held["refresh_token"], auth=secret).json()
    assert ask("revocation", held["access_token"]).status_code == 200
    assert ask("introspection", held["access_token"]).json() == {"active": False}
    assert ask("introspection", fresh["access_token"]).json()["active"] is True
    assert ask("revocation", fresh["refresh_token"]).status_code == 200
    assert ask("introspection", fresh["access_token"]).json() == {"active": False}
    assert visit.refresh(fresh["refresh_token"], auth=secret).json()["error"] == "invalid_grant"


def test_the_portal_launches_an_application_with_its_patient_once(
    place: Hospital, arrive: Callable[..., Visit]
) -> None:
    visit = arrive()
    assert "Launch" in visit.http.get(f"{place.issuer}/portal").text
    form = {"patient": "FCE57", "platform": "local-smart-patient"}
    begun = visit.http.post(f"{place.issuer}/portal", data=form)
    location = urlsplit(begun.headers["location"])
    assert location.path == "/auth/local-smart-patient/login"
    query = {name: values[0] for name, values in parse_qs(location.query).items()}
    assert query["iss"] == BASE
    scope = "openid fhirUser launch patient/*.rs"
    assert visit.tokens("dr_jansen", scope, launch=query["launch"])["patient"] == "FCE57"
    again = visit.http.get(f"{place.issuer}/auth", params=visit.question(scope, launch=query["launch"]))
    assert "error=invalid_request" in again.headers["location"]


def test_wrong_passwords_and_refusals_lead_to_no_code(arrive: Callable[..., Visit]) -> None:
    visit = arrive()
    with pytest.raises(AssertionError, match="Unknown user"):
        visit.sign_in("dana", password="wrong")
    with pytest.raises(AssertionError, match="Unknown user"):
        visit.sign_in("constructor")
    assert "code" in visit.sign_in("testuser", password="password")


@pytest.mark.requirement("X-14")
def test_x14_the_client_ids_of_the_local_platforms_exist_in_the_server_shipped_with_them(
    place: Hospital, arrive: Callable[..., Visit]
) -> None:
    variables = hospital.client_ids()
    assert set(variables) == {
        f"WARDMESH_PLATFORM_{name.upper().replace('-', '_')}_CLIENT_ID" for name in FACTS["platforms"]
    }
    for identity in variables.values():
        answer = arrive(identity).http.get(f"{place.issuer}/auth", params=arrive(identity).question())
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/interaction/") or "/interaction/" in answer.headers["location"]

"""The address that a person's browser is sent to: authorization code, PKCE S256, audience, launch (FG-13)."""

from __future__ import annotations

import hmac

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.asking import scopes_for
from wardmesh_auth.smart.client_auth import confidential, method_of
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts

_OURS = frozenset(
    {"response_type", "client_id", "redirect_uri", "state", "scope", "aud", "launch", "nonce"}
    | {"code_challenge", "code_challenge_method"}
)


def authorization_url(
    facts: PlatformFacts,
    client: PlatformClient,
    endpoints: Endpoints,
    once: dict[str, str],
    *,
    verifier: str,
    scopes: tuple[str, ...],
) -> str:
    """`once` holds redirect_uri, state, launch, nonce, maybe prompt. Raises BadRequest, PlatformUnconfigured."""
    method = method_of(facts, client, endpoints)
    if facts.sign_in.confidential and not confidential(method):
        raise PlatformUnconfigured("this platform needs a confidential client, and none is configured")
    launched = bool(once["launch"])
    scope = scopes_for(facts, endpoints, scopes, launched=launched, confidential=confidential(method))
    identified = "openid" in scope.split(facts.sign_in.scope_separator)
    asked = {
        # The platform's own parameters add to ours, they never replace one.
        **{name: value for name, value in facts.sign_in.authorize_params if name not in _OURS},
        **once,
        "nonce": once["nonce"] if identified else "",
        "scope": scope,
        "aud": _audience(facts),
        **_challenge(facts, verifier, method),
    }
    filled = {name: value for name, value in asked.items() if value}
    return str(prepare_grant_uri(endpoints.authorize, client.client_id, "code", **filled))


def same_server(iss: str, base: str) -> bool:
    return bool(base) and hmac.compare_digest(iss.rstrip("/").encode(), base.rstrip("/").encode())


def _challenge(facts: PlatformFacts, verifier: str, method: str) -> dict[str, str]:
    """S256 always; only the platform's own file can say that it refuses challenges, never its documents."""
    if facts.sign_in.pkce != "refused":
        return {"code_challenge": create_s256_code_challenge(verifier), "code_challenge_method": "S256"}
    if not confidential(method):
        raise PlatformUnconfigured("a public client cannot be used safely at this platform")
    return {}


def _audience(facts: PlatformFacts) -> str:
    rule = facts.sign_in.aud
    return facts.fhir_base_url if rule in ("", "base") else "" if rule == "none" else rule

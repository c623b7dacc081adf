"""How our client proves itself at a token endpoint: no secret, Basic, form, or a signed assertion (Authlib)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from authlib.oauth2.auth import ClientAuth
from msgspec import Struct

from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client_keys import ALGS, ClientKeys
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts

_SECRET = ("client_secret_basic", "client_secret_post")
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Signed(Struct, frozen=True):
    """A form ready to be sent; its text form shows nothing."""

    body: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return "Signed(...)"


def method_of(facts: PlatformFacts, client: PlatformClient, endpoints: Endpoints, at: str = "") -> str:
    """How this client proves itself at `at`, which is the token endpoint unless said.

    Raises PlatformUnconfigured when it could only show a secret of the vendor to somebody the vendor does not name.
    """
    method = _preferred(facts, client, endpoints)
    if method not in _SECRET or trusted(facts, client, at or endpoints.token):
        return method
    if "private_key_jwt" in endpoints.token_auth_methods:
        return "private_key_jwt"
    raise PlatformUnconfigured("the vendor does not name the token service of this organisation: it gets no secret")


def trusted(facts: PlatformFacts, client: PlatformClient, url: str) -> bool:
    """May `url` see what proves this client elsewhere too? A list of organisations may name any address as theirs."""
    return not client.lent or _host(url) in facts.sign_in.secret_hosts


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _preferred(facts: PlatformFacts, client: PlatformClient, endpoints: Endpoints) -> str:
    """The deployment's word first, then the credentials it holds, then what the platform accepts."""
    if client.method:
        return client.method
    if client.private_key or facts.token_auth == "private_key_jwt":  # noqa: S105 - a method
        return "private_key_jwt"
    if not client.secret or facts.token_auth == "none":  # noqa: S105 - a method
        return "none"
    offered = endpoints.token_auth_methods
    if not offered or facts.token_auth in offered:
        return facts.token_auth
    return next((method for method in _SECRET if method in offered), facts.token_auth)


def confidential(method: str) -> bool:
    return method != "none"


def sign(
    facts: PlatformFacts,
    client: PlatformClient,
    endpoints: Endpoints,
    keys: ClientKeys,
    form: dict[str, str],
    at: str,
) -> Signed:
    """A form for the address `at`. Raises PlatformUnconfigured when the credentials do not fit what is demanded."""
    quirks = facts.sign_in
    method = method_of(facts, client, endpoints, at)
    if (quirks.confidential and not confidential(method)) or (method in _SECRET and not client.secret):
        raise PlatformUnconfigured("this platform needs a confidential client, and none is configured")
    identity, secret = client.client_id, client.secret
    if method == "client_secret_basic" and not quirks.plain_basic:
        identity, secret = quote_plus(identity), quote_plus(secret)  # RFC 6749 §2.3.1
    # The platform's own parameters stand behind ours: they add, they never replace.
    fields = {**dict(quirks.token_params), **form}
    headers: dict[str, str] = {
        **dict(quirks.token_headers),
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    if method == "private_key_jwt":
        fields |= _assertion(facts, client, endpoints, keys, at)
        return Signed(urlencode(fields), headers)
    untyped: Any = ClientAuth
    prepared = untyped(identity, secret, method).prepare("POST", endpoints.token, headers, urlencode(fields))
    return Signed(str(prepared[2]), dict(prepared[1]))


def _assertion(
    facts: PlatformFacts, client: PlatformClient, endpoints: Endpoints, keys: ClientKeys, at: str
) -> dict[str, str]:
    if client.private_key:
        try:
            keys = ClientKeys.parse(client.private_key)
        except ValueError:
            raise PlatformUnconfigured("the private key of this platform's client cannot be used") from None
    to_issuer = facts.sign_in.assertion_audience == "issuer" and endpoints.issuer
    audience = endpoints.issuer if to_issuer else endpoints.token
    if not trusted(facts, client, at) and _host(audience) != _host(at):
        # Whoever stands at `at` could show the assertion to the one it is meant for.
        raise PlatformUnconfigured("the token service of this organisation names somebody else as its issuer")
    alg = _alg(facts.sign_in.alg, keys.algs, endpoints.assertion_algs)
    return {"client_assertion_type": _ASSERTION, "client_assertion": keys.assertion(client.client_id, audience, alg)}


def _alg(wanted: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    """The platform's file decides; else what both sides can; else what we have."""
    if wanted:
        return wanted
    common = [alg for alg in ours if alg in theirs]
    return next(iter(common or ours), ALGS[0])

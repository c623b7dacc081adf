"""A second FHIR base over the default datastore that SMART tokens open: who asks, what it says of itself."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import msgspec

from wardmesh_common.errors import Unauthenticated, Unavailable
from wardmesh_common.issuer_keys import Fetch, IssuerKeys
from wardmesh_common.tokens import TokenVerifier, VerifiedToken
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.router import Router
from wardmesh_fhir_store.smart_scopes import Access, access_of
from wardmesh_fhir_store.smart_wall import Wall
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Handler, Request, Response

CAPABILITIES = [
    "launch-ehr",
    "launch-standalone",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-ehr-patient",
    "context-standalone-patient",
    "context-banner",
    "permission-offline",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
]
# What SMART names alike in the metadata of the authorization server.
_SHARED = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "introspection_endpoint",
    "revocation_endpoint",
    "grant_types_supported",
    "response_types_supported",
    "scopes_supported",
    "code_challenge_methods_supported",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
    "authorization_response_iss_parameter_supported",
]
_SERVICE = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_SECONDS = 4.0
_MAX_BYTES = 512 * 1024
_ANYWHERE = [("Access-Control-Allow-Origin", "*"), ("Cache-Control", "max-age=60")]


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Keys come from where the issuer says, not from where somebody sends us."""


async def fetch(url: str) -> bytes | None:
    """The issuer's documents. A few an hour, so a thread is cheap enough."""

    def get() -> bytes | None:
        opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=_SECONDS) as response:
                return response.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError:
            return None

    return await asyncio.to_thread(get)


class SmartFace:
    """Answers below `base`; everything else goes on to `elsewhere`."""

    def __init__(self, base: str, issuer: str, datastores: Datastores, elsewhere: Handler, get: Fetch = fetch) -> None:
        self._base, self._issuer, self._fetch = base, issuer, get
        self._path = urlsplit(base).path.strip("/")
        self._datastores = datastores
        self._elsewhere = elsewhere
        self._verifier = TokenVerifier(IssuerKeys(issuer, get), issuer=issuer, audiences=(base,))
        self._wall: tuple[Store, Router, Wall] | None = None

    async def handle(self, request: Request) -> Response:
        """Raises Fault."""
        if request.path != self._path and not request.path.startswith(self._path + "/"):
            return await self._elsewhere(request)
        inner = msgspec.structs.replace(request, path=request.path[len(self._path) :].strip("/"))
        if inner.path == ".well-known/smart-configuration":
            return await self._configuration()
        router, wall = await self._parts()
        if inner.path == "metadata":
            return await self._statement(await router.handle(inner))
        return await wall.handle(await self._access(inner), inner)

    async def _parts(self) -> tuple[Router, Wall]:
        store = await self._datastores.active(self._datastores.addresses.default, self._base)
        if self._wall is None or self._wall[0] is not store:
            router = Router(store)
            self._wall = store, router, Wall(store, router)
        return self._wall[1], self._wall[2]

    async def _access(self, request: Request) -> Access:
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Fault(401, "login", "A SMART access token is needed.", headers=(("WWW-Authenticate", "Bearer"),))
        try:
            return _access_of(await self._verifier.verify(credential.strip()))
        except Unauthenticated:
            challenge = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
            raise Fault(401, "login", "The access token is not valid here.", headers=challenge) from None
        except Unavailable:
            raise Fault(503, "transient", "The authorization server cannot be reached.") from None

    async def _metadata(self) -> dict[str, Any]:
        """What the authorization server says of itself."""
        try:
            body = await self._fetch(f"{self._issuer}/.well-known/openid-configuration")
            found = msgspec.json.decode(body or b"", type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            raise Fault(503, "transient", "The authorization server cannot be reached.") from None
        if found.get("issuer") != self._issuer:
            raise Fault(503, "transient", "The authorization server is not the one that is configured.")
        return found

    async def _configuration(self) -> Response:
        found = await self._metadata()
        document = {name: found[name] for name in _SHARED if name in found} | {"capabilities": CAPABILITIES}
        return Response(body=msgspec.json.encode(document), headers=[*_ANYWHERE], media_type="application/json")

    async def _statement(self, answer: Response) -> Response:
        """The CapabilityStatement with the addresses that SMART 1 clients look for in it."""
        if answer.status != 200:
            return answer
        found = await self._metadata()
        uris = {"authorize": "authorization_endpoint", "token": "token_endpoint", "revoke": "revocation_endpoint"}
        statement = msgspec.json.decode(answer.body)
        statement["rest"][0]["security"] = {
            "service": [{"coding": [{"system": _SERVICE, "code": "SMART-on-FHIR"}]}],
            "extension": [
                {
                    "url": _OAUTH_URIS,
                    "extension": [{"url": u, "valueUri": found[m]} for u, m in uris.items() if m in found],
                }
            ],
        }
        headers = [pair for pair in answer.headers if pair[0].lower() != "etag"]
        return msgspec.structs.replace(answer, body=msgspec.json.encode(statement), headers=headers)


def _access_of(token: VerifiedToken) -> Access:
    patient = token.claims.get("patient", "")
    known = isinstance(patient, str) and _FHIR_ID.fullmatch(patient)
    return access_of(token.scopes, str(patient) if known else "")

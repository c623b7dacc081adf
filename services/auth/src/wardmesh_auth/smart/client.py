"""The SMART client: one object that signs in at every platform; what differs is data in the platform's facts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.address import reachable, zone_of
from wardmesh_auth.smart.asking import scopes_for
from wardmesh_auth.smart.authorization import authorization_url, same_server
from wardmesh_auth.smart.client_auth import confidential, method_of, sign
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_auth.smart.id_token import IdTokens, fhir_user
from wardmesh_auth.smart.token_answer import read_answer, refuse
from wardmesh_auth.smart.wire import Answer, Wire
from wardmesh_common.errors import BadRequest, BadUpstream, PlatformUnconfigured, SignInRequired, Unavailable
from wardmesh_common.questions import PlatformFacts

_NOT_REVOCABLE = "unsupported_token_type"

log = logging.getLogger("wardmesh.auth")


class SmartClient:
    """Keeps nothing of a sign-in: state, verifier and nonce come from the caller, tokens go back to it."""

    def __init__(
        self,
        discovery: Discovery,
        wire: Wire,
        keys: Callable[[], ClientKeys],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._discovery, self._wire, self._keys, self._clock = discovery, wire, keys, clock
        self._identities = IdTokens(wire, clock=clock)

    async def close(self) -> None:
        await self._identities.close()
        await self._discovery.close()

    async def authorization(
        self,
        facts: PlatformFacts,
        client: PlatformClient,
        *,
        redirect_uri: str,
        state: str,
        verifier: str,
        nonce: str,
        scopes: tuple[str, ...] = (),
        launch: str = "",
        iss: str = "",
        prompt: str = "",
    ) -> str:
        """The address to send the person's browser to (FG-13). `launch` and `iss`: what an EHR launched us with.
        `prompt`: "login" asks the person who it is, whoever the server remembers (OpenID Connect).

        Raises BadRequest, PlatformUnconfigured, PlatformDown.
        """
        if (launch or iss) and not same_server(iss, facts.fhir_base_url):
            raise BadRequest("`iss` is not the FHIR server of this platform")
        endpoints = await self._discovery.endpoints(facts)
        once = {"redirect_uri": redirect_uri, "state": state, "launch": launch, "nonce": nonce}
        if prompt:
            once["prompt"] = prompt
        return authorization_url(facts, client, endpoints, once, verifier=verifier, scopes=scopes)

    async def names_itself(self, facts: PlatformFacts) -> bool:
        """RFC 9207: its redirects say who answers, and one that does not say it is not believed."""
        endpoints = await self._discovery.endpoints(facts)
        return bool(endpoints.issuer) and endpoints.issuer_in_response

    async def exchange(
        self,
        facts: PlatformFacts,
        client: PlatformClient,
        *,
        code: str,
        verifier: str,
        redirect_uri: str,
        nonce: str,
        iss: str = "",
        scopes: tuple[str, ...] = (),
    ) -> PlatformToken:
        """The code for a token. `scopes` are those that were asked for, which count when the platform is silent.

        Raises SignInRequired for a code that is used, over or not ours, BadUpstream for an identity that is not
        proven, PlatformUnconfigured, PlatformDown.
        """
        endpoints = await self._discovery.endpoints(facts)
        if not _answers_for(iss, facts, endpoints):
            raise SignInRequired("the answer comes from another server than the one that was asked: sign in again")
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        if facts.sign_in.pkce != "refused":
            form["code_verifier"] = verifier
        method = method_of(facts, client, endpoints)
        asked = scopes_for(facts, endpoints, scopes, confidential=confidential(method))
        started = self._clock()
        answer = await self._asked(facts, client, endpoints, form)
        token = read_answer(answer, started, asked, facts)
        return await self._identified(token, answer, facts, endpoints, client, nonce)

    async def refresh(self, facts: PlatformFacts, client: PlatformClient, token: PlatformToken) -> PlatformToken:
        """A new token for the same grant; the launch context stays. Raises SignInRequired when the grant is over."""
        if not token.refresh_token or facts.sign_in.refresh == "none":
            raise SignInRequired("the sign-in at this platform is over: sign in again")
        endpoints = await self._discovery.endpoints(facts)
        started = self._clock()
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        answer = await self._asked(facts, client, endpoints, form)
        fresh = read_answer(answer, started, " ".join(token.scopes), facts)
        fresh = await self._identified(fresh, answer, facts, endpoints, client, "")
        if fresh.subject and token.subject and (fresh.subject, fresh.issuer) != (token.subject, token.issuer):
            raise BadUpstream("the platform answered for another person")
        return _carried_over(token, fresh)

    async def backend(
        self, facts: PlatformFacts, client: PlatformClient, scopes: tuple[str, ...] = ()
    ) -> PlatformToken:
        """A token for the deployment itself: client credentials with a secret or a signed assertion."""
        endpoints = await self._discovery.endpoints(facts)
        if not confidential(method_of(facts, client, endpoints)):
            raise PlatformUnconfigured("the client credentials of this platform are not usable")
        asked = facts.sign_in.scope_separator.join(scopes) or facts.scopes
        form = {"grant_type": "client_credentials", **({"scope": asked} if asked else {})}
        started = self._clock()
        try:
            answer = await self._asked(facts, client, endpoints, form)
        except SignInRequired:
            # Nobody signs in here: a refused grant means that the registration is not in order.
            raise PlatformUnconfigured("the platform does not accept the configured client") from None
        return read_answer(answer, started, asked, facts)

    async def revoke(self, facts: PlatformFacts, client: PlatformClient, token: PlatformToken) -> bool:
        """RFC 7009, the refresh token first. True when the platform confirmed it; never an error of its own."""
        try:
            endpoints = await self._discovery.endpoints(facts)
            held = {"refresh_token": token.refresh_token, "access_token": token.access_token}
            confirmed = [
                await self._at(endpoints.revocation, facts, client, endpoints, {"token": t, "token_type_hint": kind})
                for kind, t in held.items()
                if t and endpoints.revocation
            ]
        except Unavailable as error:
            log.warning("a token of platform %s was not revoked there: %s", facts.id, error.problem.code)
            return False
        # A server whose access tokens cannot be revoked says so: they end by themselves, with the grant gone.
        first = bool(confirmed) and confirmed[0].status == 200
        return first and all(a.status == 200 or a.members().get("error") == _NOT_REVOCABLE for a in confirmed)

    async def introspect(self, facts: PlatformFacts, client: PlatformClient, access_token: str) -> dict[str, Any]:
        """RFC 7662. Raises PlatformUnconfigured when the platform has no introspection or refuses our client."""
        endpoints = await self._discovery.endpoints(facts)
        if not endpoints.introspection:
            raise PlatformUnconfigured("this platform offers no introspection")
        form = {"token": access_token, "token_type_hint": "access_token"}
        answer = await self._at(endpoints.introspection, facts, client, endpoints, form)
        found = answer.members()
        if answer.status != 200 or not isinstance(found.get("active"), bool):
            refuse(answer, facts.id, log)
        return found

    async def _asked(
        self, facts: PlatformFacts, client: PlatformClient, endpoints: Endpoints, form: dict[str, str]
    ) -> dict[str, Any]:
        answer = await self._at(endpoints.token, facts, client, endpoints, form)
        found = answer.members()
        if answer.status != 200 or "error" in found or not found:
            refuse(answer, facts.id, log)
        return found

    async def _at(
        self, url: str, facts: PlatformFacts, client: PlatformClient, endpoints: Endpoints, form: dict[str, str]
    ) -> Answer:
        signed = sign(facts, client, endpoints, self._keys(), form, url)
        return await self._wire.post(url, zone_of(facts), signed.body, signed.headers)

    async def _identified(
        self,
        token: PlatformToken,
        answer: dict[str, Any],
        facts: PlatformFacts,
        endpoints: Endpoints,
        client: PlatformClient,
        nonce: str,
    ) -> PlatformToken:
        """With what the identity token proves. Without one nothing is known of the person: no field is filled."""
        identity = answer.get("id_token")
        if not isinstance(identity, str) or not identity or facts.sign_in.id_token == "unused":  # noqa: S105
            return token
        claims = await self._identities.verify(identity, facts, endpoints, client_id=client.client_id, nonce=nonce)
        who = {"subject": str(claims["sub"]), "issuer": str(claims["iss"]), "fhir_user": fhir_user(claims)}
        return msgspec.structs.replace(token, **who)


def _answers_for(iss: str, facts: PlatformFacts, endpoints: Endpoints) -> bool:
    """RFC 9207. Where no document names the issuer, an answer's own word has to be of a host that we asked."""
    if endpoints.issuer:
        return iss == endpoints.issuer or not (iss or endpoints.issuer_in_response)
    hosts = {urlsplit(url).netloc for url in (facts.fhir_base_url, endpoints.authorize, endpoints.token) if url}
    return not iss or (reachable(iss, zone_of(facts)) and urlsplit(iss).netloc in hosts)


def _carried_over(old: PlatformToken, fresh: PlatformToken) -> PlatformToken:
    """A refresh answer repeats little: what it leaves out stays as it was, the refresh token too."""
    kept = ("refresh_token", "patient", "encounter", "fhir_context", "intent", "grant_until")
    kept += ("fhir_user", "subject", "issuer")
    gaps = {name: getattr(old, name) for name in kept if not getattr(fresh, name)}
    if fresh.need_patient_banner is None:
        gaps["need_patient_banner"] = old.need_patient_banner
    return msgspec.structs.replace(fresh, **gaps)

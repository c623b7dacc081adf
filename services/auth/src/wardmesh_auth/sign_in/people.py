"""Where people sign in here: our own issuer, or the SMART server that the deployment names (SM-1)."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.identify import Roles, principal_of, reference
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.sessions import session_principal
from wardmesh_auth.settings import AuthSettings, PlatformClient
from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_common.tokens import TokenVerifier, principal_id
from wardmesh_common.vocabulary import Principal

_OWN = "wardmesh"
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


class Place(Struct, frozen=True, kw_only=True):
    """One place to sign in at; `platform` is where the token gives access as well, "" for our own issuer."""

    facts: PlatformFacts
    client: PlatformClient
    redirect_uri: str
    scopes: tuple[str, ...]
    platform: str = ""


class People:
    def __init__(self, settings: AuthSettings, platforms: Platforms, verifier: TokenVerifier, roles: Roles) -> None:
        self._settings, self._platforms = settings, platforms
        self._verifier, self._roles = verifier, roles

    async def place(self) -> Place:
        """Raises PlatformUnconfigured when the deployment names a SMART server that the catalogue does not know."""
        settings = self._settings
        if settings.smart_iss:
            return await self._smart(settings)
        audience = settings.all_audiences[0]
        facts = PlatformFacts(
            id=_OWN,
            name="Wardmesh",
            type="issuer",
            has_oauth=True,
            auth_method="authorization_code",
            fhir_base_url=settings.issuer,  # only says where it lives: this machine, or the operator's network
            scopes=settings.web_scopes,
            sign_in=SignInFacts(
                discovery="oidc",
                issuer=settings.issuer,
                aud="none",
                scope_dialect="both",
                # The access token is for us: the same claims, so the same principal, as over MCP.
                authorize_params=(("resource", audience),),
                token_params=(("resource", audience),),
                private_network=urlsplit(settings.issuer).hostname not in _THIS_MACHINE,
            ),
        )
        return Place(
            facts=facts,
            client=PlatformClient(settings.web_client_id, settings.web_client_secret),
            redirect_uri=settings.redirect_uri,
            scopes=tuple(settings.web_scopes.split()),
        )

    async def principal(self, place: Place, token: PlatformToken, session: str) -> Principal:
        """Who signed in. Raises Unauthenticated for an access token of our issuer that does not hold."""
        if not place.platform:
            return principal_of(await self._verifier.verify(token.access_token), self._roles)
        if not token.subject:
            return Principal(id=session_principal(session))
        kind, own = reference(token.fhir_user)
        # Ids of another server are somebody else's at home; there the grant itself says whose record it is.
        home = place.platform in self._settings.home_platforms
        return Principal(
            id=principal_id(token.issuer, token.subject),
            roles=self._settings.smart_roles.get(kind, ()),
            patient=(token.patient or (own if kind == "Patient" else "")) if home else "",
            practitioner=own if home and kind == "Practitioner" else "",
            client_id=place.client.client_id,
        )

    async def _smart(self, settings: AuthSettings) -> Place:
        base = settings.smart_iss.rstrip("/")
        found = [f for f in self._platforms.all() if f.fhir_base_url.rstrip("/") == base]
        if not found or not settings.smart_client_id:
            raise PlatformUnconfigured("SMART_ISS and SMART_CLIENT_ID must name a platform of the catalogue")
        facts = next((f for f in found if f.id == settings.smart_platform), found[0])
        scopes = tuple(settings.smart_scope.split()) or tuple(facts.scopes.split())
        return Place(
            facts=msgspec.structs.replace(facts, scopes=" ".join(scopes)),
            client=PlatformClient(settings.smart_client_id, settings.smart_client_secret),
            redirect_uri=settings.smart_redirect_uri or f"{settings.public_url.rstrip('/')}/auth/callback",
            scopes=scopes,
            platform=facts.id,
        )

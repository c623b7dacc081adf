"""Finds a platform's sign-in service: its own documents first, the catalogue where they are silent (X-9, SM-9)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_auth.smart.address import mixed, reachable, zone_of
from wardmesh_auth.smart.endpoints import (
    Endpoints,
    Source,
    from_capability_statement,
    from_catalogue,
    from_document,
)
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts

_FOUND_SECONDS = 3600.0
_FALLBACK_SECONDS = 60.0  # the platform may be back soon
_MAX_METADATA = 8 * 1024 * 1024
_FHIR = "application/fhir+json, application/json"

log = logging.getLogger("wardmesh.auth")


class Discovery:
    """Answers are kept for an hour per platform and description; many who ask at once cause one look."""

    def __init__(self, wire: Wire, *, size: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._wire = wire
        self._known: Bounded[PlatformFacts, Endpoints] = Bounded(size, clock)
        self._flights: SingleFlight[PlatformFacts, Endpoints] = SingleFlight()

    async def endpoints(self, facts: PlatformFacts) -> Endpoints:
        """Raises PlatformUnconfigured when the platform has no usable sign-in, PlatformDown when it must be asked."""
        known = self._known.get(facts)
        return known or await self._flights.run(facts, lambda: self._look(facts))

    async def close(self) -> None:
        await self._flights.close()

    async def _look(self, facts: PlatformFacts) -> Endpoints:
        written = from_catalogue(facts)
        found, down = await self._asked(facts)
        if found is None and down and not _usable(facts, written):
            raise PlatformDown("the platform does not answer, and nothing is known of its sign-in", retry_after=5)
        chosen = _completed(facts, found or written, written)
        if not _usable(facts, chosen):
            raise PlatformUnconfigured("this platform names no usable sign-in service")
        if mixed(facts, (chosen.authorize, chosen.token)):
            log.error("platform %s: a production base must not go with the sign-in of a sandbox", facts.id)
            raise PlatformUnconfigured("the sign-in of a sandbox does not go with this platform")
        _tell_differences(facts, chosen, written)
        self._known.put(facts, chosen, _FALLBACK_SECONDS if down else _FOUND_SECONDS)
        return chosen

    async def _asked(self, facts: PlatformFacts) -> tuple[Endpoints | None, bool]:
        """What the platform's documents say, and whether it could not be asked."""
        base, quirks = facts.fhir_base_url.rstrip("/"), facts.sign_in
        try:
            if quirks.discovery == "static":
                return None, False
            if quirks.discovery == "oidc":
                url = f"{quirks.issuer.rstrip('/')}/.well-known/openid-configuration"
                return await self._document(facts, url, "openid-configuration"), False
            if not base:
                return None, False
            found = await self._document(facts, f"{base}/.well-known/smart-configuration", "smart-configuration")
            return found or await self._metadata(facts, f"{base}/metadata"), False
        except PlatformDown:
            return None, True
        except PlatformUnconfigured:
            return None, False

    async def _document(self, facts: PlatformFacts, url: str, source: Source) -> Endpoints | None:
        answer = await self._wire.get(url, zone_of(facts))
        found = from_document(answer.members(), source) if answer.status == 200 else None
        if found is not None and source == "openid-configuration" and found.issuer != facts.sign_in.issuer:
            log.warning("platform %s: its OpenID metadata is of another issuer", facts.id)
            return None
        return found if found is not None and _usable(facts, found) else None

    async def _metadata(self, facts: PlatformFacts, url: str) -> Endpoints | None:
        answer = await self._wire.get(url, zone_of(facts), accept=_FHIR, limit=_MAX_METADATA)
        found = from_capability_statement(answer.members()) if answer.status == 200 else None
        return found if found is not None and _usable(facts, found) else None


def _usable(facts: PlatformFacts, found: Endpoints) -> bool:
    """A token address that may be opened, and a page to send people to unless nobody is sent."""
    zone = zone_of(facts)
    backend_only = facts.auth_method == "client_credentials"
    return reachable(found.token, zone) and (backend_only or reachable(found.authorize, zone))


def _completed(facts: PlatformFacts, found: Endpoints, written: Endpoints) -> Endpoints:
    """The catalogue fills what the documents leave out; an address that must not be opened counts as left out."""
    zone = zone_of(facts)
    changed: dict[str, str] = {}
    for name in ("revocation", "introspection", "jwks"):
        url = getattr(found, name) or getattr(written, name)
        changed[name] = url if reachable(url, zone) else ""
    # What the operator wrote about identity tokens is meant to correct what the documents say.
    changed["issuer"] = written.issuer or found.issuer
    changed["jwks"] = written.jwks or changed["jwks"]
    return msgspec.structs.replace(found, **changed)


def _tell_differences(facts: PlatformFacts, chosen: Endpoints, written: Endpoints) -> None:
    for name in ("authorize", "token"):
        ours = getattr(written, name)
        if ours and ours.rstrip("/") != getattr(chosen, name).rstrip("/"):
            log.warning(
                "platform %s: its %s names another %s address than the catalogue", facts.id, chosen.source, name
            )

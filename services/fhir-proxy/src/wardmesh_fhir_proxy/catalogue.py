"""The catalogue of platforms this replica serves: look-up, facts for the other services, reload on change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from wardmesh_common.errors import PlatformUnconfigured, PlatformUnknown, Unprocessable
from wardmesh_common.organisations import vendor_of
from wardmesh_common.questions import Ask, Catalogue, OrganisationQuestion, PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_fhir_proxy import healthlake, platforms_dir
from wardmesh_fhir_proxy.descriptor import Descriptor, Verification
from wardmesh_fhir_proxy.directory import Directory
from wardmesh_fhir_proxy.directory_files import DirectoryFileInvalid, directory_files, read
from wardmesh_fhir_proxy.tenants import descriptor_of

log = logging.getLogger("wardmesh.fhir-proxy")

POLL_SECONDS = 2.0
MAX_TENANTS = 4096  # descriptors of organisations in use; made again when they are asked for again


class Files(Struct, frozen=True):
    """What one reading of the files gave. `tenants` fills with use and goes with the rest."""

    descriptors: dict[str, Descriptor]
    directory: Directory
    probed: dict[str, Verification]
    version: str
    tenants: dict[str, Descriptor]


class Platforms:
    """Holds one reading of the files; `reload` swaps it as a whole, so a call never sees half a change."""

    def __init__(self, extra: Path | None = None, *, region: str = "", read_only_datastores: bool = False) -> None:
        self._extra = extra
        self._region, self._read_only = region, read_only_datastores
        self._seen = platforms_dir.fingerprint(extra)
        self._files = self._read()

    @property
    def descriptors(self) -> dict[str, Descriptor]:
        return self._files.descriptors

    @property
    def directory(self) -> Directory:
        return self._files.directory

    @property
    def version(self) -> str:
        return self._files.version

    def serving(self, identity: str) -> Descriptor:
        """The descriptor that answers for this id: its own, or `served_by` while it has no base (FG-27)."""
        descriptor = self.descriptors.get(identity) or self.tenant(identity)
        if not descriptor.bases.patient and descriptor.served_by:
            descriptor = self.descriptors.get(descriptor.served_by, descriptor)
        if not descriptor.bases.patient:
            raise PlatformUnconfigured("This platform does not have a FHIR endpoint configured.")
        if descriptor.fhir_version not in {"", "R4"}:
            raise Unprocessable("This platform does not speak FHIR R4; it cannot be used through the R4 tools.")
        return descriptor

    def managing(self, identity: str, region: str) -> Descriptor:
        """The control plane of datastores behind this id. Raises PlatformUnknown, PlatformUnconfigured."""
        return healthlake.control_plane(self.descriptors.get(identity), region)

    def reload(self) -> bool:
        """Read the files again; True when something changed. A bad file leaves the catalogue as it was.

        May run in a thread: the one assignment is all that calls see of it.
        """
        self._seen = platforms_dir.fingerprint(self._extra)
        try:
            files = self._read()
        except platforms_dir.PlatformFileInvalid as error:
            log.error("platform files not loaded, the earlier catalogue stays: %s", error)
            return False
        changed = files.version != self._files.version
        self._files = files
        return changed

    def tenant(self, identity: str) -> Descriptor:
        """The descriptor of one organisation or datastore: its vendor's, at its own address. Raises PlatformUnknown."""
        files = self._files
        held = files.tenants.get(identity)
        if held is not None:
            return held
        descriptor = healthlake.datastore(files.descriptors.get(vendor_of(identity)), identity)
        if descriptor is None:
            place = files.directory.places.get(identity)
            vendor = files.descriptors.get(place.header.vendor) if place else None
            if place is None or vendor is None:
                raise PlatformUnknown("This platform is not in the catalogue.")
            descriptor = descriptor_of(vendor, place, files.probed.get(identity))
        if len(files.tenants) >= MAX_TENANTS:
            files.tenants.clear()
        files.tenants[identity] = descriptor
        return descriptor

    def _read(self) -> Files:
        """Raises PlatformFileInvalid."""
        loaded = platforms_dir.load(self._extra)
        descriptors = healthlake.for_deployment(loaded, region=self._region, read_only=self._read_only)
        probed = platforms_dir.probed(self._extra)
        try:
            lists = [read(path) for path in directory_files(self._extra)]
        except DirectoryFileInvalid as error:
            raise platforms_dir.PlatformFileInvalid(str(error)) from error
        version = platforms_dir.version_of(descriptors, [each.digest for each in lists])
        return Files(descriptors, Directory(lists), probed, version, {})

    async def organisation(self, question: OrganisationQuestion, ask: Ask) -> PlatformFacts:
        """`ask.fhir.organisation.get`."""
        del ask
        return facts_of(self.tenant(question.platform), vendor=vendor_of(question.platform))

    def moved(self) -> bool:
        """True when the directory looks different from the last read."""
        return platforms_dir.fingerprint(self._extra) != self._seen

    async def answer(self, question: Struct, ask: Ask) -> Catalogue:
        """`ask.fhir.catalogue.get`."""
        del question, ask
        return self.facts()

    def facts(self) -> Catalogue:
        return Catalogue(version=self.version, platforms=tuple(self._facts(d) for d in self.descriptors.values()))

    def _facts(self, descriptor: Descriptor) -> PlatformFacts:
        return facts_of(descriptor, organisations=self.directory.counts.get(descriptor.id, 0))


def facts_of(descriptor: Descriptor, *, organisations: int = 0, vendor: str = "") -> PlatformFacts:
    d = descriptor
    return PlatformFacts(
        id=d.id,
        name=d.name,
        type=d.type,
        fhir_base_url=d.bases.patient,
        sandbox_url=d.sandbox_url,
        developer_portal=d.developer_portal,
        support_email=d.support_email,
        fhir_version=d.fhir_version,
        capabilities=tuple(dict.fromkeys((*d.capabilities, *d.coverage.capabilities))),
        aliases=d.aliases,
        name_patterns=d.name_patterns,
        payer_ids=d.payer_ids,
        has_oauth=bool(d.oauth.token_url) or (bool(vendor) and d.auth.method == "authorization_code"),
        authorize_url=d.oauth.authorize_url,
        token_url=d.oauth.token_url,
        scopes=d.oauth.scopes,
        auth_method=d.auth.method,
        token_auth=d.auth.token_auth,
        verification_status=d.verification.status,
        verified_on=d.verification.verified_on,
        live=d.live,
        open=d.open,
        writes=d.writes,
        rate_limited=d.rate.limited,
        organisations=organisations,
        vendor=vendor,
        datastore_region=d.healthlake.region if d.healthlake.offered and not vendor else "",
        served_by="" if d.bases.patient else d.served_by,
        sign_in=sign_in_of(d),
    )


def sign_in_of(descriptor: Descriptor) -> SignInFacts:
    d = descriptor
    return SignInFacts(
        discovery=d.discovery,
        issuer=d.oauth.issuer,
        jwks_url=d.oauth.jwks_url,
        revocation_url=d.oauth.revocation_url,
        introspection_url=d.oauth.introspection_url,
        client_id=d.auth.client_id,
        confidential=d.auth.confidential,
        alg=d.auth.alg,
        assertion_audience=d.auth.assertion_audience,
        plain_basic=d.auth.plain_basic,
        pkce=d.pkce,
        aud=d.aud,
        scopes_public=d.oauth.scopes_public,
        scopes_confidential=d.oauth.scopes_confidential,
        required_scopes=d.required_scopes,
        scope_dialect=d.scope_dialect,
        scope_separator=d.oauth.scope_separator,
        authorize_params=tuple(d.oauth.authorize_params.items()),
        token_params=tuple(d.oauth.token_params.items()),
        token_headers=tuple(d.oauth.token_headers.items()),
        refresh=d.refresh,
        token_seconds=d.oauth.token_seconds,
        grant_expiry_field=d.grant_expiry_field,
        id_token=d.oauth.id_token,
        secret_hosts=d.auth.secret_hosts,
        private_network=d.private_network,
    )


async def watch(
    platforms: Platforms, tell: Callable[[str], Awaitable[None]], wake: asyncio.Event, poll: float = POLL_SECONDS
) -> None:
    """Reload on `wake` (SIGHUP) or when the directory changed, and tell everyone the new version."""
    while True:
        try:
            # Not `wait_for`: until Python 3.12 that forgets a cancellation which comes with the signal.
            async with asyncio.timeout(poll):
                await wake.wait()
        except TimeoutError:
            if not platforms.moved():
                continue
        wake.clear()
        # A list of thousands takes a moment to index: calls go on meanwhile.
        if await asyncio.to_thread(platforms.reload):
            log.info("catalogue reloaded: %d platforms", len(platforms.descriptors))
            await tell(platforms.version)

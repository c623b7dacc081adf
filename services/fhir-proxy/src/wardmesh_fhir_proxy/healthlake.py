"""Datastores behind one platform: the section of its file, and the descriptor of each datastore (HL-1, HL-16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from wardmesh_common.errors import PlatformUnconfigured, PlatformUnknown
from wardmesh_common.organisations import datastore_of

if TYPE_CHECKING:
    from wardmesh_fhir_proxy.descriptor import Descriptor

DEFAULT_REGION = "us-west-2"
NAMESPACE = "X-Wardmesh-Namespace"  # how the embedded store is told the region; AWS knows it by its host
BackendName = Literal["healthlake", "hapi"]


class HealthLake(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where datastores are managed. `{region}` in the endpoint is replaced: AWS has one host per region."""

    backend: BackendName = "healthlake"  # who is behind it: AWS's protocol, or HAPI with partitions in its URLs
    endpoint: str = ""
    control: str = "/"  # path of the control plane below the endpoint
    region: str = DEFAULT_REGION
    signing: Literal["none", "sigv4"] = "none"
    import_from: tuple[str, ...] = ()  # HAPI fetches files itself: only from below these addresses

    @property
    def offered(self) -> bool:
        return bool(self.endpoint)

    @property
    def regional(self) -> bool:
        return self.backend != "hapi"

    def fhir_path(self, datastore: str) -> str:
        """Where the data of a datastore lies below the endpoint; for HAPI that is the tenant of the URL."""
        return f"/{datastore}" if self.backend == "hapi" else f"/datastore/{datastore}/r4"

    def root(self, region: str) -> str:
        return self.endpoint.replace("{region}", region).rstrip("/")


def for_deployment(descriptors: dict[str, Descriptor], *, region: str, read_only: bool) -> dict[str, Descriptor]:
    """What the environment says of datastores holds for every platform that has some (HL-12, HL-16)."""
    adjusted = dict(descriptors)
    for identity, descriptor in descriptors.items():
        section = descriptor.healthlake
        if not section.offered:
            continue
        place = msgspec.structs.replace(section, region=region or section.region)
        writes = descriptor.writes and not read_only
        adjusted[identity] = msgspec.structs.replace(descriptor, healthlake=place, writes=writes)
    return adjusted


def control_plane(vendor: Descriptor | None, region: str) -> Descriptor:
    """The platform as the one that manages datastores of this region."""
    if vendor is None:
        raise PlatformUnknown("This platform is not in the catalogue.")
    if not vendor.healthlake.offered:
        raise PlatformUnconfigured("This platform manages no datastores: its file names no endpoint for them.")
    if region and not vendor.healthlake.regional:
        raise PlatformUnconfigured("This platform has no regions: leave the region out.")
    return _at(vendor, region or vendor.healthlake.region, "")


def datastore(vendor: Descriptor | None, platform: str) -> Descriptor | None:
    """The descriptor of one datastore; None when the id is none. Whether it exists is for its own server to say."""
    identity, region = datastore_of(platform)
    if not identity or vendor is None or not vendor.healthlake.offered:
        return None
    if region == vendor.healthlake.region or (region and not vendor.healthlake.regional):
        return None  # one datastore has one platform id, so that records of it are found under one name
    region = region or vendor.healthlake.region
    found = _at(vendor, region, vendor.healthlake.fhir_path(identity))
    minded = found.if_match_on_delete and vendor.healthlake.backend != "hapi"
    return msgspec.structs.replace(
        found, id=platform, name=f"Datastore {identity}", live=False, aliases=(), if_match_on_delete=minded
    )


def _at(vendor: Descriptor, region: str, path: str) -> Descriptor:
    section = msgspec.structs.replace(vendor.healthlake, region=region)
    bases = msgspec.structs.replace(vendor.bases, patient=section.root(region) + path)
    told = {NAMESPACE: region} if section.regional and section.signing == "none" else {}
    return msgspec.structs.replace(vendor, bases=bases, healthlake=section, headers={**vendor.headers, **told})

"""The descriptor of one organisation behind a vendor: the vendor's quirks at the organisation's own address."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from wardmesh_fhir_proxy.descriptor import Bases, Descriptor, Verification
from wardmesh_fhir_proxy.directory import Place


def descriptor_of(vendor: Descriptor, place: Place, probed: Verification | None) -> Descriptor:
    """Endpoints of sign-in are found at the organisation's base (SMART discovery): the vendor's own are another's."""
    oauth = msgspec.structs.replace(
        vendor.oauth, authorize_url="", token_url="", issuer="", jwks_url="", revocation_url="", introspection_url=""
    )
    return msgspec.structs.replace(
        vendor,
        id=place.platform,
        name=place.organisation.name,
        bases=Bases(patient=place.organisation.base),
        oauth=oauth,
        auth=msgspec.structs.replace(vendor.auth, secret_hosts=_secret_hosts(vendor)),
        coverage=vendor.coverage.at_own_base(),
        discovery="smart",
        verification=probed or Verification(status="unverified"),
        served_by="",
        sandbox_url="",
        live=False,
        open=False,
        aliases=(),
        name_patterns=(),
        payer_ids=(),
        source=place.header.source,
    )


def _secret_hosts(vendor: Descriptor) -> tuple[str, ...]:
    """Token services that the vendor's own file names, with the organisation as a part of the path or not at all."""
    written = (vendor.oauth.token_url, vendor.oauth.revocation_url, vendor.oauth.introspection_url)
    hosts = (*vendor.auth.secret_hosts, *(urlsplit(url).netloc for url in written))
    return tuple(dict.fromkeys(host.lower() for host in hosts if host and "{" not in host))

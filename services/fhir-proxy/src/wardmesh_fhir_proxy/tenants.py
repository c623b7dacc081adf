"""The descriptor of one organisation behind a vendor: the vendor's quirks at the organisation's own address."""

from __future__ import annotations

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

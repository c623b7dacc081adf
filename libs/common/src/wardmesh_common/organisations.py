"""Platform ids of single organisations behind a vendor: `epic-org-0f3a…`, readable by every service without asking."""

from __future__ import annotations

import hashlib
import re

import msgspec

from wardmesh_common.questions import PlatformFacts

_ID = re.compile(r"([a-z][a-z0-9\-]*)-org-[0-9a-f]{16}")


def organisation_id(vendor: str, base: str) -> str:
    """The id of the organisation whose FHIR base this is; the same in every list and on every replica."""
    return f"{vendor}-org-{hashlib.sha256(base.rstrip('/').lower().encode()).hexdigest()[:16]}"


def vendor_of(platform: str) -> str:
    """The vendor's platform id, or "" when this is no organisation's id."""
    found = _ID.fullmatch(platform)
    return found[1] if found else ""


def facts_behind(vendor: PlatformFacts, platform: str) -> PlatformFacts:
    """What can be said of an organisation without its entry: everything but its name and address is the vendor's.

    Whether the entry exists is for fhir-proxy and auth to find out; a made-up id ends there as unknown.
    """
    return msgspec.structs.replace(
        vendor,
        id=platform,
        vendor=vendor.id,
        fhir_base_url="",
        served_by="",
        open=False,
        live=False,
        has_oauth=vendor.auth_method == "authorization_code",
        verification_status="unverified",
        verified_on="",
        aliases=(),
        name_patterns=(),
        payer_ids=(),
        organisations=0,
    )

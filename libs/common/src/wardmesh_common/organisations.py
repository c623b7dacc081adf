"""Platform ids behind a vendor, readable by every service without asking: `epic-org-0f3a…`, `healthlake-ds-1234…`."""

from __future__ import annotations

import hashlib
import re

import msgspec

from wardmesh_common.questions import PlatformFacts

_ID = re.compile(r"([a-z][a-z0-9\-]*)-org-[0-9a-f]{16}")
_DATASTORE = re.compile(r"([a-z][a-z0-9\-]*?)-ds-([0-9a-f]{32})(?:-([a-z]{2}(?:-[a-z]+)+-[0-9]))?")


def organisation_id(vendor: str, base: str) -> str:
    """The id of the organisation whose FHIR base this is; the same in every list and on every replica."""
    return f"{vendor}-org-{hashlib.sha256(base.rstrip('/').lower().encode()).hexdigest()[:16]}"


def vendor_of(platform: str) -> str:
    """The vendor's platform id, or "" when this is neither an organisation's nor a datastore's id."""
    found = _ID.fullmatch(platform) or _DATASTORE.fullmatch(platform)
    return found[1] if found else ""


def datastore_id(vendor: str, datastore: str, region: str = "") -> str:
    """The platform id of one datastore. `region` is left out where it is the vendor's own."""
    return f"{vendor}-ds-{datastore}-{region}" if region else f"{vendor}-ds-{datastore}"


def datastore_of(platform: str) -> tuple[str, str]:
    """(datastore, region) of a datastore's platform id; ("", "") when it is none."""
    found = _DATASTORE.fullmatch(platform)
    return (found[2], found[3] or "") if found else ("", "")


def may_stand_behind(vendor: PlatformFacts, platform: str) -> bool:
    """True when this vendor has members of that kind at all."""
    return bool(vendor.datastore_region if datastore_of(platform)[0] else vendor.organisations)


def facts_behind(vendor: PlatformFacts, platform: str) -> PlatformFacts:
    """What can be said of a member without its entry: everything but its name and address is the vendor's.

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
        datastore_region="",
    )

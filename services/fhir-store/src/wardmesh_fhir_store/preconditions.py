"""If-Match and If-None-Match on writes (ST-11, ST-12)."""

from __future__ import annotations

import re

from wardmesh_fhir_store.faults import invalid, precondition_failed
from wardmesh_fhir_store.records import Current

_ETAG = re.compile(r'(?:W/)?"([A-Za-z0-9\-.]{1,64})"')


def demand(if_match: str | None, current: Current | None) -> None:
    """Datastores may want every update to name the version that it changes. Raises 400."""
    if if_match is None and current is not None and not current.deleted:
        raise invalid("This datastore wants If-Match with every update.")


def check(if_match: str | None, if_none_match: str | None, current: Current | None) -> None:
    """Raises 412 when the stored state is not the one the caller knows, 400 for a malformed tag."""
    exists = current is not None and not current.deleted
    if if_match is not None and if_match.strip() != "*":
        match = _ETAG.fullmatch(if_match.strip())
        if not match:
            raise invalid("If-Match is not an entity tag.")
        if current is None or not exists or match[1].partition(".")[0] != str(current.version):
            raise precondition_failed("The resource is not at the version that If-Match names.")
    elif if_match is not None and not exists:
        raise precondition_failed("If-Match names a resource that does not exist.")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise invalid("Only If-None-Match: * is understood on writes.")
        if exists:
            raise precondition_failed("The resource exists already.")

"""Names of datastores as tags use them; there are no accounts here, so the account is all zeros."""

from __future__ import annotations

import re

from wardmesh_fhir_store.control.faults import invalid, not_found

_ARN = re.compile(r"arn:aws[a-z-]*:healthlake:([a-z0-9-]+):(\d{12}):datastore/(?:fhir/)?([0-9a-f]{32})")
_ACCOUNT = "000000000000"
NAMESPACE = re.compile(r"[a-z0-9-]{1,64}")


def arn_of(namespace: str, public_id: str) -> str:
    return f"arn:aws:healthlake:{namespace}:{_ACCOUNT}:datastore/fhir/{public_id}"


def id_of(arn: str, namespace: str) -> str:
    """The datastore that an ARN names. Raises ValidationException, ResourceNotFoundException."""
    match = _ARN.fullmatch(arn)
    if match is None:
        raise invalid("The resource ARN is not that of a datastore.")
    if match[1] != namespace or match[2] != _ACCOUNT:
        raise not_found()
    return match[3]

"""What HAPI cannot do for datastores, and with which words that is said: declared here, refused in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardmesh_fhir_proxy.healthlake_hapi_server import VALIDATION, Refusal

WITH_HAPI = "hapi:"  # the only place where HAPI puts what a job makes
NO_LIST = "HAPI keeps no list of jobs: describe a job by the JobId that its start gave."
NO_STOP = "HAPI has no operation that stops an import: it goes on to its end."
NO_TAGS = "HAPI keeps no tags of a partition."
# Whole operations.
NOT_OFFERED = {
    "$list-import-jobs": NO_LIST,
    "$list-export-jobs": NO_LIST,
    "$stop-import-job": NO_STOP,
    "$tag-datastore": NO_TAGS,
    "$untag-datastore": NO_TAGS,
    "$list-tags": NO_TAGS,
}
_ONCE = "HAPI starts a job anew with each request, so a ClientToken has no meaning: leave it out."
_NO_NAME = "HAPI keeps no names of jobs: leave JobName out."
_OF_JOBS = {"ClientToken": _ONCE, "JobName": _NO_NAME}
# Members of a request.
NOT_KEPT: dict[str, dict[str, str]] = {
    "$create-datastore": {
        "SseConfiguration": "How HAPI encrypts is its operator's matter: leave SseConfiguration out.",
        "PreloadDataConfig": "HAPI brings no sample data: leave PreloadDataConfig out and import some.",
        "IdentityProviderConfiguration": "HAPI keeps no identity provider: leave IdentityProviderConfiguration out.",
        "Tags": NO_TAGS,
    },
    "$start-import-job": _OF_JOBS,
    "$start-export-job": _OF_JOBS,
}
WHERE = f"HAPI writes to no bucket: give {WITH_HAPI} as S3Uri. An export's files are Binary resources of the datastore."
NO_KEY = "HAPI encrypts no single files: leave KmsKeyId out."
NO_ROLE = "HAPI assumes no role: DataAccessRoleArn was not used."
ONE_BY_ONE = "HAPI removes data resource by resource: a datastore with much of it is deleted in several calls."
# Said with every datastore, so that nobody has to find out by trying.
LIMITS = (
    ONE_BY_ONE,
    "A resource id that a client chose is taken in all datastores of this server.",
    WHERE,
    NO_LIST,
    NO_STOP,
    NO_TAGS,
    _ONCE,
    _NO_NAME,
)


def check(operation: str, asked: Mapping[str, Any]) -> None:
    """Raises Refusal."""
    text = NOT_OFFERED.get(operation)
    for name, reason in NOT_KEPT.get(operation, {}).items():
        text = text or (reason if asked.get(name) else None)
    if text:
        raise Refusal(VALIDATION, text)


def check_output(config: Any) -> None:
    """Where a job's results may go. Raises Refusal."""
    place = config.get("S3Configuration") if isinstance(config, dict) else None
    if not isinstance(place, dict) or place.get("S3Uri") != WITH_HAPI:
        raise Refusal(VALIDATION, WHERE)
    if place.get("KmsKeyId"):
        raise Refusal(VALIDATION, NO_KEY)

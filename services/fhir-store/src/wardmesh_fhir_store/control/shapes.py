"""Requests of the control plane; names, limits and required members are those of AWS HealthLake's service model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from wardmesh_fhir_store.control.faults import invalid

Token = Annotated[str, Meta(pattern="^[a-zA-Z0-9-]{1,64}$")]
PageToken = Annotated[str, Meta(max_length=8192)]
PageSize = Annotated[int, Meta(ge=1, le=500)]
Uri = Annotated[str, Meta(min_length=1, max_length=1024)]
DatastoreStatus = Literal["CREATING", "ACTIVE", "DELETING", "DELETED"]
JobStatus = Literal[
    "SUBMITTED", "IN_PROGRESS", "COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "STOP_REQUESTED", "STOPPED"
]
Moment = float | str
DEFAULT_PAGE = 100


class Tag(Struct, frozen=True, rename="pascal"):
    key: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Annotated[str, Meta(max_length=256)]


Tags = Annotated[list[Tag], Meta(max_length=200)]


class Encryption(Struct, frozen=True, rename="pascal"):
    cmk_type: Literal["CUSTOMER_MANAGED_KMS_KEY", "AWS_OWNED_KMS_KEY"]
    kms_key_id: Annotated[str, Meta(max_length=400)] = ""


class Sse(Struct, frozen=True, rename="pascal"):
    kms_encryption_config: Encryption


class Preload(Struct, frozen=True, rename="pascal"):
    preload_data_type: Literal["SYNTHEA"]


class IdentityProvider(Struct, frozen=True, rename="pascal"):
    authorization_strategy: Literal["SMART_ON_FHIR_V1", "SMART_ON_FHIR", "AWS_AUTH"]
    fine_grained_authorization_enabled: bool = False
    metadata: str = ""
    idp_lambda_arn: str = ""


class CreateDatastore(Struct, frozen=True, rename="pascal"):
    """The three configurations are judged by their Structs and kept as they came."""

    datastore_type_version: Literal["R4"]
    datastore_name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    sse_configuration: dict[str, Any] | None = None
    preload_data_config: dict[str, Any] | None = None
    client_token: Token | None = None
    tags: Tags = []
    identity_provider_configuration: dict[str, Any] | None = None


CONFIGURATIONS: dict[str, type[Struct]] = {
    "SseConfiguration": Sse,
    "PreloadDataConfig": Preload,
    "IdentityProviderConfiguration": IdentityProvider,
}


class OneDatastore(Struct, frozen=True, rename="pascal"):
    datastore_id: str


class DatastoreFilter(Struct, frozen=True, rename="pascal"):
    datastore_name: str | None = None
    datastore_status: DatastoreStatus | None = None
    created_before: Moment | None = None
    created_after: Moment | None = None


class ListDatastores(Struct, frozen=True, rename="pascal"):
    filter: DatastoreFilter | None = None
    next_token: PageToken | None = None
    max_results: PageSize = DEFAULT_PAGE


class ListTags(Struct, frozen=True):
    resource_arn: str = field(name="ResourceARN")


class AddTags(Struct, frozen=True):
    resource_arn: str = field(name="ResourceARN")
    tags: Tags = field(name="Tags")


class RemoveTags(Struct, frozen=True):
    resource_arn: str = field(name="ResourceARN")
    tag_keys: Annotated[list[str], Meta(max_length=200)] = field(name="TagKeys")


class Input(Struct, frozen=True, rename="pascal"):
    s3_uri: Uri


class Location(Struct, frozen=True, rename="pascal"):
    s3_uri: Uri
    kms_key_id: Annotated[str, Meta(min_length=1, max_length=400)]


class Output(Struct, frozen=True, rename="pascal"):
    s3_configuration: Location


class StartExport(Struct, frozen=True, rename="pascal"):
    output_data_config: Output
    datastore_id: str
    data_access_role_arn: Annotated[str, Meta(min_length=1, max_length=2048)]
    job_name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    client_token: Token | None = None


class StartImport(Struct, frozen=True, rename="pascal"):
    input_data_config: Input
    job_output_data_config: Output
    datastore_id: str
    data_access_role_arn: Annotated[str, Meta(min_length=1, max_length=2048)]
    job_name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    client_token: Token | None = None


class OneJob(Struct, frozen=True, rename="pascal"):
    datastore_id: str
    job_id: str


class ListJobs(Struct, frozen=True, rename="pascal"):
    datastore_id: str
    next_token: PageToken | None = None
    max_results: PageSize = DEFAULT_PAGE
    job_name: str | None = None
    job_status: JobStatus | None = None
    submitted_before: Moment | None = None
    submitted_after: Moment | None = None


def moment_of(value: Moment) -> datetime:
    """Seconds since 1970 as AWS sends them, or an ISO date."""
    try:
        if not isinstance(value, str):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        raise invalid("A time of the filter is neither a number of seconds nor an ISO date.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

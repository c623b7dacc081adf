"""The arguments of the datastore tools, described for a model to read (HL-1 to HL-11)."""

from __future__ import annotations

from wardmesh_gateway.schemas import DIALECT, PARAMS, Schema, described

MAX_PAGE = 500


def text(description: str, **more: object) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": 2048, "description": description, **more}


def strings(description: str) -> Schema:
    return {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 512},
        "maxItems": 64,
        "description": description,
    }


def members(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object in AWS's own members."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def whole(required: tuple[str, ...], **properties: Schema) -> Schema:
    """The arguments of one tool: exactly these, nothing else."""
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


DATASTORE_ID = text("Id of the datastore, 32 characters 0-9 and a-f, as create_datastore and list_datastores give it.")
REGION = text("AWS region; in the local store a separate name space. Without it the deployment's own, us-west-2.")
TYPE = text("FHIR R4 resource type, for example 'Patient' or 'Observation'.")
ID = text("Logical id of the resource, without its type.")
IF_MATCH = text('Version that is expected, for example W/"1". With a stale one the call fails and changes nothing.')
RESOURCE: Schema = {"type": "object", "description": "The FHIR resource as JSON."}
QUERY = described(
    PARAMS, "FHIR search parameters by name; a list repeats one. A page link's _cursor goes here as well."
)
COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "description": "Entries per page."}
TOKEN = text("A name of your own for this request: repeated with it, the request is not carried out again.")
NEXT = text("NextToken of the page before.")
MOST: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "description": "Items per page."}
ARN = text("DatastoreArn of the datastore, as describe_datastore gives it.")
TAG = {
    "type": "object",
    "properties": {
        "Key": {"type": "string", "minLength": 1, "maxLength": 128},
        "Value": {"type": "string", "maxLength": 256},
    },
    "required": ["Key", "Value"],
    "additionalProperties": False,
}
TAGS: Schema = {"type": "array", "items": TAG, "maxItems": 200, "description": "Tags: [{Key, Value}]."}
TIME = text("Time, ISO 8601, for example 2024-01-31T00:00:00Z.")
S3 = text("s3:// address of a folder; locally it stands for a folder that the deployment allows.")
ROLE = text("ARN of the IAM role that may read and write there; locally not used.")
JOB_ID = text("JobId, as the start of the job gave it.")
JOB_NAME = text("A name for the job.")
STATUS = text(
    "Only jobs in this state.",
    enum=["SUBMITTED", "IN_PROGRESS", "COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "STOP_REQUESTED", "STOPPED"],
)
INPUT = members("Where the NDJSON files lie: {S3Uri}.", ("S3Uri",), S3Uri=S3)
OUTPUT = members(
    "Where results go: {S3Configuration: {S3Uri, KmsKeyId}}.",
    ("S3Configuration",),
    S3Configuration=members("Folder and key.", ("S3Uri",), S3Uri=S3, KmsKeyId=text("Key that encrypts the files.")),
)
FILTER = members(
    "Only datastores that fit: {DatastoreName, DatastoreStatus, CreatedBefore, CreatedAfter}.",
    DatastoreName=text("Exact name."),
    DatastoreStatus=text("State.", enum=["CREATING", "ACTIVE", "DELETING", "DELETED"]),
    CreatedBefore=TIME,
    CreatedAfter=TIME,
)
SSE: Schema = {"type": "object", "description": "Encryption at rest, as AWS names it: {KmsEncryptionConfig: {...}}."}
PRELOAD = members(
    "Sample data to begin with.", PreloadDataType={"type": "string", "enum": ["SYNTHEA"], "description": "Which."}
)
IDENTITY: Schema = {"type": "object", "description": "Identity provider of the datastore, as AWS names it."}
FHIR_VERSION: Schema = {"type": "string", "enum": ["R4"], "description": "FHIR version of the datastore."}
PROFILE = text("Canonical address of the profile, for example that of us-core-patient.")

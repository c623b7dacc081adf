"""The tools for datastores, their jobs and tags (HL-1, HL-10, HL-11)."""

from __future__ import annotations

from wardmesh_common.vocabulary import DATASTORE_CHANGES, Interaction
from wardmesh_gateway import healthlake_schemas as arg
from wardmesh_gateway.schemas import Schema
from wardmesh_gateway.tool_spec import ToolSpec

PROFILE = "healthlake"
_JOB_LIST = {
    "datastore_id": arg.DATASTORE_ID,
    "next_token": arg.NEXT,
    "max_results": arg.MOST,
    "job_name": arg.JOB_NAME,
    "job_status": arg.STATUS,
    "submitted_before": arg.TIME,
    "submitted_after": arg.TIME,
}
_JOB_START = {"datastore_id": arg.DATASTORE_ID, "data_access_role_arn": arg.ROLE}
_JOB_NAMED = {"job_name": arg.JOB_NAME, "client_token": arg.TOKEN}


def _tool(
    name: str, title: str, summary: str, operation: str, required: tuple[str, ...], **properties: Schema
) -> ToolSpec:
    return ToolSpec(
        name=name,
        title=title,
        summary=summary,
        interaction=Interaction.OPERATION,
        operation=operation,
        changes=operation in DATASTORE_CHANGES,
        destructive=operation == "$delete-datastore",
        scope="fhir.write" if operation in DATASTORE_CHANGES else "",
        input=arg.whole(required, **properties, region_name=arg.REGION),
        family=PROFILE,
        profiles=(PROFILE,),
    )


DATASTORE_TOOLS: tuple[ToolSpec, ...] = (
    _tool(
        "create_datastore",
        "Create a datastore",
        "Create an empty FHIR R4 datastore, or one with sample data. It can be used when its status is ACTIVE.",
        "$create-datastore",
        ("datastore_type_version",),
        datastore_type_version=arg.FHIR_VERSION,
        datastore_name=arg.text("A name for the datastore."),
        sse_configuration=arg.SSE,
        preload_data_config=arg.PRELOAD,
        client_token=arg.TOKEN,
        tags=arg.TAGS,
        identity_provider_configuration=arg.IDENTITY,
    ),
    _tool(
        "delete_datastore",
        "Delete a datastore",
        "Delete a datastore with everything in it. This cannot be undone.",
        "$delete-datastore",
        ("datastore_id",),
        datastore_id=arg.DATASTORE_ID,
    ),
    _tool(
        "describe_datastore",
        "Describe a datastore",
        "State, name, address and configuration of one datastore.",
        "$describe-datastore",
        ("datastore_id",),
        datastore_id=arg.DATASTORE_ID,
    ),
    _tool(
        "list_datastores",
        "List datastores",
        "The datastores of a region, all or those that fit a filter.",
        "$list-datastores",
        (),
        filter_dict=arg.FILTER,
        next_token=arg.NEXT,
        max_results=arg.MOST,
    ),
    _tool(
        "start_fhir_import_job",
        "Start an import",
        "Load NDJSON files into a datastore. The job runs on its own: describe_fhir_import_job tells how far it is.",
        "$start-import-job",
        ("input_data_config", "job_output_data_config", "datastore_id", "data_access_role_arn"),
        input_data_config=arg.INPUT,
        job_output_data_config=arg.OUTPUT,
        **_JOB_START,
        **_JOB_NAMED,
    ),
    _tool(
        "start_fhir_export_job",
        "Start an export",
        "Write everything in a datastore to NDJSON files. The job runs on its own.",
        "$start-export-job",
        ("output_data_config", "datastore_id", "data_access_role_arn"),
        output_data_config=arg.OUTPUT,
        **_JOB_START,
        **_JOB_NAMED,
    ),
    _tool(
        "describe_fhir_import_job",
        "Describe an import",
        "State, progress and errors of one import job.",
        "$describe-import-job",
        ("datastore_id", "job_id"),
        datastore_id=arg.DATASTORE_ID,
        job_id=arg.JOB_ID,
    ),
    _tool(
        "describe_fhir_export_job",
        "Describe an export",
        "State and target of one export job.",
        "$describe-export-job",
        ("datastore_id", "job_id"),
        datastore_id=arg.DATASTORE_ID,
        job_id=arg.JOB_ID,
    ),
    _tool(
        "list_fhir_import_jobs",
        "List imports",
        "The import jobs of a datastore.",
        "$list-import-jobs",
        ("datastore_id",),
        **_JOB_LIST,
    ),
    _tool(
        "list_fhir_export_jobs",
        "List exports",
        "The export jobs of a datastore.",
        "$list-export-jobs",
        ("datastore_id",),
        **_JOB_LIST,
    ),
    _tool(
        "tag_resource",
        "Tag a datastore",
        "Set tags of a datastore; a tag with the same key is replaced.",
        "$tag-datastore",
        ("resource_arn", "tags"),
        resource_arn=arg.ARN,
        tags=arg.TAGS,
    ),
    _tool(
        "untag_resource",
        "Remove tags",
        "Remove tags of a datastore by their keys.",
        "$untag-datastore",
        ("resource_arn", "tag_keys"),
        resource_arn=arg.ARN,
        tag_keys=arg.strings("Keys of the tags to remove."),
    ),
    _tool(
        "list_tags_for_resource",
        "List tags",
        "The tags of a datastore.",
        "$list-tags",
        ("resource_arn",),
        resource_arn=arg.ARN,
    ),
)

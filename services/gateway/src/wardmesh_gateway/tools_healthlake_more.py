"""Tools beside the 29: three names that users of AWS's published server know (HL-15), and two that stop jobs."""

from __future__ import annotations

from wardmesh_common.vocabulary import DATASTORE_CHANGES, Interaction
from wardmesh_gateway import healthlake_schemas as arg
from wardmesh_gateway.schemas import Schema
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_healthlake import PROFILE

STOP_IMPORT, STOP_EXPORT = "stop_fhir_import_job", "stop_fhir_export_job"
DETAILS, EVERYTHING, JOBS = "get_datastore_details", "patient_everything", "list_fhir_jobs"
COUNT: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": 100,
    "default": 100,
    "description": "Entries per page, 1 to 100; the pages of a next_token keep the size of the first one.",
}
NEXT = arg.text("pagination.next_token of the answer before; other parameters of the search are not needed then.")
JOB_KIND: Schema = {"type": "string", "enum": ["IMPORT", "EXPORT"], "description": "Only jobs of this kind."}
EVERYTHING_INPUT: dict[str, Schema] = {
    "datastore_id": arg.DATASTORE_ID,
    "patient_id": arg.text("Id of the Patient."),
    "start": arg.text("Only care from this date on, YYYY-MM-DD."),
    "end": arg.text("Only care up to this date, YYYY-MM-DD."),
    "count": COUNT,
    "next_token": NEXT,
}
STOP_INPUT: dict[str, Schema] = {"datastore_id": arg.DATASTORE_ID, "job_id": arg.JOB_ID}
JOBS_INPUT: dict[str, Schema] = {"datastore_id": arg.DATASTORE_ID, "job_status": arg.STATUS, "job_type": JOB_KIND}


def _tool(
    name: str,
    title: str,
    summary: str,
    operation: str,
    required: tuple[str, ...],
    properties: dict[str, Schema],
    profiles: tuple[str, ...] = (PROFILE,),
) -> ToolSpec:
    changes = operation in DATASTORE_CHANGES
    return ToolSpec(
        name=name,
        title=title,
        summary=summary,
        interaction=Interaction.OPERATION,
        operation=operation,
        changes=changes,
        scope="fhir.write" if changes else "",
        input=arg.whole(required, **properties, region_name=arg.REGION),
        family=PROFILE,
        profiles=profiles,
    )


MORE_TOOLS: tuple[ToolSpec, ...] = (
    _tool(
        DETAILS,
        "Get a datastore's details",
        "State, name, address and configuration of one datastore, as describe_datastore gives them.",
        "$describe-datastore",
        ("datastore_id",),
        {"datastore_id": arg.DATASTORE_ID},
    ),
    _tool(
        EVERYTHING,
        "Everything about a patient",
        "Every resource of one patient's record. Call again with pagination.next_token while has_next is true.",
        "",
        ("datastore_id", "patient_id"),
        EVERYTHING_INPUT,
    ),
    _tool(
        JOBS,
        "List jobs",
        "Import and export jobs of a datastore, newest first; of one kind with job_type.",
        "$list-import-jobs",
        ("datastore_id",),
        JOBS_INPUT,
    ),
)

# The lists of the profiles are laid down (C-2): these are offered at /mcp and over REST, and stop cancelled tasks.
STOP_TOOLS: tuple[ToolSpec, ...] = (
    _tool(
        STOP_IMPORT,
        "Stop an import",
        "Stop one import job. What it has stored stays; a job that has ended stays as it ended.",
        "$stop-import-job",
        ("datastore_id", "job_id"),
        STOP_INPUT,
        profiles=(),
    ),
    _tool(
        STOP_EXPORT,
        "Stop an export",
        "Stop one export job. Files that it has written stay; a job that has ended stays as it ended.",
        "$stop-export-job",
        ("datastore_id", "job_id"),
        STOP_INPUT,
        profiles=(),
    ),
)

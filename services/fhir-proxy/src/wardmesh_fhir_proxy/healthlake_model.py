"""AWS's own description of HealthLake's control plane: how a request is written and an answer read (HL-1, HL-10)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import ResponseParserError, create_parser
from botocore.serialize import create_serializer
from msgspec import Struct

from wardmesh_common.errors import BadRequest, BadUpstream
from wardmesh_fhir_proxy.healthlake_backend import Said
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

# Our operation (vocabulary.py) -> the one of AWS.
OPERATIONS = {
    "$create-datastore": "CreateFHIRDatastore",
    "$delete-datastore": "DeleteFHIRDatastore",
    "$describe-datastore": "DescribeFHIRDatastore",
    "$list-datastores": "ListFHIRDatastores",
    "$start-import-job": "StartFHIRImportJob",
    "$start-export-job": "StartFHIRExportJob",
    "$stop-import-job": "StopFHIRImportJob",
    "$stop-export-job": "StopFHIRExportJob",
    "$describe-import-job": "DescribeFHIRImportJob",
    "$describe-export-job": "DescribeFHIRExportJob",
    "$list-import-jobs": "ListFHIRImportJobs",
    "$list-export-jobs": "ListFHIRExportJobs",
    "$tag-datastore": "TagResource",
    "$untag-datastore": "UntagResource",
    "$list-tags": "ListTagsForResource",
}
# The embedded store counts what an export wrote; AWS says nothing of it (HL-10).
EXPORT_PROGRESS = {
    "type": "structure",
    "members": {
        "TotalNumberOfExportedFiles": {"shape": "GenericLong"},
        "TotalNumberOfResourcesExported": {"shape": "GenericLong"},
    },
}
# The embedded store stops jobs; AWS has no operation for it (healthlake_client.py refuses it there).
STOPS = ("StopFHIRImportJob", "StopFHIRExportJob")
STOP = {"input": {"shape": "DescribeFHIRImportJobRequest"}, "output": {"shape": "StartFHIRImportJobResponse"}}
TOKEN = "ClientToken"  # noqa: S105 - a member's name; with one a repeated request is the same request


class Written(Struct, frozen=True):
    """A request as the control plane takes it."""

    headers: dict[str, str]
    body: bytes
    repeatable: bool


class Model:
    """Read once: the description is a file of the installed botocore."""

    def __init__(self) -> None:
        description = Loader().load_service_model("healthlake", "service-2")
        shapes = description["shapes"]
        shapes["WardmeshExportProgress"] = EXPORT_PROGRESS
        shapes["ExportJobProperties"]["members"]["JobProgressReport"] = {"shape": "WardmeshExportProgress"}
        for name in STOPS:
            description["operations"][name] = {"name": name, "http": {"method": "POST", "requestUri": "/"}, **STOP}
        self._service = ServiceModel(description, "healthlake")
        self._serializer = create_serializer("json", include_validation=False)
        self._parser = create_parser("json")

    def written(self, operation: str, asked: dict[str, Any], token: str) -> Written:
        """Raises BadRequest for a member that the operation does not have or a value of the wrong form."""
        model: Any = self._model(operation)  # botocore has no types that say what these members are
        members: dict[str, Any] = model.input_shape.members
        for name in asked:
            if name not in members:
                raise BadRequest("The request holds a member that this operation does not have.")
        if TOKEN in members and not asked.get(TOKEN):
            asked = {**asked, TOKEN: token}
        try:
            request: Any = self._serializer.serialize_to_request(asked, model)
        except (TypeError, ValueError, AttributeError, KeyError):
            raise BadRequest("A member of the request has the wrong form.") from None
        headers = {str(name): str(value) for name, value in request["headers"].items()}
        changes = not model.name.startswith(("Describe", "List"))
        repeatable = not changes or TOKEN in members or model.name in STOPS
        return Written(headers, request["body"], repeatable)

    def read(self, operation: str, answer: UpstreamAnswer) -> Said:
        """Raises BadUpstream for what is no answer of a control plane."""
        response = {"status_code": answer.status, "headers": dict(answer.headers), "body": answer.body}
        try:
            parsed = self._parser.parse(response, self._model(operation).output_shape)
        except (ResponseParserError, ValueError):
            raise BadUpstream("The control plane's answer cannot be read.") from None
        error = parsed.get("Error")
        if answer.status >= 300:
            told = error or {}
            return Said(answer.status, {}, str(told.get("Code", "")), str(told.get("Message", "")))
        return Said(answer.status, {name: _plain(v) for name, v in parsed.items() if name != "ResponseMetadata"})

    def _model(self, operation: str) -> OperationModel:
        return self._service.operation_model(OPERATIONS[operation])


def _plain(value: Any) -> Any:
    """Times as ISO 8601 text, everything else as it is."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value

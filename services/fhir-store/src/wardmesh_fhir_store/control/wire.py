"""`POST /control` in AWS JSON 1.0: one table from X-Amz-Target to the work, errors as AWS's clients read them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from wardmesh_fhir_store.control.arns import NAMESPACE, id_of
from wardmesh_fhir_store.control.datastores import DatastoreControl
from wardmesh_fhir_store.control.faults import ControlFault, invalid
from wardmesh_fhir_store.control.jobs import JobControl
from wardmesh_fhir_store.control.shapes import (
    AddTags,
    CreateDatastore,
    ListDatastores,
    ListJobs,
    ListTags,
    OneDatastore,
    OneJob,
    RemoveTags,
    StartExport,
    StartImport,
)
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.wire import Request, Response

MEDIA = "application/x-amz-json-1.0"
TARGET = "HealthLake."
DEFAULT_NAMESPACE = "us-west-2"
PATH = "control"
_PLACE = re.compile(r"at `\$((?:\.[A-Za-z0-9]+|\[\d+\]|\[\.\.\.\])*)`$")
_MISSING = re.compile(r"^Object missing required field `([A-Za-z0-9]+)`")
S = TypeVar("S", bound=Struct)
Answer = Awaitable[dict[str, Any]]
Work = Callable[[str, bytes], Answer]


class Control:
    """Answers at its own path and hands everything else on."""

    def __init__(
        self, datastores: DatastoreControl, jobs: JobControl, elsewhere: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self._elsewhere = elsewhere
        self._table: dict[str, Work] = {
            "CreateFHIRDatastore": _taking(CreateDatastore, datastores.create),
            "DescribeFHIRDatastore": _taking(OneDatastore, lambda n, r: datastores.describe(n, r.datastore_id)),
            "ListFHIRDatastores": _taking(ListDatastores, datastores.listed),
            "DeleteFHIRDatastore": _taking(OneDatastore, lambda n, r: datastores.delete(n, r.datastore_id)),
            "TagResource": _taking(AddTags, lambda n, r: datastores.tag(n, id_of(r.resource_arn, n), r.tags)),
            "UntagResource": _taking(
                RemoveTags, lambda n, r: datastores.untag(n, id_of(r.resource_arn, n), r.tag_keys)
            ),
            "ListTagsForResource": _taking(ListTags, lambda n, r: datastores.tags(n, id_of(r.resource_arn, n))),
            "StartFHIRImportJob": _taking(StartImport, jobs.start_import),
            "StartFHIRExportJob": _taking(StartExport, jobs.start_export),
            "StopFHIRImportJob": _taking(OneJob, lambda n, r: jobs.stop(n, "import", r)),
            "StopFHIRExportJob": _taking(OneJob, lambda n, r: jobs.stop(n, "export", r)),
            "DescribeFHIRImportJob": _taking(OneJob, lambda n, r: jobs.describe(n, "import", r)),
            "DescribeFHIRExportJob": _taking(OneJob, lambda n, r: jobs.describe(n, "export", r)),
            "ListFHIRImportJobs": _taking(ListJobs, lambda n, r: jobs.listed(n, "import", r)),
            "ListFHIRExportJobs": _taking(ListJobs, lambda n, r: jobs.listed(n, "export", r)),
        }

    async def handle(self, request: Request) -> Response:
        if request.path != PATH:
            return await self._elsewhere(request)
        try:
            return _response(200, await self._answer(request))
        except ControlFault as fault:
            return _response(fault.status, {"__type": fault.code, "Message": fault.message})
        except Fault as fault:  # the database is away, too many writers, ...
            busy = fault.status == 409
            code = "ThrottlingException" if busy else "InternalServerException"
            return _response(400 if busy else fault.status, {"__type": code, "Message": str(fault)})

    async def _answer(self, request: Request) -> dict[str, Any]:
        if request.method != "POST":
            raise ControlFault("UnknownOperationException", "The control plane takes POST.", 405)
        target = request.headers.get("x-amz-target", "")
        work = self._table.get(target.removeprefix(TARGET)) if target.startswith(TARGET) else None
        if work is None:
            raise ControlFault("UnknownOperationException", "X-Amz-Target names no operation of this store.")
        namespace = request.headers.get("x-wardmesh-namespace", DEFAULT_NAMESPACE)
        if not NAMESPACE.fullmatch(namespace):
            raise invalid("The region is not the name of a region.")
        return await work(namespace, request.body)


def _taking(kind: type[S], work: Callable[[str, S], Answer]) -> Work:
    async def answer(namespace: str, body: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(body or b"{}", type=kind)
        except msgspec.ValidationError as error:
            raise invalid(_told(str(error))) from None
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise invalid("The request is not well-formed JSON.") from None
        return await work(namespace, request)

    return answer


def _told(message: str) -> str:
    """Which member is wrong: its name is one of our own shapes, its value stays unsaid."""
    place = _PLACE.search(message)
    where = place[1].strip(".") if place else ""
    missing = _MISSING.match(message)
    if missing:
        return f"Missing required member: {'.'.join(filter(None, (where, missing[1])))}"
    return f"The value of {where} is not allowed." if where else "The request is not a JSON object."


def _response(status: int, body: dict[str, Any]) -> Response:
    return Response(status=status, body=msgspec.json.encode(body), media_type=MEDIA)

"""Import and export jobs at HAPI: $import and $export are started and polled, the job is HAPI's alone (HL-10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.faults import clean
from wardmesh_fhir_proxy.healthlake_hapi_limits import NO_ROLE, WITH_HAPI, check_output
from wardmesh_fhir_proxy.healthlake_hapi_server import NOT_FOUND, VALIDATION, Errand, Refusal, document, issues
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

Kind = Literal["import", "export"]
NDJSON = "application/fhir+ndjson"
_JOB = re.compile(r"(import|export)-([A-Za-z0-9-]{1,56})")
_FILE = re.compile(r"([A-Z][A-Za-z]{2,63})(?:[._-][A-Za-z0-9._-]{1,100})?\.ndjson")
_SEVERAL = re.compile(r"([^{}]*/)\{([^{}/]+)\}")
_STEPS = re.compile(r"/[A-Za-z0-9._~/-]*")
MOST_FILES = 100
NO_JOB = "The job does not exist."
FAILED = "HAPI ended the job with an error; its own log says which."


async def start_export(errand: Errand, datastore: str) -> dict[str, Any]:
    check_output(errand.order.asked.get("OutputDataConfig"))
    wanted = [{"name": "_outputFormat", "valueString": NDJSON}]
    answer = await errand.change(f"{datastore}/$export", wanted, Prefer="respond-async")
    return _started("export", datastore, answer)


async def start_import(errand: Errand, datastore: str) -> dict[str, Any]:
    """HAPI fetches the files itself, so they must lie where the operator allows it to go."""
    asked = errand.order.asked
    check_output(asked.get("JobOutputDataConfig"))
    config: Any = asked.get("InputDataConfig")
    url = str(config.get("S3Uri", "")) if isinstance(config, dict) else ""
    files = [(_type_of(one, errand.place.healthlake.import_from), one) for one in _each(url)]
    wanted = [
        {"name": "inputFormat", "valueCode": NDJSON},
        {"name": "storageDetail", "part": [{"name": "type", "valueCode": "https"}]},
    ]
    for kind, one in files:
        told = [{"name": "type", "valueCode": kind}, {"name": "url", "valueUri": one}]
        wanted.append({"name": "input", "part": told})
    answer = await errand.change(f"{datastore}/$import", wanted, Prefer="respond-async")
    return _started("import", datastore, answer)


async def stop_export(errand: Errand, datastore: str) -> dict[str, Any]:
    """The state as it is afterwards: a job that ended before stays as it ended."""
    answer = await errand.remove(f"{datastore}/$export-poll-status?_jobId={_known(errand, 'export')[1]}")
    said = await described(errand, "export", datastore)
    if answer.status == 202 and said["JobStatus"] in ("SUBMITTED", "IN_PROGRESS"):
        said["JobStatus"] = "STOP_REQUESTED"
    return {name: said[name] for name in ("JobId", "JobStatus", "DatastoreId")}


async def described(errand: Errand, kind: Kind, datastore: str) -> dict[str, Any]:
    job, number = _known(errand, kind)
    answer = await errand.get(f"{datastore}/${kind}-poll-status?_jobId={number}")
    hosts = (urlsplit(errand.place.bases.patient).netloc,)
    said = _export_state(answer) if kind == "export" else _import_state(answer, hosts)
    known = {"JobId": job, "DatastoreId": datastore, **said}
    if kind == "export":
        known["OutputDataConfig"] = {"S3Configuration": {"S3Uri": WITH_HAPI}}
    return known


def _known(errand: Errand, kind: Kind) -> tuple[str, str]:
    """(JobId, HAPI's own id of the job). Raises Refusal for what is no job of this kind."""
    told = _JOB.fullmatch(str(errand.order.asked.get("JobId", "")))
    if told is None or told[1] != kind:
        raise Refusal(NOT_FOUND, NO_JOB)
    return told[0], told[2]


def _started(kind: Kind, datastore: str, answer: UpstreamAnswer) -> dict[str, Any]:
    if answer.status in (400, 404, 405, 501):
        raise Refusal(VALIDATION, f"HAPI refused the {kind}: is it switched on there?")
    poll = urlsplit(answer.headers.get("Content-Location", ""))
    job = f"{kind}-{(parse_qs(poll.query).get('_jobId') or [''])[0]}"
    if answer.status != 202 or not _JOB.fullmatch(job):
        raise BadUpstream(f"HAPI did not say which job it started for the {kind}.")
    return {"JobId": job, "JobStatus": "SUBMITTED", "DatastoreId": datastore, "Message": NO_ROLE}


def _export_state(answer: UpstreamAnswer) -> dict[str, Any]:
    if answer.status == 200:
        return _exported(document(answer))
    if answer.status == 500 and issues(answer):
        return {"JobStatus": "FAILED", "Message": FAILED}  # HAPI has no other word for the end of such a job
    if answer.status == 404 and "was cancelled" in issues(answer):
        return {"JobStatus": "STOPPED"}
    return _running(answer)


def _exported(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Files by the references under which the datastore shows them; HAPI's addresses stay inside."""
    listed = [item for item in manifest.get("output") or () if isinstance(item, dict)]
    files = [{"Type": str(item.get("type", "")), "Reference": _reference(item.get("url"))} for item in listed]
    status = "COMPLETED_WITH_ERRORS" if manifest.get("error") else "COMPLETED"
    return {"JobStatus": status, "JobProgressReport": {"TotalNumberOfExportedFiles": len(files)}, "Files": files}


def _reference(url: Any) -> str:
    return "/".join(urlsplit(str(url)).path.split("/")[-2:])


def _import_state(answer: UpstreamAnswer, hosts: tuple[str, ...]) -> dict[str, Any]:
    text = issues(answer)
    if answer.status == 200:
        return {"JobStatus": "COMPLETED", "Message": clean(text, hosts)}
    if answer.status == 500 and "FAILED" in text:
        return {"JobStatus": "FAILED", "Message": FAILED}
    if answer.status == 404 and "cancelled" in text:
        return {"JobStatus": "STOPPED"}
    return _running(answer)


def _running(answer: UpstreamAnswer) -> dict[str, Any]:
    if answer.status in (400, 404, 410):  # 400: a job of another partition
        raise Refusal(NOT_FOUND, NO_JOB)
    if answer.status != 202:
        raise BadUpstream("HAPI did not say how the job stands.")
    progress = answer.headers.get("X-Progress", "")
    if "CANCELLED" in progress:
        return {"JobStatus": "STOPPED"}
    return {"JobStatus": "SUBMITTED" if "QUEUED" in progress else "IN_PROGRESS"}


def _each(url: str) -> list[str]:
    """`https://files.example.org/{Patient.ndjson,Group.ndjson}` names several files: HAPI lists no folders."""
    several = _SEVERAL.fullmatch(url)
    if several is None:
        return [url]
    files = [f"{several[1]}{name}" for name in several[2].split(",")]
    if len(files) > MOST_FILES or len(set(files)) < len(files):
        raise Refusal(VALIDATION, f"HAPI imports at most {MOST_FILES} files in one job, each of them once.")
    return files


def _type_of(url: str, allowed: tuple[str, ...]) -> str:
    """The resource type that the file's name tells. Raises Refusal."""
    if not allowed:
        raise Refusal(VALIDATION, "HAPI fetches imports itself, and the platform's file names no place to fetch from.")
    parts = urlsplit(url)
    plain = _STEPS.fullmatch(parts.path) and not parts.query and not parts.fragment and "@" not in parts.netloc
    if not plain or ".." in url or not url.startswith(allowed):
        raise Refusal(
            VALIDATION, "HAPI may not fetch from there: S3Uri must lie below an address of the platform's file."
        )
    named = _FILE.fullmatch(url.rpartition("/")[2])
    if named is None:
        raise Refusal(
            VALIDATION, "HAPI imports NDJSON files whose names begin with their type, as Patient.ndjson does."
        )
    return named[1]

"""Datastores at HAPI: what is sent for each order, what is made of the answers, and what is refused before."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.errors import BadUpstream, NotAllowed, PlatformUnconfigured, PlatformUnknown
from wardmesh_common.vocabulary import DATASTORE_OPERATIONS, Interaction
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.healthlake_hapi import Hapi
from wardmesh_fhir_proxy.healthlake_hapi_limits import NOT_OFFERED
from wardmesh_fhir_proxy.healthlake_hapi_server import HapiServer
from wardmesh_fhir_proxy.healthlake_model import Model
from wardmesh_fhir_proxy.platforms_dir import PlatformFileInvalid

pytestmark = pytest.mark.anyio
FILES = "https://files.example/exports/"
OUTPUT = {"S3Configuration": {"S3Uri": "hapi:"}}
ROLE = "arn:aws:iam::123456789012:role/none"


class StandIn:
    """HAPI's partitions and jobs, as far as the answers of a real one were seen (differential/test_hapi_datastores)."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.rows: dict[str, tuple[int, str]] = {"radiology": (7, "not a datastore of ours")}
        self.written: set[str] = set()
        self.polls: list[tuple[int, Any, dict[str, str]]] = []
        self.kick_off = 202
        bench.upstream.respond = self.respond
        self.describe()

    def describe(self, **more: Any) -> None:
        section = {"backend": "hapi", "endpoint": self.bench.upstream.base, "import_from": [FILES], **more}
        document = {"id": "lake", "name": "HAPI", "type": "sandbox", "auth": {"method": "none"}, "writes": True}
        (self.bench.directory / "lake.yaml").write_bytes(msgspec.json.encode({**document, "healthlake": section}))
        self.bench.platforms.reload()

    def respond(self, seen: Any) -> web.Response:
        tenant, _, rest = seen.path.removeprefix("/r4/").partition("/")
        if "$partition-management" in rest:
            assert tenant == "DEFAULT"
            return self.manage(rest.rpartition("-")[0].rpartition("-")[2], seen.body)
        if rest == "_history":
            return answer({"resourceType": "Bundle", "type": "history", "total": int(tenant in self.written)})
        if rest in ("$export", "$import"):
            where = f"http://hapi.inside:8080/fhir/{tenant}/{rest}-poll-status?_jobId=0f-1"
            return answer({}, self.kick_off, **({"Content-Location": where} if self.kick_off == 202 else {}))
        status, body, headers = self.polls.pop(0)
        assert parse_qs(seen.query) == {"_jobId": ["0f-1"]}
        return answer(body, status, **headers)

    def manage(self, verb: str, body: bytes) -> web.Response:
        said = {p["name"]: p for p in json.loads(body)["parameter"]} if body else {}
        if verb == "list":
            return answer({"resourceType": "Parameters", "parameter": [part(n, *row) for n, row in self.rows.items()]})
        number = said["id"]["valueInteger"]
        if verb == "delete":
            self.rows = {name: row for name, row in self.rows.items() if row[0] != number}
            return answer({"resourceType": "Parameters"})
        assert verb == "create"
        name = said["name"]["valueCode"]
        if name in self.rows or number in {row[0] for row in self.rows.values()}:
            return answer({"resourceType": "OperationOutcome"}, 400)
        self.rows[name] = number, said["description"]["valueString"]
        return answer({"resourceType": "Parameters"})

    async def manage_as(self, operation: str, target: str = "", region: str = "", **request: Any) -> tuple[int, Any]:
        body = msgspec.json.encode({"request": request, **({"region": region} if region else {})})
        outcome = await self.bench.perform(
            Interaction.OPERATION, "Datastore", target, operation=operation, body=body, platform="lake"
        )
        return outcome.status, json.loads(outcome.body)

    async def made(self, **more: Any) -> str:
        status, said = await self.manage_as("$create-datastore", DatastoreTypeVersion="R4", **more)
        assert (status, said["DatastoreStatus"]) == (200, "ACTIVE")
        return said["DatastoreId"]

    async def described(self, kind: str, datastore: str, job: str) -> dict[str, Any]:
        status, said = await self.manage_as(f"$describe-{kind}-job", datastore, DatastoreId=datastore, JobId=job)
        return said[f"{kind.title()}JobProperties"] if status == 200 else said


def part(name: str, number: int, description: str) -> dict[str, Any]:
    parts = [{"name": "id", "valueInteger": number}, {"name": "name", "valueCode": name}]
    return {"name": "partition", "part": [*parts, {"name": "description", "valueString": description}]}


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(body, status=status, headers=headers, content_type="application/fhir+json")


def outcome_of(text: str) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x", "diagnostics": text}]}


async def test_every_operation_is_either_carried_out_or_declared_as_not_offered(bench: Any) -> None:
    carried_out = Hapi(HapiServer(bench.exchanges), Model()).operations
    assert carried_out | NOT_OFFERED.keys() == set(DATASTORE_OPERATIONS)
    assert not carried_out & NOT_OFFERED.keys()
    hapi = StandIn(bench)
    for operation in NOT_OFFERED:
        arn = {"ResourceARN": f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{'a' * 32}"}
        given = {"DatastoreId": "a" * 32} if "job" in operation else arn
        given |= {"Tags": []} if operation == "$tag-datastore" else {}
        given |= {"TagKeys": []} if operation == "$untag-datastore" else {}
        status, said = await hapi.manage_as(operation, "a" * 32, **given)
        assert (status, said) == (400, {"code": "ValidationException", "message": NOT_OFFERED[operation]})
    assert bench.upstream.requests == [], "what is not offered is refused before HAPI is asked"


async def test_a_datastore_is_a_partition_whose_description_is_all_that_is_remembered(bench: Any) -> None:
    hapi = StandIn(bench)
    first = await hapi.made(DatastoreName="mine", ClientToken="once")
    again = await hapi.made(DatastoreName="mine", ClientToken="once")
    other = await hapi.made()
    assert first == again != other
    assert len(hapi.rows) == 3
    status, said = await hapi.manage_as(
        "$create-datastore", DatastoreTypeVersion="R4", DatastoreName="yours", ClientToken="once"
    )
    assert (status, said["code"]) == (409, "ConflictException")
    status, said = await hapi.manage_as("$describe-datastore", first, DatastoreId=first)
    properties = said["DatastoreProperties"]
    assert (properties["DatastoreName"], properties["DatastoreStatus"]) == ("mine", "ACTIVE")
    assert properties["CreatedAt"].startswith("20") and properties["CreatedAt"].endswith("Z")
    assert properties["DatastoreEndpoint"].endswith(f"/lake-ds-{first}/")
    assert any("Binary" in text for text in properties["Limits"]), "what HAPI lacks is said with the datastore"
    assert bench.upstream.base not in json.dumps(said)


async def test_lists_are_filtered_paged_and_show_no_partition_of_others(bench: Any) -> None:
    hapi = StandIn(bench)
    known = sorted([await hapi.made(DatastoreName=f"n{i}", ClientToken=f"t{i}") for i in range(3)])
    hapi.rows["f" * 32] = 99, "somebody else wrote this"
    status, page = await hapi.manage_as("$list-datastores", MaxResults=2)
    assert [each["DatastoreId"] for each in page["DatastorePropertiesList"]] == known[:2]
    _, rest = await hapi.manage_as("$list-datastores", MaxResults=2, NextToken=page["NextToken"])
    assert [each["DatastoreId"] for each in rest["DatastorePropertiesList"]] == [known[2], "f" * 32]
    assert "NextToken" not in rest
    for wanted, count in (
        ({"DatastoreName": "n1"}, 1),
        ({"CreatedAfter": "2020-01-01T00:00:00Z"}, 3),
        ({"CreatedBefore": "2020-01-01T00:00:00"}, 0),
        ({"DatastoreStatus": "DELETING"}, 0),
    ):
        status, said = await hapi.manage_as("$list-datastores", Filter=wanted)
        assert (status, len(said["DatastorePropertiesList"])) == (200, count), wanted


async def test_only_a_datastore_that_never_held_anything_is_deleted(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made(ClientToken="once")
    hapi.written.add(datastore)
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, said["code"]) == (409, "ConflictException")
    assert "without its data" in said["message"] and datastore in hapi.rows
    hapi.written.clear()
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, said["DatastoreStatus"], datastore in hapi.rows) == (200, "DELETING", False)
    status, said = await hapi.manage_as("$describe-datastore", datastore, DatastoreId=datastore)
    assert (status, said["code"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    "more",
    [
        {"SseConfiguration": {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}}},
        {"PreloadDataConfig": {"PreloadDataType": "SYNTHEA"}},
        {"Tags": [{"Key": "a", "Value": "b"}]},
        {"IdentityProviderConfiguration": {"AuthorizationStrategy": "SMART_ON_FHIR_V1"}},
        {"DatastoreName": "x" * 200},
        {"DatastoreTypeVersion": "R5"},
    ],
)
async def test_what_hapi_cannot_keep_is_refused_and_nothing_is_made(bench: Any, more: dict[str, Any]) -> None:
    hapi = StandIn(bench)
    status, said = await hapi.manage_as("$create-datastore", **{"DatastoreTypeVersion": "R4", **more})
    assert (status, said["code"]) == (400, "ValidationException")
    assert len(hapi.rows) == 1


async def test_an_export_is_started_once_and_followed_until_its_files_are_there(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
    status, said = await hapi.manage_as("$start-export-job", datastore, **asked)
    assert (status, said["JobId"], said["JobStatus"]) == (200, "export-0f-1", "SUBMITTED")
    assert "no role" in said["Message"]
    sent = bench.upstream.requests[-1]
    assert (sent.path, sent.headers["Prefer"]) == (f"/r4/{datastore}/$export", "respond-async")
    assert sent.headers["Cache-Control"] == "no-cache", "an export of now, not HAPI's last one"
    file = {"type": "Patient", "url": f"http://hapi.inside:8080/fhir/{datastore}/Binary/b1"}
    hapi.polls = [
        (202, {}, {"X-Progress": "Build in progress - Status set to QUEUED at 12:00"}),
        (202, {}, {"X-Progress": "Build in progress - Status set to IN_PROGRESS at 12:00"}),
        (200, {"output": [file], "error": []}, {}),
        (500, outcome_of("a patient called Smith"), {}),
        (404, outcome_of("Unknown instance ID"), {}),
    ]
    seen = [await hapi.described("export", datastore, "export-0f-1") for _ in range(5)]
    assert [each.get("JobStatus") for each in seen] == ["SUBMITTED", "IN_PROGRESS", "COMPLETED", "FAILED", None]
    assert seen[2]["Files"] == [{"Type": "Patient", "Reference": "Binary/b1"}]
    assert seen[2]["JobProgressReport"] == {"TotalNumberOfExportedFiles": 1}
    assert "Smith" not in json.dumps(seen)
    assert seen[4]["code"] == "ResourceNotFoundException"
    mistaken = await hapi.described("import", datastore, "export-0f-1")
    assert mistaken["code"] == "ResourceNotFoundException", "an export is not described as an import"


async def test_an_import_names_one_file_below_an_allowed_address(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()

    async def start(url: str) -> tuple[int, Any]:
        asked = {"DatastoreId": datastore, "JobOutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
        return await hapi.manage_as("$start-import-job", datastore, InputDataConfig={"S3Uri": url}, **asked)

    before = len(bench.upstream.requests)
    for url in (
        "s3://bucket/Patient.ndjson",
        "https://elsewhere.example/exports/Patient.ndjson",
        f"{FILES}../secret/Patient.ndjson",
        f"{FILES}%2e%2e/Patient.ndjson",
        f"{FILES}Patient.ndjson?x=1",
        f"{FILES}folder/",
        f"{FILES}all.ndjson",
    ):
        status, said = await start(url)
        assert (status, said["code"]) == (400, "ValidationException"), url
    assert all(not seen.path.endswith("$import") for seen in bench.upstream.requests[before:])
    status, said = await start(f"{FILES}2026/Patient.000.ndjson")
    assert (status, said["JobId"]) == (200, "import-0f-1")
    inputs = [p for p in json.loads(bench.upstream.requests[-1].body)["parameter"] if p["name"] == "input"]
    told = {each["name"]: each for each in inputs[0]["part"]}
    assert told["type"]["valueCode"] == "Patient"
    assert told["url"]["valueUri"] == f"{FILES}2026/Patient.000.ndjson"
    hapi.polls = [
        (202, outcome_of("in IN_PROGRESS state"), {"X-Progress": "is in IN_PROGRESS state"}),
        (200, outcome_of("3 resources of http://files.example/x"), {}),
        (500, outcome_of("Job is in FAILED state with 3 error count. Last error: Smith"), {}),
        (404, outcome_of("Job was cancelled."), {}),
        (400, outcome_of("Invalid partition in request"), {}),
    ]
    seen = [await hapi.described("import", datastore, "import-0f-1") for _ in range(5)]
    assert [each.get("JobStatus") for each in seen] == ["IN_PROGRESS", "COMPLETED", "FAILED", "STOPPED", None]
    assert "files.example" not in json.dumps(seen) and "Smith" not in json.dumps(seen)
    hapi.describe(import_from=[])
    assert "names no place" in (await start(f"{FILES}Patient.ndjson"))[1]["message"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"OutputDataConfig": {"S3Configuration": {"S3Uri": "s3://b/k"}}}, "hapi:"),
        ({"OutputDataConfig": {"S3Configuration": {"S3Uri": "hapi:", "KmsKeyId": "k"}}}, "KmsKeyId"),
        ({"ClientToken": "t"}, "ClientToken"),
        ({"JobName": "n"}, "JobName"),
    ],
)
async def test_what_a_job_at_hapi_cannot_have_is_refused(bench: Any, more: dict[str, Any], text: str) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE, **more}
    status, said = await hapi.manage_as("$start-export-job", datastore, **asked)
    assert (status, said["code"]) == (400, "ValidationException")
    assert text in said["message"]
    assert not any("$export" in seen.path for seen in bench.upstream.requests)


async def test_answers_that_are_none_of_hapi_with_partitions_are_its_fault(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.kick_off = 400
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
    assert "switched on" in (await hapi.manage_as("$start-export-job", datastore, **asked))[1]["message"]
    hapi.kick_off = 200
    with pytest.raises(BadUpstream):
        await hapi.manage_as("$start-export-job", datastore, **asked)
    bench.upstream.answer(outcome_of("no"), status=403)
    assert (await hapi.manage_as("$list-datastores"))[1]["code"] == "AccessDeniedException"
    for status, body in ((400, outcome_of("no such operation")), (200, b"<html>")):
        bench.upstream.answer(body, status=status)
        with pytest.raises(BadUpstream):
            await hapi.manage_as("$list-datastores")


async def test_the_data_of_a_datastore_lies_under_its_partition_and_there_are_no_regions(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    read = await bench.perform(Interaction.READ, "Patient", "p1", platform=f"lake-ds-{datastore}")
    sent = bench.upstream.requests[-1]
    assert (read.status, sent.path) == (200, f"/r4/{datastore}/Patient/p1")
    assert "X-Wardmesh-Namespace" not in sent.headers
    seen, minded = len(bench.upstream.requests), {"if-match": 'W/"1"'}
    with pytest.raises(NotAllowed):  # HAPI would delete whatever version there is
        await bench.perform(Interaction.DELETE, "Patient", "p1", platform=f"lake-ds-{datastore}", headers=minded)
    assert len(bench.upstream.requests) == seen
    with pytest.raises(PlatformUnconfigured):
        await hapi.manage_as("$list-datastores", region="eu-west-1")
    with pytest.raises(PlatformUnknown):
        bench.platforms.serving(f"lake-ds-{datastore}-eu-west-1")


@pytest.mark.parametrize("more", [{"signing": "sigv4"}, {"import_from": ["https://files.example/x"]}])
async def test_a_file_that_says_what_cannot_be_is_refused(bench: Any, more: dict[str, Any]) -> None:
    StandIn(bench).describe(**more)
    with pytest.raises(PlatformFileInvalid):
        Platforms(bench.directory)

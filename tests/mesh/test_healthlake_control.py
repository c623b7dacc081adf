"""Datastores and jobs through MCP and the whole mesh: every field, state, filter and page of HL-1 and HL-10."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mesh.healthlake import (
    DEMO,
    PERSON,
    ROLE,
    Lake,
    content_of,
    exported,
    imported,
    lake,
    new_store,
    output,
    people,
    put_ndjson,
    refused,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
FOUR = {"DatastoreId", "DatastoreArn", "DatastoreStatus", "DatastoreEndpoint"}
TEN = FOUR | {
    "DatastoreName", "CreatedAt", "DatastoreTypeVersion", "SseConfiguration", "PreloadDataConfig",
    "IdentityProviderConfiguration",
}  # fmt: skip
MANY = 6000
OVER = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "STOPPED"}
NO_STORE = "AWS HealthLake Error (ResourceNotFoundException): "


async def described(call: Lake, store: str) -> dict[str, Any]:
    return (await call("describe_datastore", datastore_id=store))["DatastoreProperties"]


async def when(call: Lake, store: str, status: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found = await described(call, store)
        return found if found["DatastoreStatus"] == status else None

    return await until(there)


async def listed(call: Lake, **more: Any) -> list[dict[str, Any]]:
    return (await call("list_datastores", **more))["DatastorePropertiesList"]


@pytest.mark.requirement("HL-1")
async def test_a_datastore_with_sample_data_from_creating_to_deleted(mesh: Any) -> None:
    asked = {
        "datastore_type_version": "R4",
        "datastore_name": "whole-life",
        "sse_configuration": {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}},
        "preload_data_config": {"PreloadDataType": "SYNTHEA"},
        "client_token": "whole-life-1",
        "tags": [{"Key": "team", "Value": "care"}],
        "identity_provider_configuration": {"AuthorizationStrategy": "SMART_ON_FHIR", "Metadata": "{}"},
    }
    before = datetime.now(UTC)
    async with lake(mesh) as call:
        made = await call("create_datastore", **asked)
        store = made["DatastoreId"]
        assert (set(made), made["DatastoreStatus"]) == (FOUR, "CREATING")
        assert (len(store), set(store) <= set("0123456789abcdef")) == (32, True)
        assert (await call("create_datastore", **asked))["DatastoreId"] == store
        other = await refused(call, "create_datastore", **{**asked, "datastore_name": "another"})
        assert other.startswith("AWS HealthLake Error (ConflictException): ")
        found = await when(call, store, "ACTIVE")
        assert set(found) == TEN
        assert (found["DatastoreName"], found["DatastoreTypeVersion"]) == ("whole-life", "R4")
        assert (found["DatastoreId"], found["DatastoreArn"]) == (store, made["DatastoreArn"])
        for name in ("sse_configuration", "preload_data_config", "identity_provider_configuration"):
            assert found["".join(word.title() for word in name.split("_"))] == asked[name]
        created = datetime.fromisoformat(found["CreatedAt"])
        assert before - timedelta(minutes=1) < created < before + timedelta(minutes=5)

        counted = {"query_parameters": {"_summary": "count"}}
        of_store = {"datastore_id": store, "resource_type": "Patient"}
        assert (await call("search_fhir_resources", **of_store, **counted))["total"] > 10
        assert (await call("read_fhir_resource", **of_store, resource_id=PERSON))["id"] == PERSON
        statement = await call("get_datastore_capabilities", datastore_id=store)
        assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")

        gone = await call("delete_datastore", datastore_id=store)
        assert (set(gone), gone["DatastoreStatus"], gone["DatastoreId"]) == (FOUR, "DELETING", store)
        await refused(call, "read_fhir_resource", **of_store, resource_id=PERSON)
        assert (await when(call, store, "DELETED"))["DatastoreName"] == "whole-life"
        deleted = await listed(call, filter_dict={"DatastoreName": "whole-life", "DatastoreStatus": "DELETED"})
        assert [one["DatastoreId"] for one in deleted] == [store]
        with_data = await call("search_fhir_resources", datastore_id=DEMO, resource_type="Patient", **counted)
        assert with_data["total"] > 0, "other datastores keep what they hold"


@pytest.mark.requirement("HL-1")
async def test_datastores_are_listed_by_name_state_and_time_in_pages(mesh: Any) -> None:
    async with lake(mesh) as call:
        stores = [await new_store(call, datastore_name="many") for _ in range(3)]
        third = await described(call, stores[2])
        by_name = {"DatastoreName": "many"}
        assert [one["DatastoreId"] for one in await listed(call, filter_dict=by_name)] == stores
        earlier = {**by_name, "CreatedBefore": third["CreatedAt"]}
        assert [one["DatastoreId"] for one in await listed(call, filter_dict=earlier)] == stores[:2]
        first = await described(call, stores[0])
        later = {**by_name, "CreatedAfter": first["CreatedAt"], "DatastoreStatus": "ACTIVE"}
        assert [one["DatastoreId"] for one in await listed(call, filter_dict=later)] == stores[1:]
        assert await listed(call, filter_dict={**by_name, "DatastoreStatus": "CREATING"}) == []
        page = await call("list_datastores", filter_dict=by_name, max_results=2)
        assert [one["DatastoreId"] for one in page["DatastorePropertiesList"]] == stores[:2]
        rest = await call("list_datastores", filter_dict=by_name, max_results=2, next_token=page["NextToken"])
        assert [one["DatastoreId"] for one in rest["DatastorePropertiesList"]] == stores[2:]
        assert "NextToken" not in rest
        for store in stores:
            await call("delete_datastore", datastore_id=store)
        assert (await refused(call, "describe_datastore", datastore_id="f" * 32)).startswith(NO_STORE)


@pytest.mark.requirement("HL-16")
async def test_without_any_credential_of_aws_a_region_is_a_name_space_of_the_local_store(mesh: Any) -> None:
    person = {"resourceType": "Patient", "id": "same", "name": [{"family": "There"}]}
    async with lake(mesh) as call:
        made = await call("create_datastore", datastore_type_version="R4", region_name="eu-central-1")
        assert ":eu-central-1:" in made["DatastoreArn"]
        there = {"datastore_id": made["DatastoreId"], "region_name": "eu-central-1"}
        in_region = await listed(call, region_name="eu-central-1")
        assert [one["DatastoreId"] for one in in_region] == [made["DatastoreId"]]
        default = {one["DatastoreId"] for one in await listed(call)}
        named = {one["DatastoreId"] for one in await listed(call, region_name="us-west-2")}
        assert (default == named, DEMO in default, made["DatastoreId"] in default) == (True, True, False)
        of_patient = {"resource_type": "Patient", "resource_id": "same"}
        await call("update_fhir_resource", **there, **of_patient, resource_data=person)
        assert (await call("read_fhir_resource", **there, **of_patient))["name"] == person["name"]
        here = {"datastore_id": made["DatastoreId"]}
        await refused(call, "read_fhir_resource", **here, **of_patient)
        assert (await refused(call, "describe_datastore", **here)).startswith(NO_STORE)
        elsewhere = await refused(call, "describe_datastore", **here, region_name="eu-west-3")
        assert elsewhere.startswith(NO_STORE)
        await call("delete_datastore", **there)


def job(store: str, bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "input_data_config": {"S3Uri": f"s3://{bucket}/in/"},
        "job_output_data_config": output(f"s3://{bucket}/result/"),
        "datastore_id": store,
        "data_access_role_arn": ROLE,
        **more,
    }


@pytest.mark.requirement("HL-10")
async def test_jobs_are_started_once_described_and_listed_by_every_filter(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="jobs")
        put_ndjson(mesh, "jobs-good", people("Able", "Baker"))
        put_ndjson(mesh, "jobs-bad", [*people("Carla"), {"resourceType": "Patient", "id": "bad", "gender": 7}])
        good = job(store, "jobs-good", job_name="good", client_token="good-1")
        started = await call("start_fhir_import_job", **good)
        assert (set(started), started["DatastoreId"]) == ({"JobId", "JobStatus", "DatastoreId"}, store)
        assert started["JobStatus"] in {"SUBMITTED", "IN_PROGRESS", "COMPLETED"}
        assert (await call("start_fhir_import_job", **good))["JobId"] == started["JobId"]
        told = await call("describe_fhir_import_job", datastore_id=store, job_id=started["JobId"])
        assert set(told) == {"ImportJobProperties"}
        ended = await call.finished("describe_fhir_import_job", store, started["JobId"])
        assert (ended["JobStatus"], ended["JobName"], ended["DatastoreId"]) == ("COMPLETED", "good", store)
        assert ended["InputDataConfig"] == good["input_data_config"]
        assert (ended["JobOutputDataConfig"], ended["DataAccessRoleArn"]) == (good["job_output_data_config"], ROLE)
        assert ended["JobProgressReport"]["TotalNumberOfResourcesImported"] == 2
        assert ended["JobProgressReport"]["TotalNumberOfImportedFiles"] == 1
        assert datetime.fromisoformat(ended["SubmitTime"]) <= datetime.fromisoformat(ended["EndTime"])
        read = {"datastore_id": store, "resource_type": "Patient"}
        assert (await call("read_fhir_resource", **read, resource_id="able"))["name"][0]["family"] == "Able"

        bad = await call("start_fhir_import_job", **job(store, "jobs-bad", job_name="bad"))
        half = await call.finished("describe_fhir_import_job", store, bad["JobId"])
        assert half["JobStatus"] == "COMPLETED_WITH_ERRORS"
        assert half["JobProgressReport"]["TotalNumberOfResourcesWithCustomerError"] == 1
        nothing = await call("start_fhir_import_job", **job(store, "jobs-nothing", job_name="none"))
        assert (await call.finished("describe_fhir_import_job", store, nothing["JobId"]))["JobStatus"] == "FAILED"

        async def found(**filters: Any) -> list[str]:
            answer = await call("list_fhir_import_jobs", datastore_id=store, **filters)
            return [one["JobName"] for one in answer["ImportJobPropertiesList"]]

        assert await found() == ["none", "bad", "good"]
        assert await found(job_name="bad") == ["bad"]
        assert await found(job_status="FAILED") == ["none"]
        assert await found(job_status="STOP_REQUESTED") == await found(job_status="STOPPED") == []
        assert await found(submitted_before=half["SubmitTime"]) == ["good"]
        assert await found(submitted_after=half["SubmitTime"]) == ["none"]
        page = await call("list_fhir_import_jobs", datastore_id=store, max_results=2)
        rest = await call("list_fhir_import_jobs", datastore_id=store, max_results=9, next_token=page["NextToken"])
        assert [one["JobName"] for one in rest["ImportJobPropertiesList"]] == ["good"]
        assert "NextToken" not in rest

        export = {"output_data_config": output("s3://jobs-out/"), "datastore_id": store, "data_access_role_arn": ROLE}
        out = await call("start_fhir_export_job", **export, job_name="out", client_token="out-1")
        assert set(out) == {"JobId", "JobStatus", "DatastoreId"}
        written = await call.finished("describe_fhir_export_job", store, out["JobId"])
        assert (written["JobStatus"], written["OutputDataConfig"]) == ("COMPLETED", export["output_data_config"])
        assert written["JobProgressReport"]["TotalNumberOfResourcesExported"] == 3
        exports = await call("list_fhir_export_jobs", datastore_id=store, job_name="out", job_status="COMPLETED")
        assert [one["JobId"] for one in exports["ExportJobPropertiesList"]] == [out["JobId"]]
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-10")
async def test_an_export_imported_elsewhere_is_equal_and_a_running_import_survives_the_store_s_restart(
    mesh: Any,
) -> None:
    numbered = [{"resourceType": "Patient", "id": f"p{n}", "name": [{"family": f"N{n}"}]} for n in range(MANY)]
    async with lake(mesh) as call:
        first, second = await new_store(call), await new_store(call)
        put_ndjson(mesh, "survivors", numbered)
        started = await call("start_fhir_import_job", **job(first, "survivors"))
        place = {"datastore_id": first, "job_id": started["JobId"]}

        async def under_way() -> bool:
            now = (await call("describe_fhir_import_job", **place))["ImportJobProperties"]
            assert now["JobStatus"] not in OVER, "the import is too small to be interrupted"
            return now["JobProgressReport"]["TotalNumberOfResourcesImported"] > 0

        await until(under_way)
        mesh.kill("fhir-store")
        mesh.until_ready("fhir-store")
        ended = await call.finished("describe_fhir_import_job", first, started["JobId"])
        assert ended["JobStatus"] == "COMPLETED"
        assert ended["JobProgressReport"]["TotalNumberOfResourcesImported"] == MANY
        saved = await exported(call, mesh, first, "survivors-out")
        assert len(saved) == MANY
        assert {one["meta"]["versionId"] for one in saved} == {"1"}, "nothing was imported twice"
        again = await imported(call, second, put_ndjson(mesh, "survivors-again", saved[:500]))
        assert again["JobStatus"] == "COMPLETED"
        copied = await exported(call, mesh, second, "survivors-copy")
        assert [content_of(one) for one in copied] == [content_of(one) for one in saved[:500]]
        for store in (first, second):
            await call("delete_datastore", datastore_id=store)

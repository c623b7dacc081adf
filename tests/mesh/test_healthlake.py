"""Datastores through the whole mesh: who may do what, read-only mode, and the use cases of HL-21."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.healthlake import DEMO, Failed, Lake, lake, until

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(240)]
ROLE = "arn:aws:iam::000000000000:role/healthlake"
READ_ONLY = "Operation not permitted: HealthLake MCP server is in read-only mode"
CHANGING = {
    "create_datastore", "delete_datastore", "start_fhir_import_job", "start_fhir_export_job", "tag_resource",
    "untag_resource",
}  # fmt: skip


def output(uri: str) -> dict[str, Any]:
    return {"S3Configuration": {"S3Uri": uri, "KmsKeyId": "alias/none"}}


async def new_store(call: Lake, **more: Any) -> str:
    """The id of a datastore that is ready."""
    made = (await call("create_datastore", datastore_type_version="R4", **more))["DatastoreId"]

    async def active() -> bool:
        properties = (await call("describe_datastore", datastore_id=made))["DatastoreProperties"]
        return properties["DatastoreStatus"] == "ACTIVE"

    await until(active)
    return made


async def imported(call: Lake, store: str, uri: str) -> dict[str, Any]:
    started = await call(
        "start_fhir_import_job",
        input_data_config={"S3Uri": uri},
        job_output_data_config=output(f"{uri.rstrip('/')}-result/"),
        datastore_id=store,
        data_access_role_arn=ROLE,
    )
    return await call.finished("describe_fhir_import_job", store, started["JobId"])


async def exported(call: Lake, mesh: Any, store: str, bucket: str) -> list[dict[str, Any]]:
    """Every resource that an export wrote, sorted."""
    started = await call(
        "start_fhir_export_job",
        output_data_config=output(f"s3://{bucket}/"),
        datastore_id=store,
        data_access_role_arn=ROLE,
    )
    ended = await call.finished("describe_fhir_export_job", store, started["JobId"])
    assert ended["JobStatus"] == "COMPLETED"
    files = (Path(mesh.ready["s3_folder"]) / bucket).rglob("*.ndjson")
    found = [json.loads(line) for path in files for line in path.read_text().splitlines() if line]
    return sorted(found, key=lambda one: (one["resourceType"], one["id"]))


def put_ndjson(mesh: Any, bucket: str, resources: list[dict[str, Any]]) -> str:
    folder = Path(mesh.ready["s3_folder"]) / bucket / "in"
    folder.mkdir(parents=True)
    for kind in {one["resourceType"] for one in resources}:
        lines = [json.dumps(one) for one in resources if one["resourceType"] == kind]
        (folder / f"{kind}.ndjson").write_text("\n".join(lines) + "\n")
    return f"s3://{bucket}/in/"


def people(*names: str) -> list[dict[str, Any]]:
    return [{"resourceType": "Patient", "id": name.lower(), "name": [{"family": name}]} for name in names]


async def refused(call: Lake, name: str, **arguments: Any) -> str:
    with pytest.raises(Failed) as failed:
        await call(name, **arguments)
    return failed.value.text


@pytest.mark.requirement("HL-13")
async def test_who_may_do_what_with_datastores_is_policy_s_word(mesh: Any) -> None:
    denied = "AWS HealthLake Error (AccessDeniedException): Access denied: no rule allows operation:"
    async with lake(mesh, "demo_nurse") as nurse:
        assert DEMO in json.dumps(await nurse("list_datastores"))
        assert (await refused(nurse, "delete_datastore", datastore_id=DEMO)).startswith(f"{denied}delete-datastore")
        offered = await nurse.names()
        assert not offered & CHANGING
        assert {"read_fhir_resource", "list_datastores", "validate_fhir_resource"} <= offered
    async with lake(mesh, "demo_auditor") as auditor:
        described = await auditor("describe_datastore", datastore_id=DEMO)
        arn = described["DatastoreProperties"]["DatastoreArn"]
        assert "Tags" in await auditor("list_tags_for_resource", resource_arn=arn)
        tags = [{"Key": "a", "Value": "b"}]
        assert (await refused(auditor, "tag_resource", resource_arn=arn, tags=tags)).startswith(denied)
        assert (await refused(auditor, "create_datastore", datastore_type_version="R4")).startswith(denied)
    async with lake(mesh, "demo_doctor") as doctor:
        export = {"output_data_config": output("s3://x/"), "datastore_id": DEMO, "data_access_role_arn": ROLE}
        assert (await refused(doctor, "start_fhir_export_job", **export)).startswith(f"{denied}start-export-job")
    async with lake(mesh, "demo_billing") as billing:
        assert (await refused(billing, "list_datastores")).startswith(denied)
        text = await refused(billing, "search_fhir_resources", datastore_id=DEMO, resource_type="Condition")
        assert text == "HTTP 403: Access denied: no rule allows search on Condition for role Billing"


@pytest.mark.requirement("HL-1", "HL-11")
async def test_a_datastore_lives_in_its_region_and_keeps_what_it_was_made_with(mesh: Any) -> None:
    asked = {
        "region_name": "eu-west-1",
        "datastore_type_version": "R4",
        "datastore_name": "abroad",
        "client_token": "abroad-1",
        "tags": [{"Key": "team", "Value": "care"}],
        "sse_configuration": {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}},
    }
    async with lake(mesh) as call:
        first, again = await call("create_datastore", **asked), await call("create_datastore", **asked)
        assert set(first) == {"DatastoreId", "DatastoreArn", "DatastoreStatus", "DatastoreEndpoint"}
        assert first["DatastoreId"] == again["DatastoreId"]
        place = {"datastore_id": first["DatastoreId"], "region_name": "eu-west-1"}
        properties = (await call("describe_datastore", **place))["DatastoreProperties"]
        assert (properties["DatastoreName"], properties["DatastoreTypeVersion"]) == ("abroad", "R4")
        assert properties["SseConfiguration"] == asked["sse_configuration"]
        assert properties["DatastoreEndpoint"].startswith(mesh.ready["gateway"])
        arn = {"resource_arn": first["DatastoreArn"], "region_name": "eu-west-1"}
        assert (await call("list_tags_for_resource", **arn))["Tags"] == asked["tags"]
        person = {"resourceType": "Patient", "name": [{"family": "Abroad"}]}
        stored = await call("create_fhir_resource", **place, resource_type="Patient", resource_data=person)
        read = await call("read_fhir_resource", **place, resource_type="Patient", resource_id=stored["id"])
        assert read["name"] == person["name"]
        text = await refused(call, "describe_datastore", datastore_id=first["DatastoreId"])
        assert text.startswith("AWS HealthLake Error (ResourceNotFoundException): ")
        here = await call("list_datastores")
        assert first["DatastoreId"] not in json.dumps(here)
        assert (await call("delete_datastore", **place))["DatastoreStatus"] == "DELETING"


@pytest.mark.requirement("HL-12", "B-17")
async def test_read_only_mode_is_policy_and_not_only_the_tools(mesh: Any) -> None:
    path = Path(mesh.ready["platforms_dir"]) / "healthlake.yaml"
    before = path.read_text()
    person = {"resourceType": "Patient", "name": [{"family": "Quiet"}]}
    create = {"datastore_id": DEMO, "resource_type": "Patient", "resource_data": person}
    headers = {"Authorization": f"Bearer {mesh.token('demo_admin')}", "Content-Type": "application/fhir+json"}
    base = f"{mesh.ready['gateway']}/fhir/healthlake-ds-{DEMO}"

    async def tries(http: httpx.AsyncClient) -> int:
        return (await http.post(f"{base}/Patient", json=person, headers=headers)).status_code

    async with lake(mesh) as call, httpx.AsyncClient(timeout=30) as http:
        try:
            path.write_text(json.dumps({**json.loads(before), "writes": False}))

            async def quiet() -> bool:
                try:
                    await call("create_fhir_resource", **create)
                except Failed as failed:
                    return failed.text == READ_ONLY
                return False

            await until(quiet)
            # The plain FHIR face has no words of its own for this: policy refuses there.
            assert await until(lambda: _is(tries(http), 403))
            assert await refused(call, "delete_datastore", datastore_id=DEMO) == READ_ONLY
            assert DEMO in json.dumps(await call("list_datastores"))
        finally:
            path.write_text(before)
        assert await until(lambda: _is(tries(http), 201))


async def _is(status: Any, wanted: int) -> bool:
    return await status == wanted


@pytest.mark.requirement("HL-21")
async def test_migration_and_analytics_what_is_imported_is_found_and_exported(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="migrated")
        ended = await imported(call, store, put_ndjson(mesh, "migration", people("Able", "Baker", "Charlie")))
        assert ended["JobStatus"] == "COMPLETED"
        assert ended["JobProgressReport"]["TotalNumberOfResourcesImported"] == 3
        found = await call("search_fhir_resources", datastore_id=store, resource_type="Patient")
        assert found["total"] == 3
        rows = await exported(call, mesh, store, "analytics")
        assert [row["name"][0]["family"] for row in rows] == ["Able", "Baker", "Charlie"]
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-21")
async def test_backup_and_restore_an_export_imported_elsewhere_is_equal(mesh: Any) -> None:
    async with lake(mesh) as call:
        first, second = await new_store(call, datastore_name="first"), await new_store(call, datastore_name="second")
        await imported(call, first, put_ndjson(mesh, "backup-source", people("Delta", "Echo")))
        saved = await exported(call, mesh, first, "backup")
        ended = await imported(call, second, put_ndjson(mesh, "restore-source", saved))
        assert ended["JobStatus"] == "COMPLETED"
        again = await exported(call, mesh, second, "restored")
        assert [_content(row) for row in again] == [_content(row) for row in saved]
        assert len(saved) == 2
        for store in (first, second):
            await call("delete_datastore", datastore_id=store)


def _content(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "meta"}


@pytest.mark.requirement("HL-7", "HL-21")
async def test_batch_and_collection_and_templates_that_were_checked_before_they_are_stored(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="batch")
        made = await call(
            "create_patient_template",
            family_name="Foxtrot",
            given_names=["A"],
            gender="female",
            birth_date="1980-01-01",
        )
        assert (await call("validate_fhir_resource", resource_data=made))["valid"]
        wrong = {"resourceType": "Observation", "subject": {"reference": "Patient/x"}}
        assert not (await call("validate_fhir_resource", resource_data=wrong))["valid"]
        batch = await call(
            "create_fhir_bundle", datastore_id=store, bundle_resources=[made, wrong], bundle_type="batch"
        )
        assert [entry["response"]["status"][:3] for entry in batch["entry"]] in (["201", "422"], ["201", "400"])
        together = await call(
            "create_fhir_bundle", datastore_id=store, bundle_resources=[made, made], bundle_type="collection"
        )
        assert (together["resourceType"], together["type"], len(together["entry"])) == ("Bundle", "collection", 2)
        assert all(entry["fullUrl"].startswith("urn:uuid:") for entry in together["entry"])
        found = await call("search_fhir_resources", datastore_id=store, resource_type="Patient")
        assert found["total"] == 1, "what lies in a collection is not stored as a resource of its own"
        await call("delete_datastore", datastore_id=store)
